package host

import (
	"context"
	"encoding/binary"
	"time"

	"google.golang.org/protobuf/proto"

	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/raftlog"
)

// flushState is the background flush of sealed deltas. Checkpoints are taken at
// the seal and written once all of the delta is durable in run, history and
// engine, so that what a restart replays always covers what those may have lost
// (DESIGN 5). Merges and moves of runs go on beside it and touch no checkpoint.
type flushState struct {
	checkpoints map[uint64][]checkpointOf // by sealed delta
	running     bool
	merging     bool // small runs are merged
	moving      bool // larger runs are merged or moved to the engine
	tidyAfter   time.Duration
	moveAfter   time.Duration // the same for moves, which want more room than merges
	pinned      []*instance   // retired during a flush that may still write them
	lastSeal    time.Duration
}

type checkpointOf struct {
	group keyspace.GroupID
	inst  keyspace.InstanceID
	cp    raftlog.Checkpoint
	rev   keyspace.Revision
}

// sealInterval seals a delta that is not full, so that quiet groups do not pin
// the log.
const sealInterval = 30 * time.Second

// tidyRetry is how long a merge or move of runs waits that found the disk full:
// what it wrote until then stood in the way of flushes.
const tidyRetry = 5 * time.Second

func (h *Host) maybeSeal() {
	if h.opt.Witness {
		h.keepPositions(positionEvery)
		return
	}
	if h.opt.Store.NeedSeal() {
		h.seal()
	}
}

func (h *Host) flushTick(mono time.Duration) {
	if mono-h.flush.lastSeal > sealInterval {
		h.flush.lastSeal = mono // also when there is nothing to seal
		h.seal()
	}
	h.flushSoon()
	h.tidySoon()
}

// seal ends the active delta between entries and remembers every group's
// applied state.
func (h *Host) seal() {
	if h.opt.Witness {
		h.keepPositions(1)
		return
	}
	if !h.closing && h.hanging.Load() && h.lagging() {
		return // the loop must not wait for this disk
	}
	var cps []checkpointOf
	for _, g := range h.order {
		if s := g.core.State(); s.Index > g.saved {
			cps = append(cps, h.checkpointOf(g))
		}
	}
	if len(cps) == 0 {
		return
	}
	if err := h.settleLag(); err != nil {
		h.fail(err)
		return
	}
	h.flush.lastSeal = h.opt.Clock.Mono()
	id := h.opt.Store.Seal()
	h.flush.checkpoints[uint64(id)] = cps
	h.flushSoon()
}

func (h *Host) checkpointOf(g *group) checkpointOf {
	s := g.core.State()
	cs := &raftpb.ConfState{}
	invariant.Assert(proto.Unmarshal(s.ConfState, cs) == nil, "group %d: own configuration does not decode", g.id)
	return checkpointOf{group: g.id, inst: g.instance.id, rev: s.LastRev, cp: raftlog.Checkpoint{
		Instance: g.instance.id, State: format.AppendState(nil, s), Index: s.Index, Term: s.Term, ConfState: cs}}
}

// flushSoon starts the background flush unless one runs or nothing is sealed.
func (h *Host) flushSoon() {
	if h.flush.running || len(h.flush.checkpoints) == 0 || h.closing || h.opt.Store.FullOfRuns() {
		return
	}
	h.flush.running = true
	h.opt.Go(h.flushOne)
}

// flushOne writes the oldest sealed delta and tells the loop.
func (h *Host) flushOne(ctx context.Context) {
	start, bytes := h.opt.Clock.Mono(), h.opt.Store.OldestBytes()
	id, ok, err := h.opt.Store.FlushOldest(ctx, h.alive)
	if f := h.opt.Hooks.Flush; f != nil && ok {
		f(h.opt.Clock.Mono()-start, bytes)
	}
	h.control(func() {
		h.flushEnded()
		switch {
		case fault.CodeOf(err) == fault.Overloaded:
			h.opt.Logger.Error("recent writes stay in memory: the disk is full", "error", err)
			return // the next tick tries again
		case err != nil && ctx.Err() == nil:
			h.fail(err)
			return
		case ok && err == nil:
			h.flushed(id)
		}
		h.flushSoon()
		h.tidySoon()
	})
}

// tidySoon starts a merge of small runs, and a move of the oldest ones to the engine
// or else a merge of larger ones, when there are enough of them and none goes on.
func (h *Host) tidySoon() {
	f, s := &h.flush, h.opt.Store
	h.tidy(tidying{&f.merging, &f.tidyAfter, s.NeedMerge, s.MergeRuns, h.opt.Hooks.Merge})
	h.tidy(tidying{&f.moving, &f.moveAfter, s.NeedMove, s.MoveRuns, h.opt.Hooks.Move})
	h.tidy(tidying{&f.moving, &f.tidyAfter, s.NeedMergeLarge, s.MergeLarge, h.opt.Hooks.Merge})
}

// tidying is a job over runs, of which one goes on at a time that has the same running.
type tidying struct {
	running *bool
	after   *time.Duration // not before
	needed  func() bool
	job     func(context.Context) (int64, error)
	hook    func(time.Duration, int64) // may be nil
}

