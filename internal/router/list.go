package router

import (
	"bytes"
	"context"
	"sort"
	"time"

	"github.com/zeebo/xxh3"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// lister reads one snapshot of a namespace. Its revision T is chosen once, by the
// level that is asked for:
//
//   - linearizable: the state at T is that of a moment between the call and its
//     return (moment). What expires is judged for what the first page looks at;
//     records behind it are those at T.
//   - snapshot: T is the maximum of all groups' clocks, and every group's clock is
//     moved to T before it is read, so that nothing is written at or below T
//     afterwards (DESIGN 8). It includes all that was acknowledged before the list
//     began, and does not order the writes that run beside it.
//   - bounded staleness: T is what is closed in all groups on this node, if that is
//     not too old; otherwise it is a snapshot.
//   - a revision or a time of the past is T itself.
//
// A leader's answer about its clock names the log index that holds everything
// up to T, so a replica here that has applied that index is as good as the
// leader: all groups hosted here are one cursor, merged where they lie. Other
// groups, and those whose replica here lags or is damaged, have a cursor each,
// which asks whoever can serve it.
type lister struct {
	r      *Router
	req    *api.ListRequest
	ns     keyspace.NamespaceID
	m      *Map // what groups are by
	groups []keyspace.GroupID
	slot   int // the only one that keys can be in, -1 for all
	rev    keyspace.Revision
	// level is that at which rev was chosen, age bounds how old it was then.
	level api.Consistency
	age   time.Duration
	// moment looks for a linearizable rev; nil for other levels.
	moment *moment
	// fixed: the revision is a token's, or a page of it was given.
	fixed bool
	// leaders: only leaders are asked, since others may lag.
	leaders bool
	index   map[keyspace.GroupID]keyspace.Index // host.ScanPoint.Index at rev
	lower   []byte                              // inclusive
	upper   []byte                              // exclusive, nil to the end
	limit   int
	filter  uint64
	cursors []*cursor
	started bool
}

// List returns one page.
func (r *Router) List(ctx context.Context, req *api.ListRequest) (*api.ListResponse, error) {
	page, err := r.ListEncoded(ctx, req)
	if err != nil {
		return nil, err
	}
	return decodePage(page)
}

// ListEncoded is List for who sends the page on: its records are in the
// message's unknown fields, as they go over the wire.
func (r *Router) ListEncoded(ctx context.Context, req *api.ListRequest) (*api.ListResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	l, err := r.newLister(ctx, req)
	if err != nil {
		return nil, err
	}
	defer l.close()
	if req.CountOnly {
		return l.count(ctx)
	}
	return l.page(ctx)
}

// ListStream calls yield with each page of one snapshot, in order, until the
// end or an error; each page has its own deadline, the whole has ctx's. A page
// is not kept after yield returns.
func (r *Router) ListStream(ctx context.Context, req *api.ListRequest, yield func(*api.ListResponse) error) error {
	return r.ListStreamEncoded(ctx, req, func(encoded *api.ListResponse) error {
		page, err := decodePage(encoded)
		if err != nil {
			return err
		}
		return yield(page)
	})
}

// ListStreamEncoded is ListStream with pages as those of ListEncoded.
func (r *Router) ListStreamEncoded(ctx context.Context, req *api.ListRequest, yield func(*api.ListResponse) error) error {
	l, err := r.newLister(ctx, req)
	if err != nil {
		return err
	}
	defer l.close()
	for {
		step := l.page
		if req.CountOnly {
			step = l.count
		}
		page, err := step(ctx)
		if err != nil {
			return err
		}
		if err := yield(page); err != nil {
			return err
		}
		if page.ContinuationToken == "" {
			return nil
		}
	}
}

func (r *Router) newLister(ctx context.Context, req *api.ListRequest) (*lister, error) {
	if err := validateList(req); err != nil {
		return nil, err
	}
	ns, m, err := r.resolveNow(ctx, req.Namespace)
	if err != nil {
		return nil, err
	}
	l := &lister{r: r, req: req, ns: ns, m: m, limit: int(req.Limit), filter: filterHash(req), index: make(map[keyspace.GroupID]keyspace.Index)}
	defaultTo(&l.limit, DefaultListLimit)
	var ok bool
	if l.groups, l.slot, ok = m.groupsOfPrefix(ns, req.Prefix); !ok {
		return nil, fault.New(fault.Unavailable, "the cluster's layout is not known yet")
	}
	l.bounds()
	if req.ContinuationToken != "" {
		return l, l.resume(req.ContinuationToken)
	}
	if at := r.moment(req.AtRevision, req.AtTimeMs); at != 0 {
		return l, l.past(ctx, at)
	}
	return l, l.choose(ctx)
}

func validateList(req *api.ListRequest) error {
	if req.Limit > MaxListLimit {
		return fault.New(fault.InvalidArgument, "limit is too large", "limit", MaxListLimit, "actual", req.Limit)
	}
	for _, f := range []struct{ name, value string }{{"prefix", req.Prefix}, {"start", req.Start}, {"end", req.End}} {
		if len(f.value) > keyspace.MaxKeyBytes {
			return fault.New(fault.KeyTooLarge, f.name+" is longer than any key",
				"limit_bytes", keyspace.MaxKeyBytes, "actual_bytes", len(f.value))
		}
	}
	level := req.Consistency
	if level == api.Consistency_CONSISTENCY_SNAPSHOT {
		level = api.Consistency_CONSISTENCY_LINEARIZABLE
	}
	return validateRead(req.AtRevision, req.AtTimeMs, level, req.MaxStalenessMs)
}

// resolveNow returns a namespace's id, reading the directory again on a miss.
func (r *Router) resolveNow(ctx context.Context, name string) (keyspace.NamespaceID, *Map, error) {
	for again := false; ; again = true {
		m := r.o.Directory.Map()
		ns, found, err := r.resolve(m, name, Identity(ctx), false)
		if err != nil || found && (m.Groups > 0 || ns == keyspace.SystemNamespace) {
			return ns, m, err
		}
		if again {
			return 0, nil, r.missing(name)
		}
		if err := r.o.Directory.Refresh(ctx); err != nil {
			return 0, nil, err
		}
	}
}

// bounds computes the key range of the request.
func (l *lister) bounds() {
	l.lower, l.upper = []byte(l.req.Start), keyspace.PrefixEnd([]byte(l.req.Prefix))
	if l.req.Prefix > l.req.Start {
		l.lower = []byte(l.req.Prefix)
	}
	if end := []byte(l.req.End); len(end) > 0 && (l.upper == nil || bytes.Compare(end, l.upper) < 0) {
		l.upper = end
	}
}

// resume continues behind a token.
func (l *lister) resume(token string) error {
	t, err := format.ParseListToken(token)
	if err != nil {
		return err
	}
	if t.Namespace != l.ns || t.Filter != l.filter || t.Reverse != l.req.Reverse {
		return fault.New(fault.InvalidToken, "continuation token belongs to another list; repeat the list's own arguments")
	}
	l.rev, l.fixed, l.level = t.Revision, true, api.Consistency(t.Level)
	l.skip(t.LastKey)
	return nil
}

// skip narrows the range to what lies behind key.
func (l *lister) skip(key string) {
	if l.req.Reverse {
		l.upper = []byte(key)
		return
	}
	l.lower = append([]byte(key), 0)
}

// empty reports whether no key can lie in the range.
func (l *lister) empty() bool { return l.upper != nil && bytes.Compare(l.lower, l.upper) >= 0 }

func (l *lister) token(lastKey string) string {
	t := format.ListToken{Namespace: l.ns, Revision: l.rev, Filter: l.filter, Reverse: l.req.Reverse, Level: uint8(l.level), LastKey: lastKey}
	if l.moment != nil {
		t.Level = uint8(l.req.Consistency) // nodes of the version that is loose refuse others
	}
	return format.EncodeListToken(t)
}

// request returns the scan of one group's next page.
func (l *lister) request(start, end []byte, limit, maxBytes int) host.ScanRequest {
	q := host.ScanRequest{
		Namespace: l.ns, Revision: l.rev, Start: start, End: end, Reverse: l.req.Reverse,
		KeysOnly: l.req.KeysOnly, CountOnly: l.req.CountOnly, Limit: limit, MaxBytes: maxBytes, Tags: l.req.Tags,
	}
	if m := l.moment; m != nil && !l.fixed {
		q.EndsAfter, q.EndsBy = m.endsAfter, m.endsBy
	}
	return q
}

// filterHash binds a token to the keys a list has; the page size may change
// between pages, and so may what is returned of each record.
func filterHash(req *api.ListRequest) uint64 {
	b := make([]byte, 0, 256)
	add := func(s string) {
		b = append(b, byte(len(s)>>24), byte(len(s)>>16), byte(len(s)>>8), byte(len(s)))
		b = append(b, s...)
	}
	add(req.Prefix)
	add(req.Start)
	add(req.End)
	names := make([]string, 0, len(req.Tags))
	for n := range req.Tags {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		add(n)
		add(req.Tags[n])
	}
	return xxh3.Hash(b)
}
