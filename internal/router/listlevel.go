package router

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// choose finds the revision of the list.
func (l *lister) choose(ctx context.Context) (err error) {
	ctx, cancel := l.r.bounded(ctx)
	defer cancel()
	l.level, l.age = l.req.Consistency, 0
	switch l.level {
	case api.Consistency_CONSISTENCY_LINEARIZABLE:
		return l.rest(ctx)
	case api.Consistency_CONSISTENCY_BOUNDED_STALENESS:
		if l.stale() {
			return nil
		}
	case api.Consistency_CONSISTENCY_SNAPSHOT:
	}
	l.level = api.Consistency_CONSISTENCY_SNAPSHOT
	l.rev, err = l.snapshot(ctx)
	return err
}

// state tells in an answer what was chosen.
func (l *lister) state(out *api.ListResponse) {
	out.Revision, out.Consistency = uint64(l.rev), l.level
	out.AgeMs = int64((l.age + time.Millisecond - 1) / time.Millisecond)
}

// spans are the disk keys of the range.
func (l *lister) spans() replica.Spans {
	prefix := keyspace.AppendDataPrefix(nil, l.ns, nil)
	span := replica.Span{Lower: prefix, Upper: keyspace.PrefixEnd(prefix)}
	if len(l.lower) > 0 {
		span.Lower = keyspace.AppendDataKey(nil, l.ns, l.lower)
	}
	if len(l.upper) > 0 {
		span.Upper = keyspace.AppendDataKey(nil, l.ns, l.upper)
	}
	return replica.Spans{span}
}

// rest finds a moment at which nothing of the range changes. Lists that wait at
// the same time share their first tries.
func (l *lister) rest(ctx context.Context) error {
	set := &keySet{ranges: l.spans()}
	sets := make(map[keyspace.GroupID]*keySet, len(l.groups))
	for _, g := range l.groups {
		sets[g] = set
	}
	if l.moment == nil {
		l.moment = newMoment(l.r, sets)
	} else {
		l.moment.read(sets)
	}
	m := l.moment
	err := m.find(ctx, func(ctx context.Context) (rest, ok bool) { return l.restShared(ctx, m) })
	if err != nil {
		return err
	}
	l.rev = m.rev
	if m.loose {
		l.level = api.Consistency_CONSISTENCY_SNAPSHOT
	}
	for _, g := range l.groups {
		l.index[g] = m.readings[g].Index
	}
	return nil
}

// restShared is a try by the reading that lists share; ok is false when that
// lacks a group.
func (l *lister) restShared(ctx context.Context, m *moment) (rest, ok bool) {
	once, cancel := context.WithTimeout(ctx, l.r.o.ReadAttempt)
	defer cancel()
	m.seen = l.r.o.Clock.Mono()
	shared, number := l.r.clocks.read(once, m.sets[m.order[0]].ranges, true)
	m.rev = shared.rev
	first, second := make(map[keyspace.GroupID]clockReading, len(m.order)), make(map[keyspace.GroupID]clockReading, len(m.order))
	for _, g := range m.order {
		a, known := shared.first[g]
		b, again := shared.groups[g]
		if !known || !again {
			return false, false
		}
		if a.unsettles(number) {
			l.r.pause(ctx, l.r.backoff(m.tries))
			return false, true
		}
		if b.Unsettled = nil; shared.groups[g].unsettles(number) {
			b.Unsettled = []int{0}
		}
		first[g], second[g] = a, b
	}
	return m.take(first, second), true
}

// unsettles reports whether a set is among the unsettled ones.
func (c clockReading) unsettles(number int) bool {
	for _, n := range c.Unsettled {
		if n == number {
			return true
		}
	}
	return false
}

// stale takes what is closed here, if that is as new as was asked for.
func (l *lister) stale() bool {
	rev := keyspace.MaxRevision
	for _, g := range l.groups {
		p, err := l.r.o.Host.StaleRead(g, ageOf(l.req.MaxStalenessMs))
		if err != nil {
			return false
		}
		rev, l.age = min(rev, p.Rev), max(l.age, p.Age)
	}
	l.rev = rev
	clear(l.index)
	return true
}

// snapshot runs the two rounds of clocks, until no transaction is prepared on the
// range that may have been acknowledged. For many groups they are those that
// lists share; only what these lack is asked here.
func (l *lister) snapshot(ctx context.Context) (latest keyspace.Revision, err error) {
	spans := l.spans()
	for n := 1; ; n++ {
		latest, locked, err := l.snapshotOnce(ctx, spans)
		if err != nil || !locked {
			return latest, err
		}
		if !l.r.pause(ctx, l.r.backoff(min(n, maxLockWaits))) {
			return 0, fault.New(fault.DeadlineExceeded, "transactions on the range were not finished before the deadline", "attempts", n)
		}
	}
}

func (l *lister) snapshotOnce(ctx context.Context, spans replica.Spans) (latest keyspace.Revision, locked bool, err error) {
	clocks := make([]clockReading, len(l.groups))
	if len(l.groups) > 1 {
		shared, number := l.sharedClocks(ctx, spans)
		latest = shared.rev
		for i, g := range l.groups {
			clocks[i] = shared.groups[g]
			locked = locked || shared.first[g].unsettles(number)
		}
	}
	asked, err := l.clockRound(ctx, spans, clocks, 1)
	if err != nil || locked {
		return 0, locked, err
	}
	for _, i := range asked {
		latest = max(latest, clocks[i].Clock)
		locked = locked || len(clocks[i].Unsettled) > 0
	}
	if _, err := l.clockRound(ctx, nil, clocks, latest); err != nil {
		return 0, false, err
	}
	for i, g := range l.groups {
		l.index[g] = clocks[i].Index
	}
	return latest, locked, nil
}

// clockRound reads the clocks that are below atLeast, those not known at any
// value; it returns which.
func (l *lister) clockRound(ctx context.Context, spans replica.Spans, clocks []clockReading, atLeast keyspace.Revision) (asked []int, err error) {
	eg, ctx := errgroup.WithContext(ctx)
	for i, g := range l.groups {
		if clocks[i].Clock >= atLeast {
			continue
		}
		asked = append(asked, i)
		ask := clockAsk{ClockAsk: host.ClockAsk{Group: g, AtLeast: atLeast}}
		if clocks[i].Clock == 0 {
			ask.AtLeast = 0
		}
		if spans != nil {
			ask.Sets = []replica.Spans{spans}
		}
		eg.Go(func() (err error) {
			clocks[i], err = l.r.groupClock(ctx, ask)
			return err
		})
	}
	return asked, eg.Wait()
}

// sharedClocks waits for the shared reading no longer than for one attempt.
func (l *lister) sharedClocks(ctx context.Context, spans replica.Spans) (*reading, int) {
	ctx, cancel := context.WithTimeout(ctx, l.r.o.ReadAttempt)
	defer cancel()
	return l.r.clocks.read(ctx, spans, false)
}
