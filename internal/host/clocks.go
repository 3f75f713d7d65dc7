package host

import (
	"context"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// ClockAsk asks for a group's clock; see replica.ClockOp.
type ClockAsk struct {
	Group   keyspace.GroupID
	AtLeast keyspace.Revision
	Sets    []replica.Spans
	Since   replica.Reading
	Hold    uint64
}

// ClockReading is a leader's answer about a group's clock.
type ClockReading struct {
	Group keyspace.GroupID
	// Clock: nothing is ever written at or below it afterwards, but what is
	// prepared already.
	Clock keyspace.Revision
	// Index: the log up to it holds everything that was stamped at or below
	// Clock. Whoever has applied it has the group's state at Clock, leader or
	// not.
	Index keyspace.Index
	// Settled is what of Clock holds for what is prepared too: it may be committed
	// below Clock, but nothing is ever written at or below Settled.
	Settled keyspace.Revision
	// Term and Unsettled are those of replica.ClockOp.
	Term      keyspace.Term
	Unsettled []int
	// Slots is what the group owned at Index; nil owns all.
	Slots *format.SlotState
	Err   error
}

// Since is the reading for a second one.
func (r *ClockReading) Since() replica.Reading {
	return replica.Reading{Term: r.Term, Clock: r.Clock}
}

// Clocks reads the clocks of groups that this node leads, moved to at least
// atLeast. The answers are parallel to ids; groups fail one by one.
func (h *Host) Clocks(ctx context.Context, ids []keyspace.GroupID, atLeast keyspace.Revision) []ClockReading {
	asks := make([]ClockAsk, len(ids))
	for i, id := range ids {
		asks[i] = ClockAsk{Group: id, AtLeast: atLeast}
	}
	return h.AskClocks(ctx, asks)
}

// AskClocks reads the clocks of groups that this node leads, in one pass of the
// loop: it confirms each leadership, waits until all that was stamped is
// applied, and moves the clock. The answers are parallel to asks; groups fail one
// by one.
func (h *Host) AskClocks(ctx context.Context, asks []ClockAsk) []ClockReading {
	out := make([]ClockReading, len(asks))
	answered := make(chan clockAnswer, len(asks))
	requests := make([]*replica.Request, 0, len(asks))
	for i := range asks {
		ask := &asks[i]
		out[i].Group = ask.Group
		if out[i].Err = h.mayAsk(ask); out[i].Err != nil {
			continue
		}
		requests = append(requests, h.clockRequest(ctx, ask, func(r ClockReading) { answered <- clockAnswer{i, r} }))
	}
	h.SubmitAll(ctx, requests)
	for range requests {
		select {
		case a := <-answered:
			out[a.position] = a.reading
		case <-ctx.Done():
			return failUnconfirmed(ctx, out)
		}
	}
	return out
}

// AskClockAsync reads the clock of a group that this node leads; done is called on
// the loop, or at once.
func (h *Host) AskClockAsync(ctx context.Context, ask ClockAsk, done func(ClockReading)) {
	if err := h.mayAsk(&ask); err != nil {
		done(ClockReading{Group: ask.Group, Err: err})
		return
	}
	h.Submit(ctx, h.clockRequest(ctx, &ask, done))
}

// failUnconfirmed ends the readings that neither succeeded nor failed.
func failUnconfirmed(ctx context.Context, out []ClockReading) []ClockReading {
	for i := range out {
		if r := &out[i]; r.Index == 0 && r.Err == nil {
			r.Err = fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the group's clock was not confirmed in time", "group", r.Group)
		}
	}
	return out
}

// Clock is Clocks for one group.
func (h *Host) Clock(ctx context.Context, id keyspace.GroupID, atLeast keyspace.Revision) (ClockReading, error) {
	r := h.Clocks(ctx, []keyspace.GroupID{id}, atLeast)[0]
	return r, r.Err
}

// mayAsk refuses to move a clock too far.
func (h *Host) mayAsk(ask *ClockAsk) error {
	if limit := h.clockLimit(ask.Group); ask.AtLeast > limit {
		return fault.New(fault.OutOfRange, "the revision lies too far in the future",
			"revision", uint64(ask.AtLeast), "limit", uint64(limit))
	}
	return nil
}

// clockLimit is how far a group's clock may be moved: ten election timeouts
// ahead of this node's, or to the ceiling that is applied already.
func (h *Host) clockLimit(id keyspace.GroupID) keyspace.Revision {
	limit := keyspace.RevisionAt(h.opt.Clock.Wall() + 10*h.opt.electionTimeout().Milliseconds())
	if g := h.lookup(id); g != nil {
		if p := g.published.Load(); p != nil {
			limit = max(limit, p.ceiling)
		}
	}
	return limit
}

type clockAnswer struct {
	position int
	reading  ClockReading
}

func (h *Host) clockRequest(ctx context.Context, ask *ClockAsk, done func(ClockReading)) *replica.Request {
	op := &replica.ClockOp{AtLeast: ask.AtLeast, Sets: ask.Sets, Since: ask.Since, Hold: ask.Hold}
	return &replica.Request{Group: ask.Group, Clock: op, Deadline: h.deadline(ctx),
		Done: func(r *replica.Request) {
			reading := ClockReading{Group: r.Group, Clock: op.Result, Term: op.Term, Unsettled: op.Unsettled, Err: r.Err}
			if r.Err == nil { // on the loop; whoever waits may read at the closed revision at once
				g := h.groups[r.Group]
				h.publish(g)
				reading.Index, reading.Slots = g.core.State().Index, g.core.State().Slots
				reading.Settled = min(op.Result, g.core.OldestPrepared()-1)
			}
			done(reading)
		}}
}
