package router

import (
	"bytes"
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// cursor is the sorted stream of one group, or of several that are read here.
type cursor struct {
	here  []host.ScanPoint // empty for a group that anybody may serve
	group keyspace.GroupID // without here
	lower []byte
	upper []byte
	page  *scanPage // fetched; nil before the first
	next  int       // the first record that was not merged
	more  bool      // there is more behind page
	// claim is that of every page so far, once claimed; changed when one differed.
	claim            claim
	claimed, changed bool
	ends             bool // a record that was looked at expired between the rounds
}

func (c *cursor) empty() bool { return c.page == nil || c.next == len(c.page.records) }

// key is that of the next record.
func (c *cursor) key() []byte { return c.page.key(c.next) }

const (
	// minFetchBytes is the least a group is asked for at once.
	minFetchBytes = 64 << 10
	// catchUp is how long a list waits for replicas here that lag.
	catchUp = 100 * time.Millisecond
)

// page merges the next page out of the cursors.
func (l *lister) page(ctx context.Context) (*api.ListResponse, error) {
	ctx, cancel := l.r.bounded(ctx)
	defer cancel()
	out := &api.ListResponse{}
	if l.empty() {
		l.state(out)
		return out, nil
	}
	var records, last []byte
	err := l.repeating(ctx, func(ctx context.Context) (err error) {
		records, last, err = l.merge(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.fixed = true
	l.state(out)
	out.ProtoReflect().SetUnknown(records)
	if !l.exhausted() {
		out.ContinuationToken = l.token(string(last))
	}
	if last != nil {
		l.skip(string(last)) // where a page that is repeated begins
	}
	return out, nil
}

// merge gives the records of a page and the last key.
func (l *lister) merge(ctx context.Context) (records, last []byte, err error) {
	if err := l.start(ctx); err != nil {
		return nil, nil, err
	}
	for n, size := 0, 0; n < l.limit && size < l.r.o.PageBytes; n++ {
		c, err := l.least(ctx)
		if err != nil {
			return nil, nil, err
		}
		if c == nil {
			break
		}
		rec := c.page.records[c.next]
		if size > 0 && size+rec.size() > l.r.o.PageBytes {
			break
		}
		if records == nil {
			records = make([]byte, 0, c.page.pending(c.next))
		}
		records = append(records, c.page.bytes[rec.from:rec.to]...)
		last = append(last[:0], c.key()...)
		size += rec.size()
		c.next++
	}
	return records, last, nil
}

// decodePage gives a page of ListEncoded its records.
func decodePage(encoded *api.ListResponse) (*api.ListResponse, error) {
	out := &api.ListResponse{}
	if err := proto.Unmarshal(encoded.ProtoReflect().GetUnknown(), out); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "page of a list cannot be decoded")
	}
	out.ContinuationToken, out.Revision, out.Count = encoded.ContinuationToken, encoded.Revision, encoded.Count
	out.Consistency, out.AgeMs = encoded.Consistency, encoded.AgeMs
	return out, nil
}

// start makes the cursors and fetches the first page of each, in parallel.
func (l *lister) start(ctx context.Context) error {
	if l.started {
		return nil
	}
	l.started = true
	here, others := l.readable(ctx)
	if len(others) > 0 && len(l.index) == 0 && len(l.groups) > 1 && !l.leaders {
		l.promises(ctx)
		here, others = l.readable(ctx)
	}
	if len(here) > 0 {
		l.cursors = append(l.cursors, &cursor{here: here, lower: l.lower, upper: l.upper, more: true})
	}
	for _, g := range others {
		l.cursors = append(l.cursors, &cursor{group: g, lower: l.lower, upper: l.upper, more: true})
	}
	return l.fill(ctx)
}

// readable divides the groups into those whose replica here has the snapshot
// and the others.
func (l *lister) readable(ctx context.Context) (here []host.ScanPoint, others []keyspace.GroupID) {
	if l.leaders {
		return nil, l.groups
	}
	ctx, cancel := context.WithTimeout(ctx, catchUp)
	defer cancel()
	for _, g := range l.groups {
		p := host.ScanPoint{Group: g, Index: l.index[g]}
		if l.r.o.Host.Hosts(g) && l.r.o.Host.Readable(ctx, p, l.rev) {
			here = append(here, p)
		} else {
			others = append(others, g)
		}
	}
	return here, others
}

// promises reads the clocks for a list that continues by a token: what was
// closed at its revision then is in the log up to the index of now.
func (l *lister) promises(ctx context.Context) {
	shared, _ := l.sharedClocks(ctx, nil)
	for g, c := range shared.groups {
		if c.Clock >= l.rev {
			l.index[g] = c.Index
		}
	}
}

// close gives the pages' memory back.
func (l *lister) close() {
	for _, c := range l.cursors {
		c.page.release()
		c.page = nil
	}
}

// fill fetches the next page of all cursors that have more behind an empty
// one, in parallel, and judges what they claim. Groups whose replicas here fail
// are left to others.
func (l *lister) fill(ctx context.Context) error {
	for {
		fetched, err := l.fetchAll(ctx)
		switch {
		case err != nil && retryableRead(err) && l.leaveHere():
			continue
		case err != nil || !fetched:
			return err
		}
		return l.judge()
	}
}

// leaveHere gives each group of a cursor that is read here one of its own;
// false when there is none.
func (l *lister) leaveHere() bool {
	for i, c := range l.cursors {
		if len(c.here) == 0 || !c.empty() {
			continue
		}
		l.cursors = append(l.cursors[:i], l.cursors[i+1:]...)
		for _, p := range c.here {
			l.cursors = append(l.cursors, &cursor{group: p.Group, lower: c.lower, upper: c.upper, more: true})
		}
		c.page.release()
		return true
	}
	return false
}

func (l *lister) fetchAll(ctx context.Context) (fetched bool, err error) {
	var hungry []*cursor
	for _, c := range l.cursors {
		if c.empty() && c.more {
			hungry = append(hungry, c)
		}
	}
	switch len(hungry) {
	case 0:
		return false, nil
	case 1:
		return true, l.fetch(ctx, hungry[0])
	}
	eg, ctx := errgroup.WithContext(ctx)
	for _, c := range hungry {
		eg.Go(func() error { return l.fetch(ctx, c) })
	}
	return true, eg.Wait()
}

// fetch reads the next page of a cursor. Each is asked for its share of the
// page and a bit, so that a page rarely needs a second round.
func (l *lister) fetch(ctx context.Context, c *cursor) error {
	for c.more && c.empty() {
		p, err := l.scan(ctx, c)
		if err != nil {
			return err
		}
		c.page.release()
		c.page, c.next, c.more = p, 0, p.more
		c.take(l.claimOf(p))
		c.ends = c.ends || p.ends
		if !p.more || c.changed {
			break
		}
		if l.req.Reverse {
			c.upper = p.next
		} else {
			c.lower = p.next
		}
	}
	return nil
}

// take holds a page's claim to that of the ones before.
func (c *cursor) take(claim claim) {
	c.changed = c.changed || c.claimed && c.claim != claim
	c.claim, c.claimed = claim, true
}

func (l *lister) scan(ctx context.Context, c *cursor) (*scanPage, error) {
	groups, share := len(l.groups), max(1, len(c.here))
	limit := l.limit*share/groups + l.limit*share/(4*groups) + 8
	q := l.request(c.lower, c.upper, min(limit, l.limit), max(l.r.o.PageBytes*share/groups, minFetchBytes))
	if len(c.here) > 0 {
		return l.r.scanHere(ctx, c.here, q)
	}
	return l.r.scanGroup(ctx, c.group, l.req.Namespace, q, l.leaders)
}

// least returns the cursor whose next record comes first, nil at the end.
func (l *lister) least(ctx context.Context) (*cursor, error) {
	if err := l.fill(ctx); err != nil {
		return nil, err
	}
	var first *cursor
	for _, c := range l.cursors {
		if c.empty() {
			continue
		}
		if first == nil || l.before(c.key(), first.key()) {
			first = c
		}
	}
	return first, nil
}

func (l *lister) before(a, b []byte) bool {
	if l.req.Reverse {
		return bytes.Compare(a, b) > 0
	}
	return bytes.Compare(a, b) < 0
}

// exhausted reports whether nothing can follow. A group that says "more" may
// still have none that match; the next page is then empty, without a token.
func (l *lister) exhausted() bool {
	for _, c := range l.cursors {
		if !c.empty() || c.more {
			return false
		}
	}
	return true
}
