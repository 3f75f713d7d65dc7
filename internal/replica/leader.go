package replica

import (
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// leadership is all that a leader knows beyond the applied state. It belongs
// to one term and dies with it.
type leadership struct {
	term keyspace.Term
	// appliedOwn: an entry of this term was applied; before that neither
	// writes are evaluated nor reads served (DESIGN 4).
	appliedOwn bool
	// catchUntil is when a new leader stops waiting for physical time to reach
	// the ceiling it inherited.
	catchUntil time.Duration
	catching   bool

	spare spare

	// clock is the last stamp given or time read; ceiling the highest proposed.
	clock, ceiling, closed keyspace.Revision
	// read is the latest time that reads and refusals were judged at.
	read keyspace.Revision
	// floor is the ceiling inherited from earlier leaders.
	floor keyspace.Revision
	// bound caps read clocks while an entry that lowers the ceiling is in flight,
	// and after it until the transfer that it is for has ended; MaxRevision otherwise.
	bound keyspace.Revision
	// raise is a ceiling somebody waits for.
	raise keyspace.Revision
	chain uint64

	overlay overlay
	// slots is the state of the slots after the steps in flight, of which there
	// are so many; see Core.slots.
	slots    *format.SlotState
	steps    int
	inflight []*proposal
	// proposed and applied count this term's own payloads in log order.
	proposed, applied uint64
	// evaluations counts those that left refusals to confirm.
	evaluations uint64
	refusals    []*Request
	uploads     []*upload // with chunks still to be proposed
	open        []*upload // neither claimed nor discarded
	garbage     []*upload
	// done are requests whose entry is applied and not yet published.
	done []*Request

	// locks are those of prepared transactions, and low is the low-water mark, both
	// after what is in flight. Requests that meet a lock are parked.
	locks   lockTable
	low     keyspace.Revision
	parking parking
	// freezing is a freeze that waits for prepared transactions.
	freezing *Request

	recent recent
	holds  holds

	transferTo keyspace.ReplicaID
	lowering   bool // the lowering entry is in flight
	lowered    bool // it was applied: raft may transfer
	digest     bool
}

// proposal is a payload on its way through the log.
type proposal struct {
	seq      uint64
	first    keyspace.Revision // its lowest stamp
	requests []*Request
	pending  *pending // the last of its versions in the overlay
	blocks   [][]byte // where their records lie
	chain    uint64   // before it
	closed   keyspace.Revision
	ceiling  keyspace.Revision
	lower    bool              // it is for a transfer
	bound    keyspace.Revision // caps read clocks while in flight
	digest   bool
	upload   *upload
	chunks   uint32
	garbage  []*upload
	// step is what it changes of the slots, slots their state before it.
	step  *format.SlotChange
	slots *format.SlotState
	// locks is what it changes of them, in order; low is the low-water mark before it.
	locks []lockChange
	low   keyspace.Revision
}

// newProposal is one that is built on top of what is in flight.
func (l *leadership) newProposal(first keyspace.Revision) *proposal {
	return &proposal{first: first, chain: l.chain, closed: l.closed, ceiling: l.ceiling, low: l.low, bound: keyspace.MaxRevision}
}

// spare is memory that entries are built in, one after the other: raft copies each
// payload when it is proposed.
type spare struct {
	writes  []format.Write
	payload []byte
	// blocks are those of proposals that are applied, or were dropped, of made that
	// there are.
	blocks [][]byte
	made   int
}

const (
	// entryRoom is what an entry has beside its writes, mostly.
	entryRoom = 96
	// blockBytes is the size of a block: memory for the records of a proposal.
	blockBytes = 16 << 10
	// maxBlocks and maxSparePayload bound what is kept for each group led. When all
	// blocks are in flight, more memory is taken only as it is needed.
	maxBlocks       = 4
	maxSparePayload = 64 << 10
)

func (s *spare) lend(b *building) {
	b.entry.Writes, s.writes = s.writes[:0], nil
}

// takeBack keeps what b does not need any more.
func (s *spare) takeBack(b *building) {
	s.writes = emptied(b.entry.Writes)
	b.entry.Writes = nil
}

// encode returns the encoding of e, until the next one. size is that of its writes,
// about.
func (s *spare) encode(e *format.Entry, size int) []byte {
	if cap(s.payload) < size+entryRoom {
		s.payload = make([]byte, 0, size+entryRoom)
	}
	payload := format.AppendEntry(s.payload[:0], e)
	if s.payload = payload; cap(payload) > maxSparePayload {
		s.payload = nil
	}
	return payload
}

// block returns memory for a record of size bytes and others after it, of about room
// bytes in all.
func (s *spare) block(size, room int) []byte {
	n := len(s.blocks) - 1
	switch {
	case size > blockBytes:
		return make([]byte, 0, size)
	case n >= 0:
		b := s.blocks[n]
		s.blocks[n], s.blocks = nil, s.blocks[:n]
		return b
	case s.made < maxBlocks:
		s.made++
		return make([]byte, 0, blockBytes)
	default:
		return make([]byte, 0, max(size, min(room, blockBytes)))
	}
}

// takeBlocks keeps the blocks of a proposal whose versions are in the overlay no more.
func (s *spare) takeBlocks(p *proposal) {
	for _, b := range p.blocks {
		if cap(b) == blockBytes && len(s.blocks) < maxBlocks {
			s.blocks = append(s.blocks, b[:0])
		}
	}
	p.blocks = nil
}

// emptied lets go of what is in a slice, and of the slice if it is large.
func emptied[T any](s []T) []T {
	clear(s)
	if cap(s) > maxKeptWrites {
		return nil
	}
	return s[:0]
}

// BecomeLeader starts a term as leader.
func (c *Core) BecomeLeader(term keyspace.Term) {
	c.StepDown(fault.New(fault.Unavailable, "leadership changed"))
	c.lead = &leadership{term: term, bound: keyspace.MaxRevision}
	if c.cfg.Bugs.Has(invariant.BugEvaluateEarly) {
		c.lead.start(c)
	}
}

// start begins evaluation above everything earlier leaders may have promised.
func (l *leadership) start(c *Core) {
	l.appliedOwn = true
	l.clock = max(l.clock, c.state.Ceiling, c.state.LastRev)
	l.floor = l.clock
	l.recent.reach = l.clock
	l.ceiling = c.state.Ceiling
	l.closed = c.closed
	l.chain = c.state.Chain
	l.catching = true
	l.locks, l.low = newLockTable(c.state.Prepared), c.state.LowWater
}

// StepDown ends the leadership. Proposed requests end with unknown_outcome;
// those that were only waiting, and refusals, end with err: nothing of them
// was executed.
func (c *Core) StepDown(err error) {
	l := c.lead
	c.lead = nil
	c.queue.failAll(err)
	if l == nil {
		return
	}
	for _, r := range l.refusals {
		r.finish(err)
	}
	l.parking.failAll(err)
	for _, r := range l.holds.held {
		r.finish(err)
	}
	for _, u := range l.uploads {
		u.req.finish(err)
	}
	for _, r := range l.done {
		r.finish(r.denied)
	}
	for _, p := range l.inflight {
		for _, r := range p.requests {
			if r.refused {
				r.finish(err)
				continue
			}
			r.finish(fault.Wrap(fault.UnknownOutcome, err, "leadership was lost while the write was being replicated",
				"group", c.cfg.Group))
		}
	}
}

// Leading reports whether this replica leads, and in which term.
func (c *Core) Leading() (keyspace.Term, bool) {
	if c.lead == nil {
		return 0, false
	}
	return c.lead.term, true
}

// Serving reports whether a leader may evaluate and serve reads: an entry of
// its own term is applied and time has caught up with the inherited ceiling
// (for at most one election timeout; that wait is for the precision of TTLs).
func (c *Core) Serving(now Now) bool {
	l := c.lead
	if l == nil || !l.appliedOwn {
		return false
	}
	if !l.catching {
		return true
	}
	if l.catchUntil == 0 {
		l.catchUntil = now.Mono + c.cfg.ElectionTimeout
	}
	if keyspace.RevisionAt(now.Physical) >= l.floor || now.Mono >= l.catchUntil {
		l.catching = false
	}
	return !l.catching
}

// InFlight counts payloads that are proposed and not applied.
func (c *Core) InFlight() int {
	if c.lead == nil {
		return 0
	}
	return len(c.lead.inflight)
}

// finish calls Done once.
func (r *Request) finish(err error) {
	if r.finished {
		return
	}
	r.finished = true
	if err != nil && r.Err == nil {
		r.Err = err
	}
	if r.Done != nil {
		r.Done(r)
	}
}

// Fail ends a request that was never enqueued.
func (r *Request) Fail(err error) { r.finish(err) }
