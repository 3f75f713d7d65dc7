package router

import (
	"context"
	"errors"
	"slices"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// A part that its group refused because it does not own a key's slot was not
// executed, neither in whole nor in part: requests are evaluated all or none,
// and a part of a read is repeated as a whole. It is planned anew by a map that
// is newer than the one it was planned by, which is read first when there is
// none: a group that gave slots up knows before the map does. Its items may then
// belong to several groups and become several parts; an atomic batch and a
// transaction are then coordinated (coordinate.go).
//
// While a move's slots are between two owners, or the group's replica that was
// asked lags, the newest map still names the group that refused; the part then
// waits as for a group without a leader. Parts of a frame that are refused at
// the same time share one read of the map.

// reroute plans p anew on the frame's goroutine.
func (f *frame) reroute(p *part) {
	f.mu.Lock()
	f.misrouted = append(f.misrouted, p)
	first := len(f.misrouted) == 1
	f.mu.Unlock()
	if first {
		f.push((*frame).replan)
	}
}

const (
	// refreshWait bounds how long a frame waits for a newer map before it goes on
	// with the one it has.
	refreshWait = DefaultBackoffMax
	// refreshGap is the least time between two such looks of a node, as long as
	// slots have no owner that the map knows.
	refreshGap = 20 * time.Millisecond
)

func (f *frame) replan() {
	f.mu.Lock()
	parts := f.misrouted
	f.misrouted = nil
	f.mu.Unlock()
	m := f.r.o.Directory.Map()
	stale := func(p *part) bool { return p.epoch >= m.Epoch }
	if slices.ContainsFunc(parts, stale) {
		m = f.refreshed(parts)
	}
	var ready []*part
	for _, p := range parts {
		ready = append(ready, f.replanPart(m, p)...)
	}
	if len(ready) > 0 {
		f.dispatch(ready)
	}
}

// refreshed reads the directory again as far as the parts' time allows, unless
// that was just done.
func (f *frame) refreshed(parts []*part) *Map {
	now := f.r.o.Clock.Mono()
	if last := f.r.refreshedAt.Load(); last > 0 && now-time.Duration(last) < refreshGap {
		return f.r.o.Directory.Map()
	}
	f.r.refreshedAt.Store(int64(now))
	until := now
	for _, p := range parts {
		until = max(until, p.st.giveUp)
	}
	ctx, cancel := f.within(min(until, now+refreshWait))
	defer cancel()
	if err := f.r.o.Directory.Refresh(ctx); err != nil {
		f.r.o.Logger.Debug("the slot map is not read again", "error", err)
	}
	return f.r.o.Directory.Map()
}

// replanPart gives the items of p their groups by m and returns what goes on at
// once. What stays where it was refused waits first.
func (f *frame) replanPart(m *Map, p *part) []*part {
	refused, newer := p.group, m.Epoch > p.epoch
	parts, err := f.regroup(m, p)
	switch {
	case err != nil:
		p.fail(err)
		return nil
	case p.txn != nil, p.snapshot:
		return parts
	}
	p.st.open.Add(int32(len(parts) - 1))
	p.st.parts = append(p.st.parts, parts[1:]...)
	var ready []*part
	for _, q := range parts {
		if newer && q.group != refused {
			q.attempts, q.asked, q.waits = 0, "", 0
			ready = append(ready, q)
			continue
		}
		f.later(q, f.r.backoff(q.attempts))
	}
	return ready
}

// regroup gives p its group in m. Items of a batch are divided by their groups: p
// keeps those of the first, new parts have the others; what is indivisible becomes a
// transaction over several groups.
func (f *frame) regroup(m *Map, p *part) ([]*part, error) {
	p.epoch = m.Epoch
	switch op := p.st.call.Op; {
	case p.st.kind == kindOrder:
		p.regroupOrder(m)
	case indivisible(op):
		return []*part{p}, f.regroupTransaction(m, p)
	case !p.st.kind.batch():
		p.group = m.groupFor(p.st.ns, keyOf(op, 0), p.group)
	default:
		return p.regroupBatch(m), nil
	}
	return []*part{p}, nil
}

func (p *part) regroupBatch(m *Map) []*part {
	st := p.st
	items := make(map[keyspace.GroupID][]int)
	var order []keyspace.GroupID
	for n := range p.size() {
		i := p.item(n)
		g := m.groupFor(st.ns, keyOf(st.call.Op, i), p.group)
		if items[g] == nil {
			order = append(order, g)
		}
		items[g] = append(items[g], i)
	}
	if len(order) == 1 {
		p.group = order[0]
		return []*part{p}
	}
	parts := make([]*part, len(order))
	for n, g := range order {
		q := p
		if n > 0 {
			q = &part{st: st, epoch: p.epoch, attempts: p.attempts, last: p.last}
		}
		q.group, q.items, q.count = g, items[g], len(items[g])
		parts[n] = q
	}
	return parts
}

// groupFor is GroupOfKey; other while the map knows no groups.
func (m *Map) groupFor(ns keyspace.NamespaceID, key string, other keyspace.GroupID) keyspace.GroupID {
	if g, ok := m.GroupOfKey(ns, key); ok {
		return g
	}
	return other
}

// shortPause returns how long a refusal asks to wait that is over soon, such as
// that of slots which change their owner: the group that refused is the right
// one. A longer hint is for callers who have nowhere else to go.
func shortPause(err error) (time.Duration, bool) {
	var e *fault.Error
	if !errors.As(err, &e) || e.Code != fault.Unavailable {
		return 0, false
	}
	return e.RetryAfter, e.RetryAfter > 0 && e.RetryAfter < DefaultBackoffFirst
}

// pauseFor spreads the n-th wait in a row that a refusal asks for: from what it
// asks to four times that, so that what ends after 50 ms is seen soon after.
func (r *Router) pauseFor(ask time.Duration, n int) time.Duration {
	d := ask << min(n, 2)
	return d + time.Duration(r.o.Rand.Uint64()%uint64(d/2+1))
}

// refreshNewer reads the directory again unless it is newer than epoch already.
func (r *Router) refreshNewer(ctx context.Context, epoch uint64) (*Map, error) {
	if m := r.o.Directory.Map(); m.Epoch > epoch {
		return m, nil
	}
	err := r.o.Directory.Refresh(ctx)
	return r.o.Directory.Map(), err
}
