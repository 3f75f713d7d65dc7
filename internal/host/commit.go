package host

import (
	"context"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/fault"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
)

// appendTask is a MsgStorageAppend. It waits for the one write of this loop,
// and its responses for the sync of the frame that the write made.
type appendTask struct {
	g *group
	m *raftpb.Message
	// wrote: the write has something of it that must be durable first.
	wrote bool
	// promised: a term or a vote is among that.
	promised bool
	// lags: the entries may be applied before they are durable here.
	lags  bool
	at    time.Duration // when it began to
	frame uint64
}

// syncState is the one sync that runs beside the loop.
//
// The loop commits to the log and does not wait for the disk: while a sync runs it
// goes on to take messages, send, apply and commit, and all that was committed
// meanwhile is written and made durable by the next one. Responses wait in
// queue, in order, for the frame they stand for; no acknowledgement leaves
// before. A leader holds new proposals of a group back while one of that group
// waits for its sync and does not lag, so that what arrives meanwhile becomes one
// entry: syncs in a row, each for as much as there is, pace everything.
//
// What must not be overtaken (a switch to a snapshot, a checkpoint, a removed
// replica) is synced within its loop, which covers all that was written before.
type syncState struct {
	running bool
	queue   []appendTask
	err     error
	lag     lag
	// since is when the running sync began, 0 for none; never 0 while one runs.
	since atomic.Int64
}

// age is how long the sync has run that runs at mono, 0 for none.
func (s *syncState) age(mono time.Duration) time.Duration {
	since := time.Duration(s.since.Load())
	if since == 0 {
		return 0
	}
	return max(0, mono-since)
}

// commit writes what all groups must keep, starts the sync that makes it
// durable, and delivers the responses that wait for nothing.
//
// On a full disk nothing was written and nothing is delivered: the batch stays,
// no group goes on, and every tick tries again. Leaders here lose their
// leadership meanwhile, as if the node were cut off.
func (h *Host) commit() error {
	if h.syncs.err != nil {
		return h.syncs.err
	}
	if !h.stalled {
		for i := range h.appends {
			t := &h.appends[i]
			t.wrote, t.promised = h.writeAppend(t.g, t.m)
		}
	}
	err := h.commitBatch(h.inline && !h.opt.Bugs.Has(invariant.BugAckBeforeFsync))
	if fault.CodeOf(err) == fault.Overloaded {
		if !h.stalled {
			h.opt.Logger.Error("the disk of the raft log is full; this node waits", "error", err)
		}
		h.stalled = true
		return nil
	}
	if err != nil {
		return err
	}
	h.stalled, h.inline = false, false
	h.deliverDurable()
	h.queueAppends()
	h.startSync()
	return nil
}

// queueAppends lets the tasks of this loop wait for their frame, except for
// those that wrote nothing and have nothing to say, or follow nothing that waits.
func (h *Host) queueAppends() {
	frame := h.log.Written()
	settled := h.log.Durable() >= frame || h.opt.Bugs.Has(invariant.BugAckBeforeFsync)
	for _, t := range h.appends {
		silent := t.g.unsynced == 0 || len(t.m.GetResponses()) == 0
		if settled || silent && !t.wrote {
			h.finishAppend(t.g, t.m)
			continue
		}
		t.frame = frame
		if h.mayLag(&t) {
			h.letLag(&t)
		}
		t.g.unsynced++
		h.syncs.queue = append(h.syncs.queue, t)
	}
	clear(h.appends)
	h.appends = h.appends[:0]
}

// startSync syncs what responses wait for, unless a sync runs or all of it can wait
// for the next one.
func (h *Host) startSync() {
	if h.syncs.running || len(h.syncs.queue) == 0 || h.lags() {
		return
	}
	s := h.log.BeginSync()
	if s == nil {
		return
	}
	h.syncs.running = true
	h.noteSync()
	h.syncs.since.Store(int64(max(1, h.opt.Clock.Mono())))
	h.opt.Go(func(context.Context) {
		err := s.Run()
		h.control(func() { h.syncEnded(s, err) })
	})
}

// syncEnded delivers what became durable; commit starts the next sync when
// this loop has written what it has.
func (h *Host) syncEnded(s *raftlog.PendingSync, err error) {
	h.syncs.running = false
	h.hangEnded(h.SyncRunning())
	h.syncs.since.Store(0)
	if err := h.log.EndSync(s, err); err != nil {
		h.syncs.err = err
		return
	}
	h.pace.observe(s.Took(), h.opt.Clock.Mono())
	h.deliverDurable()
}

// deliverDurable delivers the responses whose frames are durable.
func (h *Host) deliverDurable() {
	durable, n := h.log.Durable(), 0
	for ; n < len(h.syncs.queue) && h.syncs.queue[n].frame <= durable; n++ {
		t := h.syncs.queue[n]
		t.g.unsynced--
		if t.lags {
			t.g.lagging--
		}
		t.g.dirty = true
		h.finishAppend(t.g, t.m)
	}
	rest := copy(h.syncs.queue, h.syncs.queue[n:])
	clear(h.syncs.queue[rest:])
	h.syncs.queue = h.syncs.queue[:rest]
	if rest == 0 {
		h.syncs.lag.since = 0
	}
}

func (h *Host) commitBatch(sync bool) error {
	if h.batch.Empty() {
		return nil
	}
	err := h.log.Commit(h.batch, sync)
	if err == nil {
		h.batch.Reset()
	}
	return err
}

// writeAppend adds an append to the loop's write and reports whether there was
// anything to add, and whether a term or a vote is promised with it.
func (h *Host) writeAppend(g *group, m *raftpb.Message) (wrote, promised bool) {
	if !raft.IsEmptySnap(m.GetSnapshot()) {
		h.writeSwitch(g, m.GetSnapshot())
		h.inline, wrote = true, true
	}
	if entries := m.GetEntries(); len(entries) > 0 {
		h.batch.Entries(g.id, entries)
		wrote = true
	}
	if m.Term != nil || m.Vote != nil || m.Commit != nil {
		g.hard = hardState{m.GetTerm(), m.GetVote(), m.GetCommit()}
	} else if h.opt.Bugs.Has(invariant.BugCommitForgotten) {
		return wrote, false
	}
	promised = g.hard.term != g.kept.term || g.hard.vote != g.kept.vote
	if !promised && !wrote || g.hard == g.kept {
		// Only the commit index moved, if anything. Alone it is no promise: a
		// restart learns it from the leader, and knows what its checkpoint covers.
		// With the next entries it is one. raft lets the members change again only
		// when the last change is committed, and a leader tells that with the
		// entry; so whoever has the second change knows the first, and nobody
		// votes by members that are two changes old. A restart must know no less.
		return wrote, promised
	}
	g.kept = g.hard
	if !h.opt.Bugs.Has(invariant.BugHardStateLost) {
		h.batch.HardState(g.id, &raftpb.HardState{Term: &g.kept.term, Vote: &g.kept.vote, Commit: &g.kept.commit})
	}
	return true, promised
}

// finishAppend delivers what waited for durability.
func (h *Host) finishAppend(g *group, m *raftpb.Message) {
	if !raft.IsEmptySnap(m.GetSnapshot()) {
		h.switched(g, m.GetSnapshot())
	}
	for _, r := range m.GetResponses() {
		if keyspace.ReplicaID(r.GetTo()) == g.replica {
			h.stepRaft(g, r)
		} else {
			h.send(g, r)
		}
	}
}
