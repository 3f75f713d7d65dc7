package replica

import (
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// ReadClock returns the time at which a leader judges expiry of a read now:
// physical time within the applied ceiling, never behind an earlier reading.
// Later writes are stamped above it.
func (c *Core) ReadClock(now Now) keyspace.Revision {
	l := c.lead
	t := min(keyspace.RevisionAt(now.Physical), c.ReadCeiling())
	t = max(t, l.floor, l.read, c.state.LastRev)
	l.read = t
	l.clock = max(l.clock, t)
	return t
}

// ReadCeiling is how far reads of a leader may be judged: its applied ceiling,
// and no further than one that it has begun to lower.
func (c *Core) ReadCeiling() keyspace.Revision {
	if c.lead == nil {
		return c.state.Ceiling
	}
	return min(c.state.Ceiling, c.lead.bound)
}

// stamp gives the next revision: max(physical, last + 1).
func (l *leadership) stamp(now Now) keyspace.Revision {
	l.clock = max(keyspace.RevisionAt(now.Physical), l.clock+1)
	return l.clock
}

// nextCeiling is the ceiling of an entry proposed now: at most one election
// timeout ahead of the clock, and never behind an earlier one.
func (c *Core) nextCeiling(now Now) keyspace.Revision {
	l := c.lead
	ahead := max(keyspace.RevisionAt(now.Physical), l.clock)
	ahead += keyspace.RevisionAt(c.cfg.ElectionTimeout.Milliseconds())
	return max(l.ceiling, l.clock, l.raise, ahead)
}

// nextClosed is the closed revision an entry proposed now may carry: below its
// first stamp, the oldest one in flight, and the oldest that is prepared, within the
// applied ceiling.
func (c *Core) nextClosed(first keyspace.Revision) keyspace.Revision {
	l := c.lead
	first = min(first, l.locks.oldest())
	if len(l.inflight) > 0 {
		first = min(first, l.inflight[0].first)
	}
	return max(l.closed, min(first-1, c.state.Ceiling, l.bound))
}

// RaiseCeiling asks for an applied ceiling of at least rev; false when that is
// on its way already.
func (c *Core) RaiseCeiling(rev keyspace.Revision) bool {
	if c.lead == nil || rev <= c.lead.raise {
		return false
	}
	c.lead.raise = rev
	return true
}

// CloseIdle lets an idle leader promise that nothing is ever written at or
// below the returned revision; ok is false when there is nothing new.
func (c *Core) CloseIdle(now Now) (closed keyspace.Revision, ok bool) {
	l := c.lead
	if l == nil || !l.appliedOwn || len(l.inflight) > 0 || l.transferTo != 0 {
		return 0, false
	}
	t := min(keyspace.RevisionAt(now.Physical), c.ReadCeiling(), l.locks.oldest()-1)
	if t <= c.closed {
		return c.closed, c.closed > 0
	}
	l.clock = max(l.clock, t)
	l.closed, c.closed = max(l.closed, t), t
	return t, true
}

// Clock is the group's time as this replica knows it.
func (c *Core) Clock() keyspace.Revision {
	if c.lead != nil {
		return c.lead.clock
	}
	return max(c.state.LastRev, c.closed)
}

// BeginTransfer stops evaluation and lowers the ceiling by an entry, so that
// the next leader need not wait for time to catch up.
func (c *Core) BeginTransfer(to keyspace.ReplicaID) bool {
	l := c.lead
	if l == nil || !l.appliedOwn || l.transferTo != 0 {
		return false
	}
	l.transferTo = to
	return true
}

// TransferReady returns the target once the lowering entry is applied.
func (c *Core) TransferReady() (to keyspace.ReplicaID, ok bool) {
	if c.lead == nil || !c.lead.lowered {
		return 0, false
	}
	return c.lead.transferTo, true
}

// EndTransfer resumes evaluation after a transfer that did not happen. While
// the lowering entry is in flight it goes on to bind: it may become the last
// that the next leader knows.
func (c *Core) EndTransfer() {
	l := c.lead
	if l == nil {
		return
	}
	l.transferTo, l.lowering, l.lowered = 0, false, false
	l.unbind()
}

// bind makes p an entry that lowers the ceiling to the clock. From its proposal on
// nothing is read beyond that: whoever goes on from it, the next leader or the
// group that takes slots over, starts there.
func (c *Core) bind(p *proposal, e *format.Entry) {
	l := c.lead
	p.bound = min(l.clock, c.state.Ceiling)
	l.bound = min(l.bound, p.bound)
	e.Lower, e.Ceiling = true, l.clock
}

// unbind lets reads go as far as what still is in flight allows.
func (l *leadership) unbind() {
	if l.lowered {
		return // it binds until the transfer has ended
	}
	l.bound = keyspace.MaxRevision
	for _, p := range l.inflight {
		l.bound = min(l.bound, p.bound)
	}
}