// tidy runs a job over runs and tells the loop.
func (h *Host) tidy(t tidying) {
	if *t.running || h.closing || h.opt.Clock.Mono() < *t.after || !t.needed() {
		return
	}
	*t.running = true
	h.opt.Go(func(ctx context.Context) {
		start := h.opt.Clock.Mono()
		bytes, err := t.job(ctx)
		if t.hook != nil && err == nil {
			t.hook(h.opt.Clock.Mono()-start, bytes)
		}
		h.control(func() { h.tidied(ctx, t, err) })
	})
}

func (h *Host) tidied(ctx context.Context, t tidying, err error) {
	*t.running = false
	switch {
	case fault.CodeOf(err) == fault.Overloaded:
		h.opt.Logger.Error("runs stay where they are: the disk is full", "error", err)
		*t.after = h.opt.Clock.Mono() + tidyRetry // then a tick tries again
		return
	case err != nil && ctx.Err() == nil:
		h.fail(err)
		return
	}
	h.flushSoon()
	h.tidySoon()
}

// flushEnded lets instances be deleted that the flush may have written.
func (h *Host) flushEnded() {
	h.flush.running = false
	for _, i := range h.flush.pinned {
		i.release(h)
	}
	h.flush.pinned = nil
}

// alive reports whether an instance still has a replica; deltas of dead ones
// are skipped.
func (h *Host) alive(id keyspace.InstanceID) bool {
	for _, g := range *h.dir.Load() {
		if p := g.published.Load(); p != nil && p.instance.id == id {
			return true
		}
	}
	return false
}

// flushed records the checkpoints of a durable delta and lets the log go.
func (h *Host) flushed(id mvcc.DeltaID) {
	cps := h.flush.checkpoints[uint64(id)]
	delete(h.flush.checkpoints, uint64(id))
	h.raiseFloor() // by the checkpoints before these, which are durable
	for i := range cps {
		g := h.groups[cps[i].group]
		if g == nil || g.core == nil || g.instance.id != cps[i].inst {
			continue // void: the instance is no longer current
		}
		if g.incoming != nil && g.incoming.switching {
			continue // the switch waits in the batch, on a full disk
		}
		h.batch.Checkpoint(g.id, cps[i].cp)
		g.saved, g.savedRev = cps[i].cp.Index, cps[i].rev
	}
	h.inline = true
	h.compact()
}

// compact lets go of log entries below the checkpoints, except for a tail that
// followers may still need while the log has room.
func (h *Host) compact() {
	tail := keyspace.Index(h.opt.LogTail)
	if h.log.Stats().Bytes > h.opt.LogBytes || h.opt.Witness {
		tail = 0
	}
	for _, g := range h.order {
		if g.saved > tail {
			h.log.Compact(g.id, g.saved-tail+1)
		}
	}
}

// finalFlush makes everything durable outside of the log after the loop ended.
func (h *Host) finalFlush() error {
	h.opt.Store.Hurry()
	h.seal()
	if err := h.Err(); err != nil {
		return err
	}
	for {
		id, ok, err := h.opt.Store.FlushOldest(context.Background(), h.alive)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		h.flushed(id)
	}
	return h.commitBatch(true)
}

const floorMeta = "floor"

// raiseFloor moves the history floor up: below every hosted group's closed
// revision minus the window, and below what a restart replays. It is written
// to the log before the engine may forget anything, and stands still while a
// snapshot is received (DESIGN 10).
func (h *Host) raiseFloor() {
	if h.receiving.Load() > 0 || len(h.order) == 0 || h.stalled {
		return
	}
	window := keyspace.RevisionAt(h.opt.Window.Milliseconds())
	var newest keyspace.Revision
	for _, g := range h.order {
		newest = max(newest, g.core.Closed())
	}
	floor := keyspace.MaxRevision
	for _, g := range h.order {
		floor = min(floor, g.core.OldestPrepared()-1) // a commit may write there, however late
		closed := g.core.Closed()
		if closed+2*window < newest {
			continue // no quorum for a whole window: it stops pinning
		}
		floor = min(floor, closed-min(closed, window))
		if g.core.State().Index > g.saved {
			floor = min(floor, g.savedRev)
		}
	}
	if floor >= keyspace.MaxRevision-1 || floor <= keyspace.Revision(h.floor.Load()) {
		return
	}
	err := h.commitNow(func(b *raftlog.Batch) { b.SetMeta(floorMeta, binary.BigEndian.AppendUint64(nil, uint64(floor))) })
	if fault.CodeOf(err) == fault.Overloaded {
		return // history stays a little longer
	}
	if err != nil {
		h.fail(err)
		return
	}
	h.floor.Store(uint64(floor))
	h.opt.Store.SetFloor(floor)
}

func (h *Host) loadFloor() {
	if b, ok := h.log.Meta(floorMeta); ok && len(b) == 8 {
		h.floor.Store(binary.BigEndian.Uint64(b))
	}
}
