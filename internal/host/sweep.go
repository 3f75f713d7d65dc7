package host

import (
	"bytes"
	"context"
	"math"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// sweeping is what a leader knows of its group's index of deadlines, and how far it
// has come in deleting what is due (docs/ttl.md).
//
// A pass goes through the index from the earliest deadline to the group's closed
// revision: nothing is written at or below that any more, so that what a pass has
// left behind stays empty, but for what comes with slots or from a transaction, which
// is noted as it is applied and takes the pass back. A round of a pass reads some keys
// beside the loop, and proposes the deletion of their records, which the core judges
// in log order: a record that was written anew meanwhile is not deleted. A pass
// ends with the earliest deadline that is not due, and until then, or until an earlier
// one is applied, nothing is looked at: an idle group costs nothing.
//
// What may not be deleted now (records of slots that move or are not the group's,
// locked keys, leases) is passed over, and looked at again after a while.
//
// A tick of a group begins one round, which may be followed by a few more while
// little waits for the group; while much waits there is none. So a backlog is
// worked off at some thousands of keys per second and group, and an entry of a
// sweep never holds up the others for more than about a millisecond.
type sweeping struct {
	term    keyspace.Term
	running bool
	// due is the earliest deadline that is still to be looked at, or an earlier time;
	// noted are those that were applied since the round under way began.
	due, noted int64
	// from is where the pass goes on; nil is the start of the index.
	from []byte
	// again is when what was passed over is looked at, 0 when nothing was; held is
	// how much.
	again time.Duration
	held  int
	slots *format.SlotState

	backlog int
	countAt time.Duration
	swept   uint64

	walk indexing
}

const (
	// sweepKeys bounds a round, and its entry.
	sweepKeys = 256
	// sweepRounds bounds the rounds of a group in one tick.
	sweepRounds = 4
	// sweepQueue is how many operations may wait for a group while it sweeps.
	sweepQueue = 256
	// maxSweeps bounds the rounds under way on a node.
	maxSweeps = 4
	// maxDueVisit bounds what a round looks at, and what is counted of a backlog.
	maxDueVisit = 10_000
	// countEvery is how often a backlog is counted.
	countEvery = time.Second
	// heldAgain and leaseAgain are when what was passed over is looked at again.
	heldAgain  = 10 * time.Second
	leaseAgain = time.Second
)

// sweepRound is one round on its way.
type sweepRound struct {
	g     *group
	term  keyspace.Term
	round int
	from  []byte
	upto  int64
	count bool
	found dueKeys
}

// tickSweeps begins what is due of sweeping the groups that are led here, with another
// of them first at each tick: all have their turn.
func (h *Host) tickSweeps(mono time.Duration) {
	if h.unfit.Load() || len(h.order) == 0 {
		return
	}
	first := int(h.ticks % uint64(len(h.order)))
	for _, groups := range [2][]*group{h.order[first:], h.order[:first]} {
		for _, g := range groups {
			if _, leading := g.core.Leading(); leading {
				h.tickSweep(g, mono)
			}
		}
	}
}

// tickSweep begins what is due of a group that is led here.
func (h *Host) tickSweep(g *group, mono time.Duration) {
	s := &g.sweep
	if term, _ := g.core.Leading(); s.term != term {
		*s = sweeping{term: term, noted: math.MaxInt64, running: s.running, swept: s.swept}
	}
	s.note(g.core.TakeDeadline())
	if s.running {
		return
	}
	s.lookAgain(g.core.State().Slots, mono)
	due := s.due <= g.core.Closed().UnixMilli()
	if now := h.now(g).Physical; !due && s.due <= now {
		g.core.RaiseCeiling(keyspace.RevisionAt(now)) // of a quiet group, by an entry
	}
	switch {
	case !due && !s.walk.wanted(mono), !h.maySweepNow(g):
	case due:
		h.startRound(g, 0)
	default:
		h.startWalk(g)
	}
}

// note takes the earliest deadline of what was applied.
func (s *sweeping) note(deadline int64) {
	if deadline == math.MaxInt64 {
		return
	}
	s.due, s.noted = min(s.due, deadline), min(s.noted, deadline)
	s.from = earlier(s.from, deadline)
}

// earlier is the position that comes first, a place in the index or a deadline; nil
// comes before all.
func earlier(from []byte, deadline int64) []byte {
	if at := keyspace.AppendTTLPrefix(nil, deadline); from != nil && bytes.Compare(at, from) < 0 {
		return at
	}
	return from
}

// lookAgain begins a pass anew when what was passed over may be free by now.
func (s *sweeping) lookAgain(slots *format.SlotState, mono time.Duration) {
	changed := s.slots != slots && s.again != 0 && sweepable(s.slots) != sweepable(slots)
	s.slots = slots
	if !changed && (s.again == 0 || mono < s.again) {
		return
	}
	s.due, s.from, s.again, s.held = 0, nil, 0, 0
}

// sweepable are the slots whose expired records the group deletes.
func sweepable(s *format.SlotState) (slots format.SlotSet) {
	if s == nil {
		return slots
	}
	slots = s.Owned
	if s.Out != nil && s.Out.Nonce != 0 {
		slots = slots.Without(&s.Out.Slots)
	}
	return slots
}

// maySweepNow reports whether there is room beside the clients' operations.
func (h *Host) maySweepNow(g *group) bool {
	return h.sweeps < maxSweeps && !g.transferring && g.core.Serving(h.now(g)) && g.core.Waiting() <= sweepQueue &&
		!h.opt.Store.Full() && !h.hanging.Load() && h.roomToPropose()
}

func (h *Host) startRound(g *group, round int) {
	s, mono := &g.sweep, h.opt.Clock.Mono()
	r := &sweepRound{g: g, term: s.term, round: round, from: s.from, upto: g.core.Closed().UnixMilli(), count: mono >= s.countAt}
	if r.count {
		s.countAt = mono + countEvery
	}
	h.beginSweep(s)
	h.opt.Go(func(ctx context.Context) {
		var err error
		if r.found, err = h.findDue(ctx, g, r.from, r.upto, r.count); err != nil {
			h.control(func() { h.endRound(r, nil, err) })
			return
		}
		h.submitSweep(ctx, g, &replica.SweepOp{Keys: r.found.keys}, func(op *replica.SweepOp, err error) { h.endRound(r, op, err) })
	})
}

func (h *Host) beginSweep(s *sweeping) {
	s.running, s.noted = true, math.MaxInt64
	h.sweeps++
}

// submitSweep proposes a sweep, unless it is empty; done is called on the loop.
func (h *Host) submitSweep(ctx context.Context, g *group, op *replica.SweepOp, done func(*replica.SweepOp, error)) {
	if len(op.Keys) == 0 && !op.Whole {
		h.control(func() { done(op, nil) })
		return
	}
	h.Submit(ctx, &replica.Request{Group: g.id, Sweep: op, Deadline: h.opt.Clock.Mono() + 2*h.opt.electionTimeout(),
		Done: func(r *replica.Request) { h.control(func() { done(op, r.Err) }) }})
}

// endRound takes what became of a round, on the loop.
func (h *Host) endRound(r *sweepRound, op *replica.SweepOp, err error) {
	s := &r.g.sweep
	s.running = false
	h.sweeps--
	if err != nil {
		h.opt.Logger.Debug("a sweep of expired keys did not end", "group", r.g.id, "error", err)
	} else {
		s.swept += uint64(op.Result.Swept)
		h.tellDetached(op)
	}
	if h.groups[r.g.id] != r.g || s.term != r.term || err != nil {
		return // due is as it was: the next tick goes on
	}
	f := &r.found
	if n := op.Result.Judged; n < len(f.keys) {
		f.next, f.due = keyspace.AppendTTLKey(nil, f.keys[n].Expires, f.keys[n].Key), 0
	}
	s.due, s.from = min(f.due, s.noted), earlier(f.next, s.noted)
	s.hold(f.held+op.Result.Held, len(f.leases), h.opt.Clock.Mono())
	s.count(f, r.count, op.Result.Swept, r.upto)
	if expired := h.opt.Hooks.LeaseExpired; expired != nil {
		for _, key := range f.leases {
			expired(r.g.id, key)
		}
	}
	if s.due <= r.upto && r.round+1 < sweepRounds && h.maySweepNow(r.g) {
		h.startRound(r.g, r.round+1)
	}
}

// tellDetached tells of what was attached to leases and is gone.
func (h *Host) tellDetached(op *replica.SweepOp) {
	for _, d := range op.Result.Detached {
		ns, key, err := keyspace.DecodeDataKey(d.Key)
		if hear := h.opt.Hooks.Detached; hear != nil && err == nil {
			hear(ns, string(key), d.Lease)
		}
	}
}

// hold notes what was passed over.
func (s *sweeping) hold(keys, leases int, mono time.Duration) {
	s.held += keys + leases
	after := heldAgain
	switch {
	case leases > 0:
		after = leaseAgain
	case keys == 0:
		return
	}
	if at := mono + after; s.again == 0 || at < s.again {
		s.again = at
	}
}

// count keeps the backlog: counted now and then, and between that by what was done.
func (s *sweeping) count(f *dueKeys, counted bool, swept int, upto int64) {
	switch {
	case s.due > upto:
		s.backlog = s.held
	case counted:
		s.backlog = s.held + f.visited - swept
	default:
		s.backlog = max(0, s.backlog-swept)
	}
}
