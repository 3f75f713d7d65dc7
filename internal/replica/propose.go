package replica

import (
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// mustRaise reports whether somebody waits for a higher ceiling than any entry
// on its way carries.
func (c *Core) mustRaise(Now) bool { return c.lead.raise > c.lead.ceiling }

// seal finishes the entry being built and makes it the last one in flight.
// Every payload it returns must be proposed before the next evaluation.
func (c *Core) seal(b *building) []byte {
	l := c.lead
	e := &b.entry
	switch {
	case e.Slots != nil:
	case len(e.Prepared)+len(e.Ended) > 0 || e.LowWater != 0:
		e.Type = format.EntryTxn
	case len(e.Writes) > 0:
		e.Type = format.EntryWrite
	case l.digest:
		e.Type = format.EntryDigest
	default:
		e.Type = format.EntryClock
	}
	if b.p.first == keyspace.MaxRevision {
		b.p.first = l.clock + 1
	}
	if e.Type == format.EntryDigest {
		l.digest, b.p.digest = false, true
	}
	e.Stamp = l.clock
	if e.Slots != nil && e.Slots.Kind == format.SlotLeave {
		c.bind(b.p, e)
	} else {
		e.Ceiling = c.nextCeiling(b.now)
	}
	e.Closed = c.nextClosed(b.p.first)
	return c.launch(e, b.p, b.bytes)
}

// launch encodes an entry and appends its proposal.
func (c *Core) launch(e *format.Entry, p *proposal, size int) []byte {
	l := c.lead
	e.Prev = l.chain
	payload := l.spare.encode(e, size)
	l.proposed++
	p.seq = l.proposed
	l.overlay.touch(e.Writes, p.seq)
	l.chain = format.ChainHash(l.chain, payload)
	l.closed, l.ceiling = e.Closed, e.Ceiling
	invariant.Assert(e.Stamp <= e.Ceiling, "group %d: stamp %v above the entry's ceiling %v", c.cfg.Group, e.Stamp, e.Ceiling)
	l.inflight = append(l.inflight, p)
	return payload
}

// Proposed tells that raft took the last payload.
func (c *Core) Proposed() {
	p := c.last()
	if c.cfg.Bugs.Has(invariant.BugAckBeforeQuorum) {
		for _, r := range p.requests {
			r.finish(nil)
		}
	}
}

// Dropped tells that raft refused the last payload: nothing evaluated for it
// stands, and its requests wait again.
func (c *Core) Dropped() {
	l, p := c.lead, c.last()
	l.inflight = l.inflight[:len(l.inflight)-1]
	l.proposed--
	l.chain, l.closed, l.ceiling = p.chain, p.closed, p.ceiling
	if !c.cfg.Bugs.Has(invariant.BugOverlayKept) {
		l.forget(p)
	}
	if p.step != nil {
		l.steps--
		l.slots = p.slots
	}
	c.undoLocks(p)
	if p.lower {
		l.lowering = false
	}
	l.unbind()
	if p.upload != nil {
		p.upload.next -= p.chunks
	}
	l.garbage = append(l.garbage, p.garbage...)
	l.digest = l.digest || p.digest
	c.requeue(p.requests)
}

// requeue puts requests back to the front, in their order.
func (c *Core) requeue(requests []*Request) {
	items := c.queue.items
	c.queue = queue{}
	for _, r := range requests {
		r.refused = false
		for u := range r.uploads {
			u.claimed = false
		}
		c.queue.push(r)
	}
	for _, r := range items {
		c.queue.push(r)
	}
}

func (c *Core) last() *proposal {
	invariant.Assert(c.lead != nil && len(c.lead.inflight) > 0, "group %d: no proposal to answer for", c.cfg.Group)
	return c.lead.inflight[len(c.lead.inflight)-1]
}

// buildLowering builds the entry that binds this leader before a transfer.
func (c *Core) buildLowering() []byte {
	l := c.lead
	if l.lowering || l.lowered || len(l.inflight) > 0 || len(l.uploads) > 0 {
		return nil
	}
	l.lowering = true
	p := l.newProposal(l.clock + 1)
	p.lower = true
	e := &format.Entry{Type: format.EntryClock, Stamp: l.clock}
	c.bind(p, e)
	e.Closed = c.nextClosed(p.first)
	return c.launch(e, p, 0)
}

// WantDigest asks for a digest entry.
func (c *Core) WantDigest() bool {
	if c.lead == nil {
		return false
	}
	c.lead.digest = true
	return true
}

// HasWork reports whether Evaluate would do something.
func (c *Core) HasWork() bool {
	l := c.lead
	if l == nil || !l.appliedOwn {
		return false
	}
	return len(c.queue.items) > 0 || len(l.holds.held) > 0 || len(l.uploads) > 0 || len(l.garbage) > 0 || l.digest ||
		l.raise > l.ceiling || (l.transferTo != 0 && !l.lowering && !l.lowered)
}

// LastBatch counts the requests of the last payload.
func (c *Core) LastBatch() int { return len(c.last().requests) }
