package host

import (
	"context"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// ClockReading is a leader's answer about a group's clock.
type ClockReading struct {
	Group keyspace.GroupID
	// Clock: nothing is ever written at or below it afterwards.
	Clock keyspace.Revision
	// Index: the log up to it holds everything that was stamped at or below
	// Clock. Whoever has applied it has the group's state at Clock, leader or
	// not.
	Index keyspace.Index
	Err   error
}

// Clocks reads the clocks of groups that this node leads, in one pass of the
// loop: it confirms each leadership, waits until all that was stamped is
// applied, and moves the clock to at least atLeast. The answers are parallel
// to ids; groups fail one by one.
func (h *Host) Clocks(ctx context.Context, ids []keyspace.GroupID, atLeast keyspace.Revision) []ClockReading {
	out := make([]ClockReading, len(ids))
	answered := make(chan clockAnswer, len(ids))
	requests := make([]*replica.Request, 0, len(ids))
	for i, id := range ids {
		out[i].Group = id
		if limit := h.clockLimit(id); atLeast > limit {
			out[i].Err = fault.New(fault.OutOfRange, "the revision lies too far in the future",
				"revision", uint64(atLeast), "limit", uint64(limit))
			continue
		}
		requests = append(requests, h.clockRequest(ctx, i, id, atLeast, answered))
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

func (h *Host) clockRequest(ctx context.Context, position int, id keyspace.GroupID, atLeast keyspace.Revision, to chan<- clockAnswer) *replica.Request {
	return &replica.Request{Group: id, Clock: &replica.ClockOp{AtLeast: atLeast}, Deadline: h.deadline(ctx),
		Done: func(r *replica.Request) {
			a := clockAnswer{position: position, reading: ClockReading{Group: id, Clock: r.Clock.Result, Err: r.Err}}
			if r.Err == nil { // on the loop; whoever waits may read at the closed revision at once
				g := h.groups[id]
				h.publish(g)
				a.reading.Index = g.core.State().Index
			}
			to <- a
		}}
}
