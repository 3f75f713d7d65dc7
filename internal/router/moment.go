package router

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// moment looks for a moment at which what is read of several groups was as it is
// at one revision (DESIGN 8).
//
// Reading all groups at the maximum T of their clocks is not enough: while the
// clocks are read, a group that is ahead may acknowledge a write above T, and
// another one, whose clock is read later, may then acknowledge one below it. Who
// reads at T sees the second write and not the first.
//
// So each group is asked twice. In the first round it confirms its leadership,
// waits until all that it stamped is applied, and answers its clock; T is the
// maximum. In the second round it moves its clock past T and says whether any key
// that is read was stamped or prepared since its first answer, at whatever
// revision, or expired. If none was in any group, each of them stood still from
// its first answer to its second, so all did from the last of the first answers
// to the first of the second ones, and the state of that time is that at T.
// A change of the leader, or of what a group owns, counts as a change. Otherwise
// it begins again; from the third time on the groups hold the keys between the
// rounds, and are asked to read one clock that lies a bit ahead, so that, where their
// clocks are not far apart, they all stand at T itself and nothing expires on the way.
//
// Keys of one group are at rest when its log is: one round is enough, if no
// transaction is prepared on them that may be committed at a later revision than
// its clock.
type moment struct {
	r     *Router
	sets  map[keyspace.GroupID]*keySet
	order []keyspace.GroupID
	tries int
	// waits counts the tries that ended at locks. held: the last one did so although
	// it held the keys; the next one does not, so that what holds locks for long
	// does not hold up writes all the time.
	waits int
	held  bool
	// rev is that of the last try, seen on the monotonic clock then; readings are the
	// last ones by group.
	rev      keyspace.Revision
	seen     time.Duration
	readings map[keyspace.GroupID]clockReading
	// Records that expire after the one and not after the other, Unix
	// milliseconds, did between the rounds.
	endsAfter, endsBy int64
	// loose: a leader of an older version does not tell what changed.
	loose bool
	moved bool // a key that is read was not the group's
}

const (
	// holdFrom is the try from which on keys are held, maxTries how many there are.
	holdFrom, maxTries = 3, 12
	// holdAhead is how far ahead the clock is that groups which hold keys read; it
	// doubles with each try, maxAheads times.
	holdAhead = 8 * time.Millisecond
	maxAheads = 4
	// holdFor bounds the wait for transactions of keys that are held.
	holdFor = 40 * time.Millisecond
	// maxLockWaits is the number of the wait for locks from which on waits grow no
	// longer.
	maxLockWaits = 4
)

// keySet is what is read of a group: ranges, or keys whose records are wanted.
type keySet struct {
	ranges   replica.Spans
	keys     [][]byte // disk keys without instance, in order, each once
	keysOnly []bool   // parallel to keys
}

// spans are the ranges of disk keys, in order and apart.
func (s *keySet) spans() replica.Spans {
	if len(s.keys) == 0 {
		return s.ranges
	}
	spans := make(replica.Spans, len(s.keys))
	for i, key := range s.keys {
		spans[i] = replica.Span{Lower: key, Upper: append(slices.Clone(key), 0)}
	}
	return spans
}

func newMoment(r *Router, sets map[keyspace.GroupID]*keySet) *moment {
	m := &moment{r: r}
	m.read(sets)
	return m
}

// read changes what is read of which groups.
func (m *moment) read(sets map[keyspace.GroupID]*keySet) {
	m.sets, m.order = sets, m.order[:0]
	for g := range sets {
		m.order = append(m.order, g)
	}
	slices.Sort(m.order)
}

// find tries until the keys were at rest. first, unless nil, replaces the rounds
// of a try that holds nothing: it answers false for ok when it cannot tell.
func (m *moment) find(ctx context.Context, first func(ctx context.Context) (rest, ok bool)) error {
	for {
		if m.tries == maxTries {
			return fault.New(fault.Unavailable, "what is read of several groups was written again and again between the two looks at them",
				"limit", maxTries, "actual", m.tries).WithRetry(DefaultBackoffMax)
		}
		m.tries++
		if m.tries > holdFrom && !m.r.pause(ctx, m.r.backoff(m.tries-holdFrom)) {
			return fault.Wrap(fault.DeadlineExceeded, context.DeadlineExceeded, "what is read of several groups was never at rest before the deadline",
				"attempts", m.tries)
		}
		if first != nil && m.tries < holdFrom && len(m.order) > 1 {
			if rest, ok := first(ctx); ok {
				if rest {
					return nil
				}
				continue
			}
		}
		switch rest, err := m.try(ctx); {
		case rest || err != nil:
			return err
		case m.moved:
			return errUncovered
		}
	}
}

