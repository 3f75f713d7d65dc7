package router

import (
	"context"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// cursor is the sorted stream of one group.
type cursor struct {
	group   keyspace.GroupID
	lower   []byte
	upper   []byte
	records []*api.Record // fetched, not yet merged
	more    bool          // the group has more behind records
}

// minFetchBytes is the least a group is asked for at once.
const minFetchBytes = 64 << 10

// page merges the next page out of the cursors.
func (l *lister) page(ctx context.Context) (*api.ListResponse, error) {
	ctx, cancel := l.r.bounded(ctx)
	defer cancel()
	out := &api.ListResponse{Revision: uint64(l.rev)}
	if l.empty() {
		return out, nil
	}
	if err := l.start(ctx); err != nil {
		return nil, err
	}
	size := 0
	for len(out.Records) < l.limit && size < l.r.o.PageBytes {
		c, err := l.least(ctx)
		if err != nil {
			return nil, err
		}
		if c == nil {
			return out, nil
		}
		rec := c.records[0]
		n := proto.Size(rec)
		if size > 0 && size+n > l.r.o.PageBytes {
			break
		}
		c.records[0] = nil
		c.records = c.records[1:]
		out.Records = append(out.Records, rec)
		size += n
	}
	if l.exhausted() {
		return out, nil
	}
	out.ContinuationToken = l.token(out.Records[len(out.Records)-1].Key)
	return out, nil
}

// start fetches the first page of every group, in parallel.
func (l *lister) start(ctx context.Context) error {
	if l.started {
		return nil
	}
	l.started = true
	eg, ctx := errgroup.WithContext(ctx)
	for _, g := range l.groups {
		c := &cursor{group: g, lower: l.lower, upper: l.upper, more: true}
		l.cursors = append(l.cursors, c)
		eg.Go(func() error { return l.fetch(ctx, c) })
	}
	return eg.Wait()
}

// fetch reads the next page of a cursor. Each group is asked for its share of
// the page and a bit, so that a page rarely needs a second round.
func (l *lister) fetch(ctx context.Context, c *cursor) error {
	groups := len(l.groups)
	limit := l.limit/groups + l.limit/(4*groups) + 8
	maxBytes := max(l.r.o.PageBytes/groups, minFetchBytes)
	for c.more && len(c.records) == 0 {
		p, err := l.r.scanGroup(ctx, c.group, l.req.Namespace, l.request(c.lower, c.upper, min(limit, l.limit), maxBytes))
		if err != nil {
			return err
		}
		c.records, c.more = p.records, p.more
		if !p.more {
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

// least returns the cursor whose next record comes first, nil at the end. All
// cursors that have more behind an empty buffer are filled first, in parallel.
func (l *lister) least(ctx context.Context) (*cursor, error) {
	if err := l.fill(ctx); err != nil {
		return nil, err
	}
	var first *cursor
	for _, c := range l.cursors {
		if len(c.records) == 0 {
			continue
		}
		if first == nil || l.before(c.records[0].Key, first.records[0].Key) {
			first = c
		}
	}
	return first, nil
}

func (l *lister) fill(ctx context.Context) error {
	for _, c := range l.cursors {
		if len(c.records) == 0 && c.more {
			if err := l.fetch(ctx, c); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *lister) before(a, b string) bool {
	if l.req.Reverse {
		return a > b
	}
	return a < b
}

// exhausted reports whether nothing can follow. A group that says "more" may
// still have none that match; the next page is then empty, without a token.
func (l *lister) exhausted() bool {
	for _, c := range l.cursors {
		if len(c.records) > 0 || c.more {
			return false
		}
	}
	return true
}

// count adds up the matching keys of all groups, in pages that keep each call
// short; nothing is returned but the number.
func (l *lister) count(ctx context.Context) (*api.ListResponse, error) {
	out := &api.ListResponse{Revision: uint64(l.rev)}
	if l.empty() {
		return out, nil
	}
	counts := make([]uint64, len(l.groups))
	eg, ctx := errgroup.WithContext(ctx)
	for i, g := range l.groups {
		eg.Go(func() (err error) {
			counts[i], err = l.countGroup(ctx, g)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	for _, n := range counts {
		out.Count += n
	}
	return out, nil
}

func (l *lister) countGroup(ctx context.Context, g keyspace.GroupID) (total uint64, err error) {
	lower, upper := l.lower, l.upper
	for {
		p, err := l.r.scanGroup(ctx, g, l.req.Namespace, l.request(lower, upper, MaxListLimit, l.r.o.PageBytes))
		if err != nil {
			return 0, err
		}
		total += p.count
		if !p.more {
			return total, nil
		}
		if l.req.Reverse {
			upper = p.next
		} else {
			lower = p.next
		}
	}
}
