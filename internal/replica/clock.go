package replica

import "kvstore/internal/keyspace"

// ReadClock returns the time at which a leader judges expiry of a read now:
// physical time within the applied ceiling, never behind an earlier reading.
// Later writes are stamped above it.
func (c *Core) ReadClock(now Now) keyspace.Revision {
	l := c.lead
	t := min(keyspace.RevisionAt(now.Physical), c.state.Ceiling, l.bound)
	t = max(t, l.floor, c.state.LastRev)
	l.clock = max(l.clock, t)
	return t
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
// first stamp and the oldest one in flight, within the applied ceiling.
func (c *Core) nextClosed(first keyspace.Revision) keyspace.Revision {
	l := c.lead
	if len(l.inflight) > 0 {
		first = min(first, l.inflight[0].first)
	}
	return max(l.closed, min(first-1, c.state.Ceiling, l.bound))
}

// RaiseCeiling asks for an applied ceiling of at least rev.
func (c *Core) RaiseCeiling(rev keyspace.Revision) {
	if c.lead != nil {
		c.lead.raise = max(c.lead.raise, rev)
	}
}

// CloseIdle lets an idle leader promise that nothing is ever written at or
// below the returned revision; ok is false when there is nothing new.
func (c *Core) CloseIdle(now Now) (closed keyspace.Revision, ok bool) {
	l := c.lead
	if l == nil || !l.appliedOwn || len(l.inflight) > 0 || l.transferTo != 0 {
		return 0, false
	}
	t := min(keyspace.RevisionAt(now.Physical), c.state.Ceiling, l.bound)
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

// EndTransfer resumes evaluation after a transfer that did not happen.
func (c *Core) EndTransfer() {
	if l := c.lead; l != nil {
		l.transferTo, l.lowering, l.lowered, l.bound = 0, false, false, keyspace.MaxRevision
	}
}