// try runs both rounds.
func (m *moment) try(ctx context.Context) (rest bool, err error) {
	var hold uint64
	var ahead keyspace.Revision
	if m.tries >= holdFrom && !m.held {
		hold = m.r.o.Rand.Uint64() | 1
		ahead = m.ahead()
	}
	first, err := m.firstRound(ctx, ahead, hold)
	if err != nil {
		return false, err
	}
	m.rev, m.seen = 0, m.r.o.Clock.Mono()
	locked := false
	for _, c := range first {
		m.rev = max(m.rev, c.Clock)
		locked = locked || len(c.Unsettled) > 0
	}
	m.held = locked && hold != 0
	if locked {
		return false, m.wait(ctx)
	}
	if len(first) == 1 && hold == 0 && len(m.sets[m.order[0]].keys) == 0 {
		m.take(first, first)
		m.endsAfter, m.endsBy = 0, 0
		return true, nil
	}
	second, err := m.round(ctx, func(g keyspace.GroupID) host.ClockAsk {
		c := first[g]
		ask := host.ClockAsk{AtLeast: m.rev, Since: c.Since()}
		if c.Term != 0 { // else nobody there knows of holds, and it would be taken for a first reading
			ask.Hold = hold
		}
		return ask
	}, true)
	if err != nil {
		return false, err
	}
	return m.take(first, second), nil
}

// ahead is the clock that groups which hold keys are to read: a bit beyond where they
// may be by now, reckoned from physical time. Reckoned from their clocks instead,
// which those who read before have moved ahead, they would gain on physical time with
// every read, and records expire early.
func (m *moment) ahead() keyspace.Revision {
	if m.rev == 0 {
		return 0 // nobody answered yet
	}
	by := holdAhead << min(m.tries-holdFrom, maxAheads)
	now := m.rev.UnixMilli() + (m.r.o.Clock.Mono() - m.seen).Milliseconds()
	now = min(now, m.r.o.Clock.Wall())
	return max(m.rev, keyspace.RevisionAt(now+by.Milliseconds()))
}

// wait pauses after a try that ended at the locks of transactions. It does not count
// among those that are too many: locks go, if need be since leaders that are asked
// for clocks have somebody finish their transactions.
func (m *moment) wait(ctx context.Context) error {
	m.waits++
	m.tries = min(m.tries, holdFrom-1)
	if !m.r.pause(ctx, m.r.backoff(min(m.waits, maxLockWaits))) {
		return fault.Wrap(fault.DeadlineExceeded, context.DeadlineExceeded, "transactions on what is read were not finished before the deadline",
			"attempts", m.waits)
	}
	return nil
}

// firstRound reads the clocks. Where keys are held, it waits a while for the
// transactions that are prepared on them: no others can come.
func (m *moment) firstRound(ctx context.Context, ahead keyspace.Revision, hold uint64) (map[keyspace.GroupID]clockReading, error) {
	until := m.r.o.Clock.Mono() + holdFor
	for n := 1; ; n++ {
		first, err := m.round(ctx, func(keyspace.GroupID) host.ClockAsk {
			return host.ClockAsk{AtLeast: ahead, Hold: hold}
		}, false)
		if err != nil || hold == 0 || m.r.o.Clock.Mono() > until || !anyUnsettled(first) || !m.r.pause(ctx, m.r.backoff(1)) {
			return first, err
		}
	}
}

func anyUnsettled(round map[keyspace.GroupID]clockReading) bool {
	for _, c := range round {
		if len(c.Unsettled) > 0 {
			return true
		}
	}
	return false
}

// round asks all groups at once.
func (m *moment) round(ctx context.Context, ask func(keyspace.GroupID) host.ClockAsk, read bool) (map[keyspace.GroupID]clockReading, error) {
	answers := make([]clockReading, len(m.order))
	eg, ctx := errgroup.WithContext(ctx)
	for i, g := range m.order {
		a := clockAsk{ClockAsk: ask(g)}
		a.Group, a.Sets = g, []replica.Spans{m.sets[g].spans()}
		if read && len(m.sets[g].keys) > 0 {
			a.read = m.sets[g]
		}
		eg.Go(func() (err error) {
			answers[i], err = m.r.groupClock(ctx, a)
			return err
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	out := make(map[keyspace.GroupID]clockReading, len(answers))
	for i, g := range m.order {
		out[g] = answers[i]
	}
	return out, nil
}

// take judges both rounds.
func (m *moment) take(first, second map[keyspace.GroupID]clockReading) (rest bool) {
	m.readings, rest = second, true
	m.endsAfter, m.endsBy, m.loose, m.moved = keyspace.MaxRevision.UnixMilli(), 0, false, false
	for _, g := range m.order {
		a, b := first[g], second[g]
		m.endsAfter, m.endsBy = min(m.endsAfter, a.Clock.UnixMilli()), max(m.endsBy, b.Clock.UnixMilli())
		m.moved = m.moved || b.moved
		m.loose = m.loose || b.Term == 0
		rest = rest && len(b.Unsettled) == 0 && !b.moved
	}
	return rest
}

// records are those of the keys of a group, after find.
func (m *moment) records(g keyspace.GroupID) []*api.Record { return m.readings[g].found }
