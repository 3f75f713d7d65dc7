package replica

import (
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// deny refuses a request with an error that follows from what this leader knows. Who
// was deposed and has not heard of it knows too little: so it waits as refusals do.
func (c *Core) deny(r *Request, err error) verdict {
	c.abandon(r)
	r.denied = err
	return verdictRefused
}

// park makes refusals wait. One answered by this or a later entry of the term
// is confirmed by it; without an entry it takes a ReadIndex, and in both cases
// everything the evaluation saw must be applied first (DESIGN 4).
func (c *Core) park(refused []*Request, b *building, out *Outcome) {
	if len(refused) == 0 {
		return
	}
	l := c.lead
	if refused = c.answerEarly(refused); len(refused) == 0 {
		return
	}
	if out.Payload != nil {
		b.p.requests = append(b.p.requests, refused...)
		return
	}
	l.evaluations++
	for _, r := range refused {
		r.seq, r.evaluation = l.proposed, l.evaluations
	}
	l.refusals = append(l.refusals, refused...)
	out.Confirm = l.evaluations
}

// answerEarly is two planted bugs: answering refusals before what they saw is
// applied, or, when all of it is, before leadership is confirmed.
func (c *Core) answerEarly(refused []*Request) (rest []*Request) {
	if c.cfg.Bugs&(invariant.BugRefusalInFlight|invariant.BugRefusalUnconfirmed) == 0 {
		return refused
	}
	for _, r := range refused {
		seen := false
		for _, ops := range r.Sets() {
			for i := range ops {
				seen = seen || c.lead.overlay.find(ops[i].diskKey) != nil
			}
		}
		if seen == c.cfg.Bugs.Has(invariant.BugRefusalInFlight) {
			r.finish(r.denied)
		} else {
			rest = append(rest, r)
		}
	}
	return rest
}

// Confirmed tells that leadership in term was confirmed by a ReadIndex that
// began after the evaluations up to the given one.
func (c *Core) Confirmed(term keyspace.Term, evaluation uint64) {
	l := c.lead
	if l == nil || l.term != term {
		return
	}
	for _, r := range l.refusals {
		r.confirmed = r.confirmed || r.evaluation <= evaluation
	}
	c.settleRefusals()
}

// Unconfirmed is the last evaluation that has refusals to confirm, 0 if none.
func (c *Core) Unconfirmed() uint64 {
	if c.lead == nil || len(c.lead.refusals) == 0 {
		return 0
	}
	return c.lead.evaluations
}

// settleRefusals answers refusals that are confirmed and whose view is applied.
func (c *Core) settleRefusals() {
	l := c.lead
	kept := l.refusals[:0]
	for _, r := range l.refusals {
		switch {
		case l.applied > r.seq, r.confirmed && l.applied >= r.seq:
			c.settle(r)
		case r.finished:
		default:
			kept = append(kept, r)
		}
	}
	clear(l.refusals[len(kept):])
	l.refusals = kept
}
