package replica

import (
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// SlotOp is a step of a move of slots, or records that come or go with one.
//
// What a group owns is state of the group, changed only by entries of its own
// log, each alone in its entry. The leader judges a step against the applied
// state and the steps in flight before it (slots), in log order like any other
// evaluation, and writes against the same: what it does not own, or what is
// frozen, it refuses. Such a refusal of writes says that nothing was executed and
// nothing of the group's state, so it is answered at once: if the step that it
// saw never comes to be, the caller asked once too often. A refusal of a step
// tells of the state and waits like any other (park). Replicas apply steps
// blindly (nextSlots).
//
// A step that has happened already is answered as it was then, without an entry,
// so that whoever did not hear the answer may ask again.
type SlotOp struct {
	Change format.SlotChange
	// Keys come with SlotImport and SlotPurged. Of a purge only the keys count:
	// each is deleted with its chunks at a stamp of the group's own.
	Keys   []ImportKey
	Result SlotResult
	// until is when a freeze stops waiting for prepared transactions.
	until time.Duration
}

// SlotResult is what happened to a SlotOp; valid once Done was called without
// Request.Err.
type SlotResult struct {
	// Err is a *fault.Error: failed_precondition when the step is not possible,
	// invalid_argument when it never is.
	Err error
	// Index is that of the step's entry; of a step that had happened before, one
	// that is applied and holds it.
	Index keyspace.Index
	// Nonce names the freeze that is in force.
	Nonce keyspace.Index
	// Ceiling and Floor are those with which slots were left.
	Ceiling, Floor keyspace.Revision
	// Slots is the state at Index.
	Slots *format.SlotState
}

// nonceInFlight is the nonce of a freeze that is not applied yet.
const nonceInFlight = ^keyspace.Index(0)

// frozenHint is how long a writer of a frozen slot should wait.
const frozenHint = 5 * time.Millisecond

// slots is the state of the slots with the steps in flight.
func (c *Core) slots() *format.SlotState {
	if l := c.lead; l != nil && l.steps > 0 {
		return l.slots
	}
	return c.state.Slots
}

// mayWrite refuses requests for slots that are not the group's or that move.
func (c *Core) mayWrite(r *Request) error {
	s := c.slots()
	if s == nil || c.cfg.Bugs.Has(invariant.BugWriteUnowned) {
		return nil
	}
	for _, ops := range r.Sets() {
		for i := range ops {
			if err := c.mayWriteOp(s, &ops[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Core) mayWriteOp(s *format.SlotState, op *Op) error {
	if op.Namespace == keyspace.SystemNamespace {
		return nil
	}
	slot := op.keySlot()
	if err := c.ownsSlot(s, slot); err != nil {
		return err
	}
	if s.Frozen(slot) {
		return c.moving(slot)
	}
	return nil
}

func (c *Core) ownsSlot(s *format.SlotState, slot keyspace.SlotID) error {
	if s.Owns(slot) {
		return nil
	}
	return fault.New(fault.WrongGroup, "the group does not own the key's slot", "slot", slot, "group", c.cfg.Group)
}

func (c *Core) moving(slot keyspace.SlotID) error {
	return fault.New(fault.Unavailable, "the key's slot is moving", "slot", slot, "group", c.cfg.Group).WithRetry(frozenHint)
}

// refuse ends a request of which nothing was executed.
func (c *Core) refuse(r *Request, err error) verdict {
	c.abandon(r)
	r.finish(err)
	return verdictEnded
}

// refuseUploads ends the uploads of values that a step leaves no place for.
func (c *Core) refuseUploads() {
	for _, u := range c.lead.uploads {
		if u.req.finished || u.req.Slots != nil {
			continue
		}
		if err := c.mayWrite(u.req); err != nil {
			u.req.finish(err)
		}
	}
}

// evaluateSlots judges a step and makes it the entry that is built.
func (c *Core) evaluateSlots(r *Request, b *building) verdict {
	op, s := r.Slots, c.slots()
	op.Result = SlotResult{}
	if c.lead.freezing == r {
		c.lead.freezing = nil
	}
	done, err := judgeSlots(c.cfg.Group, s, &op.Change)
	if c.cfg.Bugs.Has(invariant.BugLeaveThawed) && op.Change.Kind == format.SlotLeave && s != nil && s.Out != nil && s.Out.ID == op.Change.Move {
		done, err = s.Out.Left, nil
	}
	if err == nil && !done {
		if holder := c.inTheWay(op, s); holder != nil && op.Change.Kind == format.SlotFreeze {
			return c.waitToFreeze(r, holder, b.now)
		} else if holder != nil {
			err = fault.New(fault.FailedPrecondition, "a transaction is prepared in the slots", "group", c.cfg.Group, "transaction", holder.Key.ID)
		}
	}
	if err != nil || done {
		c.abandon(r)
		op.Result.Err = err
		op.Result.remember(s)
		return verdictRefused
	}
	if moved := op.Change.Kind; moved == format.SlotImport || moved == format.SlotPurged {
		if v := c.evaluateImport(r, b); v != verdictWrite {
			return v
		}
		b.entry.Type = format.EntryImport
	} else {
		c.lead.clock = max(c.lead.clock, op.Change.Ceiling)
		b.entry.Type = format.EntrySlots
	}
	b.p.first = min(b.p.first, c.lead.stamp(b.now))
	switch op.Change.Kind {
	case format.SlotFound, format.SlotAccept, format.SlotLeave:
		c.lead.recent.moved = c.lead.clock
	default: // what the group owns stays as it is
	}
	b.entry.Slots = &op.Change
	c.launchStep(b.p, s, &op.Change)
	return verdictWrite
}

// inTheWay is a prepared transaction that keeps slots from being frozen or given up.
// While they are frozen none comes to be: so it is only a freeze that meets one.
func (c *Core) inTheWay(op *SlotOp, s *format.SlotState) *format.Prepared {
	switch op.Change.Kind { //nolint:exhaustive // the others do not mind
	case format.SlotFreeze:
		return c.lead.locks.holderIn(&op.Change.Slots)
	case format.SlotLeave:
		op.Change.LowWater = c.lead.low
		return c.lead.locks.holderIn(&s.Out.Slots)
	}
	return nil
}

// waitToFreeze lets a freeze wait until the transactions that are prepared in its
// slots have ended. Nothing new is prepared there meanwhile; writes go on until
// the freeze is in the log.
func (c *Core) waitToFreeze(r *Request, holder *format.Prepared, now Now) verdict {
	if r.Slots.until == 0 {
		r.Slots.until = now.Mono + c.cfg.MaxFreeze
	}
	if now.Mono > r.Slots.until {
		return c.refuse(r, stillPrepared(c.cfg.Group))
	}
	if f := c.lead.freezing; f == nil || f.finished {
		c.lead.freezing = r
	}
	return c.parkBehind(r, holder, nil, now)
}

func stillPrepared(g keyspace.GroupID) error {
	return fault.New(fault.Unavailable, "transactions that are prepared in the slots do not end", "group", g).WithRetry(retryHint)
}

// launchStep makes a step part of what later evaluations see.
func (c *Core) launchStep(p *proposal, before *format.SlotState, change *format.SlotChange) {
	l := c.lead
	p.step, p.slots = change, before
	l.slots = c.nextSlots(before, change, nonceInFlight, 0)
	l.steps++
	l.low = max(l.low, inherited(change))
	c.refuseUploads()
}

// stepApplied lets the steps in flight follow the applied one.
func (c *Core) stepApplied(p *proposal) {
	l := c.lead
	if p.step == nil {
		return
	}
	l.steps--
	l.slots = c.state.Slots
	for _, later := range l.inflight {
		if later.step != nil {
			l.slots = c.nextSlots(l.slots, later.step, nonceInFlight, 0)
		}
	}
	for _, r := range p.requests {
		if r.Slots != nil && !r.refused {
			r.Slots.Result.remember(c.state.Slots)
			r.Slots.Result.Index, r.Slots.Result.Slots = c.state.Index, c.state.Slots
		}
	}
}

// remember takes what the state says of the move from the group.
func (r *SlotResult) remember(s *format.SlotState) {
	if s == nil || s.Out == nil {
		return
	}
	r.Nonce, r.Ceiling, r.Floor = s.Out.Nonce, s.Out.Ceiling, s.Out.Floor
	if r.Nonce == nonceInFlight {
		r.Nonce = 0
	}
}

// applySlots applies a step blindly.
func (c *Core) applySlots(e *format.Entry, index keyspace.Index) {
	if e.Slots != nil {
		c.state.Slots = c.nextSlots(c.state.Slots, e.Slots, index, e.Ceiling)
		c.state.LowWater = max(c.state.LowWater, inherited(e.Slots))
	}
}

// inherited is the low-water mark that comes with slots.
func inherited(change *format.SlotChange) keyspace.Revision {
	if change.Kind == format.SlotAccept {
		return change.LowWater
	}
	return 0
}
