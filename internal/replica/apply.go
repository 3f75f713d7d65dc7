package replica

import (
	"fmt"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// ErrDiverged marks a replica whose log does not continue its applied state;
// it must not serve.
var ErrDiverged = fault.New(fault.Corruption, "replica diverged from its log")

// Applied tells what an entry was, beyond its writes.
type Applied struct {
	// Import: the entry brought records that another group wrote.
	Import bool
	// Digest: the replica's records at or below Closed are to be hashed.
	Digest bool
	Closed keyspace.Revision
	// Locked are the transactions that the entry prepared, Unlocked those that it
	// ended. A key may pass from one of the latter to one of the former.
	Locked, Unlocked []*format.Prepared
}

// Apply applies one normal log entry blindly; every replica of the group does
// exactly the same. An error stops the replica: entries are never skipped.
func (c *Core) Apply(index keyspace.Index, term keyspace.Term, payload []byte) (Applied, error) {
	s := &c.state
	invariant.Assert(index == s.Index+1, "group %d: entry %d applied after %d", c.cfg.Group, index, s.Index)
	if term > s.Term {
		c.dropUnclaimed(term)
	}
	if len(payload) == 0 {
		s.Index, s.Term = index, term
		c.appliedEmpty(term)
		return Applied{}, nil
	}
	e := &c.entry
	defer forget(e)
	if err := format.DecodeEntry(payload, e); err != nil {
		return Applied{}, fmt.Errorf("group %d entry %d: %w", c.cfg.Group, index, err)
	}
	if e.Prev != s.Chain {
		return Applied{}, fmt.Errorf("%w: group %d entry %d continues chain %x, applied chain is %x",
			ErrDiverged, c.cfg.Group, index, e.Prev, s.Chain)
	}
	c.checkTime(e, index)
	c.insert(e.Writes)
	c.applyUploads(e, term)
	c.applySlots(e, index)
	locked, unlocked := c.applyTxns(e, index)
	s.Index, s.Term = index, term
	s.Chain = format.ChainHash(s.Chain, payload)
	s.LastRev = max(s.LastRev, e.Stamp)
	s.Ceiling, s.Closed = e.Ceiling, e.Closed
	c.closed = max(c.closed, e.Closed)
	c.answer(term)
	return Applied{Digest: e.Type == format.EntryDigest, Closed: e.Closed, Import: e.Slots != nil && e.Slots.Kind == format.SlotImport,
		Locked: locked, Unlocked: unlocked}, nil
}

// maxKeptWrites is the largest entry whose decoded form is kept for the next one.
const maxKeptWrites = 4096

// forget lets go of what a decoded entry refers to: keys and values are parts of
// the payload, and one of them that stays behind a shorter entry would keep all
// of it in memory, in every group.
func forget(e *format.Entry) {
	e.Slots, e.Prepared = nil, nil
	clear(e.Writes)
	if e.Writes = e.Writes[:0]; cap(e.Writes) > maxKeptWrites {
		e.Writes = nil
	}
}

// insert adds the writes of one entry. They become visible together: readers
// ask for revisions up to the published one, which moves after the whole entry.
func (c *Core) insert(writes []format.Write) {
	if c.cfg.Bugs.Has(invariant.BugHalfEntry) && len(writes) > 1 {
		half := len(writes) / 2
		c.deferred = append(c.deferred, writes[half:]...)
		writes = writes[:half]
	}
	c.mem.InsertAll(c.instance, writes)
	for i := range writes {
		if w := &writes[i]; !w.Delete && keyspace.KindOf(w.Key) == keyspace.KindTTL {
			c.noteDeadline(w.Key)
		}
	}
}

// InsertDeferred completes what BugHalfEntry held back.
func (c *Core) InsertDeferred() {
	c.mem.InsertAll(c.instance, c.deferred)
	c.deferred = nil
}

// ApplyConf applies a membership change that raft already adopted.
func (c *Core) ApplyConf(index keyspace.Index, term keyspace.Term, members []format.Member, next keyspace.ReplicaID, confState []byte) {
	s := &c.state
	invariant.Assert(index == s.Index+1, "group %d: entry %d applied after %d", c.cfg.Group, index, s.Index)
	s.Index, s.Term = index, term
	s.Members, s.NextID, s.ConfState = members, max(s.NextID, next), confState
}

// checkTime holds DESIGN 6: group time never goes back, and nothing is ever
// written at or below a closed revision.
func (c *Core) checkTime(e *format.Entry, index keyspace.Index) {
	s := &c.state
	invariant.Assert(e.Stamp >= s.LastRev, "group %d entry %d: stamp %v behind %v", c.cfg.Group, index, e.Stamp, s.LastRev)
	invariant.Assert(e.Closed >= s.Closed, "group %d entry %d: closed %v behind %v", c.cfg.Group, index, e.Closed, s.Closed)
	invariant.Assert(e.Lower || e.Ceiling >= s.Ceiling, "group %d entry %d: ceiling %v behind %v", c.cfg.Group, index, e.Ceiling, s.Ceiling)
	if e.Type == format.EntryImport {
		for i := range e.Writes {
			invariant.Assert(e.Writes[i].Revision <= e.Stamp, "group %d entry %d: import at %v beyond stamp %v", c.cfg.Group, index, e.Writes[i].Revision, e.Stamp)
		}
	}
	if !e.Type.Writes() {
		return
	}
	for i := range e.Writes {
		w := &e.Writes[i]
		if !w.Delete && w.Revision <= c.closed { // boxing the values of every write costs more than the check
			invariant.Assert(false, "group %d entry %d: write at %v, closed is %v", c.cfg.Group, index, w.Revision, c.closed)
		}
	}
}

func (c *Core) applyUploads(e *format.Entry, term keyspace.Term) {
	s := &c.state
	for _, claim := range e.Claims {
		for i := range s.Uploads {
			if s.Uploads[i].Stamp == claim {
				s.Uploads = append(s.Uploads[:i:i], s.Uploads[i+1:]...)
				break
			}
		}
	}
	if e.Type != format.EntryChunk {
		return
	}
	for i := range s.Uploads {
		if s.Uploads[i].Stamp == e.Upload {
			uploads := append([]format.Upload(nil), s.Uploads...)
			uploads[i].Chunks += uint32(len(e.Writes))
			s.Uploads = uploads
			return
		}
	}
	s.Uploads = append(s.Uploads[:len(s.Uploads):len(s.Uploads)],
		format.Upload{Stamp: e.Upload, Term: term, Chunks: uint32(len(e.Writes))})
}

// dropUnclaimed deletes chunks of earlier terms that nobody can claim any more.
func (c *Core) dropUnclaimed(term keyspace.Term) {
	var kept []format.Upload
	for _, u := range c.state.Uploads {
		if u.Term >= term {
			kept = append(kept, u)
			continue
		}
		for n := range u.Chunks {
			c.mem.Insert(c.instance, keyspace.AppendChunkKey(nil, u.Stamp, n), u.Stamp+1, nil, true)
		}
	}
	c.state.Uploads = kept
}

// appliedEmpty meets the empty entry that opens a term.
func (c *Core) appliedEmpty(term keyspace.Term) {
	l := c.lead
	if l == nil || l.term != term || l.appliedOwn {
		return
	}
	l.start(c)
}

// answer finishes the requests of the own proposal that was just applied.
func (c *Core) answer(term keyspace.Term) {
	l := c.lead
	if l == nil || l.term != term {
		return
	}
	invariant.Assert(len(l.inflight) > 0, "group %d term %d: applied an entry nobody here proposed", c.cfg.Group, term)
	p := l.inflight[0]
	l.inflight[0] = nil
	l.inflight = l.inflight[1:]
	l.applied = p.seq
	l.forget(p)
	if p.lower {
		l.lowered = l.lowering
	}
	if p.bound != keyspace.MaxRevision {
		l.unbind()
	}
	c.stepApplied(p)
	l.done = append(l.done, p.requests...)
}

// Settle answers what Apply made ready. The host calls it once the applied
// entries are published to readers.
func (c *Core) Settle() {
	l := c.lead
	if l == nil {
		return
	}
	for _, r := range l.done {
		c.settle(r)
	}
	clear(l.done)
	l.done = l.done[:0]
	if len(l.refusals) > 0 {
		c.settleRefusals()
	}
}

func (c *Core) settle(r *Request) {
	if op := r.Slots; op != nil && r.refused {
		op.Result.Index, op.Result.Slots = c.state.Index, c.state.Slots
	}
	if r.Clock != nil {
		c.closed = max(c.closed, min(r.Clock.Result, c.state.Ceiling, c.OldestPrepared()-1))
	}
	r.finish(r.denied)
}
