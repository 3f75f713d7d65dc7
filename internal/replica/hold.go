package replica

import (
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// holds are ranges of keys that nothing is written to for a moment, between the
// two rounds of a read over several groups that found them changed again and
// again. Requests that meet one wait in held, in their order, until it ends: by
// the second round, after maxHold, or with the leadership. None waits longer than
// maxHold, whatever holds follow each other; one that is let through then breaks
// those in its way. Group time stands still as well, for as long at most, so that
// no record expires in between.
type holds struct {
	active []hold
	ended  bool // one of them, since letThrough
	held   []*Request
	// ops and bytes are what held costs.
	ops, bytes int
	// still is the time that does not pass until stillEnd.
	still    int64
	stillEnd time.Duration
}

type hold struct {
	id    uint64
	spans Spans
	until time.Duration
}

const (
	// maxHold bounds how long a write waits for reads.
	maxHold = 50 * time.Millisecond
	// maxHolds bounds those of a group; there is no hold beyond it, and the read
	// that asked for it may have to begin again.
	maxHolds = 64
)

// place begins a hold, unless it is there already.
func (h *holds) place(id uint64, spans Spans, clock keyspace.Revision, now Now) {
	for i := range h.active {
		if h.active[i].id == id {
			return
		}
	}
	if len(h.active) >= maxHolds {
		return
	}
	if len(h.active) == 0 && now.Mono >= h.stillEnd {
		h.still, h.stillEnd = clock.UnixMilli(), now.Mono+maxHold
	}
	h.active = append(h.active, hold{id: id, spans: spans, until: now.Mono + maxHold})
}

// end takes a hold away, and reports whether it stood all the time.
func (h *holds) end(id uint64, now time.Duration) (stood bool) {
	for i := range h.active {
		if h.active[i].id == id {
			stood, h.ended = now < h.active[i].until, true
			h.active = append(h.active[:i], h.active[i+1:]...)
			break
		}
	}
	return stood
}

// lapse ends holds whose time is over.
func (h *holds) lapse(now time.Duration) {
	kept := h.active[:0]
	for _, a := range h.active {
		if now < a.until {
			kept = append(kept, a)
		}
	}
	h.ended = h.ended || len(kept) < len(h.active)
	clear(h.active[len(kept):])
	h.active = kept
}

// keeps reports whether a request has to wait. One that has waited long enough
// breaks the holds in its way.
func (h *holds) keeps(r *Request, now time.Duration) bool {
	for i := range h.active {
		a := &h.active[i]
		if now >= a.until || !r.meets(a.spans) {
			continue
		}
		if r.patience == 0 {
			r.patience = now + maxHold
		}
		if now < r.patience {
			return true
		}
		a.until = now
	}
	return false
}

// keep has a request wait.
func (h *holds) keep(r *Request) {
	ops, bytes := r.cost()
	h.held, h.ops, h.bytes = append(h.held, r), h.ops+ops, h.bytes+bytes
}

// expire ends requests whose deadline passed; they stay in held until they are let
// through.
func (h *holds) expire(now time.Duration) {
	for _, r := range h.held {
		if r.late(now) {
			r.finish(fault.New(fault.DeadlineExceeded, "the deadline passed while the keys of the operation were held for a read"))
		}
	}
}

// meets reports whether one of a request's keys is in spans.
func (r *Request) meets(spans Spans) bool {
	for _, ops := range r.Sets() {
		for i := range ops {
			if spans.has(string(ops[i].DiskKey())) {
				return true
			}
		}
	}
	return false
}

// letThrough has what waited for holds evaluated again when one has ended, or the
// first of them waits no longer; false when nothing is.
func (c *Core) letThrough(now time.Duration) bool {
	h := &c.lead.holds
	h.lapse(now)
	ended := h.ended
	h.ended = false
	if len(h.held) == 0 || !ended && now < h.held[0].patience {
		return false
	}
	held := h.held
	h.held, h.ops, h.bytes = nil, 0, 0
	c.requeue(held)
	return true
}

// HoldLeft is how long the first of what waits for holds still does, a
// millisecond at least; 0 when nothing waits.
func (c *Core) HoldLeft(now time.Duration) time.Duration {
	if c.lead == nil || len(c.lead.holds.held) == 0 {
		return 0
	}
	left := c.lead.holds.held[0].patience - now
	for i := range c.lead.holds.active {
		left = min(left, c.lead.holds.active[i].until-now)
	}
	return max(left, time.Millisecond)
}

// Still clips a reading of the clocks to the time at which a hold keeps the
// group.
func (c *Core) Still(now Now) Now {
	if l := c.lead; l != nil && len(l.holds.active) > 0 && now.Mono < l.holds.stillEnd {
		now.Physical = min(now.Physical, l.holds.still)
	}
	return now
}
