package host

import (
	"errors"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
)

// appendTask is a MsgStorageAppend that waits for the one write of this loop.
type appendTask struct {
	g *group
	m *raftpb.Message
}

// ready takes a group's Ready: messages go out at once, appends wait for the
// shared write, committed entries for applyAll.
func (h *Host) ready(g *group) {
	rd := g.rn.Ready()
	if rd.SoftState != nil {
		h.softState(g, rd.SoftState)
	}
	for i := range rd.ReadStates {
		h.readConfirmed(g, &rd.ReadStates[i])
	}
	for _, m := range rd.Messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			h.appends = append(h.appends, appendTask{g, m})
		case raft.LocalApplyThread:
			g.applying = append(g.applying, m)
		default:
			h.send(g, m)
		}
	}
}

// softState follows changes of role and leader.
func (h *Host) softState(g *group, s *raft.SoftState) {
	g.leader = keyspace.ReplicaID(s.Lead)
	g.raftRole = s.RaftState
	g.term = keyspace.Term(g.rn.BasicStatus().GetTerm())
	term, leading := g.core.Leading()
	switch {
	case s.RaftState == raft.StateLeader && (!leading || term != g.term):
		g.core.BecomeLeader(g.term)
		g.raisedAt = h.opt.Clock.Mono()
		g.transferring = false
		g.transferNext = h.opt.Clock.Mono() + 2*h.opt.electionTimeout()
		if f := h.opt.Hooks.Election; f != nil {
			f(g.id, g.planned)
		}
		h.opt.Logger.Info("leading", "group", g.id, "replica", g.replica, "term", g.term)
	case s.RaftState != raft.StateLeader && leading:
		p := *g.published.Load()
		p.leaderNode = g.nodes[g.leader]
		g.core.StepDown(wrongLeader(g.id, &p))
		g.transferring = false
		g.answerDigests(0, wrongLeader(g.id, &p))
		if g.conf != nil {
			g.conf.done(fault.New(fault.UnknownOutcome, "leadership was lost during the membership change", "group", g.id))
			g.conf = nil
		}
	}
	g.planned = false
	h.requeueReads(g)
	g.dirty = true
	h.publish(g)
	h.updateStatus(g)
}

// send hands a raft message to the transport.
func (h *Host) send(g *group, m *raftpb.Message) {
	to := keyspace.ReplicaID(m.GetTo())
	if to == g.replica {
		h.stepRaft(g, m)
		return
	}
	node := g.nodes[to]
	switch {
	case m.GetType() == raftpb.MsgSnap && node == "":
		g.rn.ReportSnapshot(uint64(to), raft.SnapshotFailure)
		return
	case m.GetType() == raftpb.MsgSnap:
		h.sendSnapshot(g, node, m)
		return
	case node == "":
		return
	}
	h.opt.Out.Send(node, &api.GroupMessage{Group: uint32(g.id), Body: &api.GroupMessage_Raft{Raft: mustMarshal(m)}})
}

func (h *Host) stepRaft(g *group, m *raftpb.Message) {
	if err := g.rn.Step(m); err != nil && !errors.Is(err, raft.ErrProposalDropped) && !errors.Is(err, raft.ErrStepPeerNotFound) {
		h.opt.Logger.Debug("raft refused a message", "group", g.id, "type", m.GetType(), "error", err)
	}
}

// commit writes what all groups must keep with at most one fdatasync, then
// delivers the responses that waited for it. No acknowledgement leaves before.
//
// On a full disk nothing was written and nothing is delivered: the batch stays,
// no group goes on, and every tick tries again. Leaders here lose their
// leadership meanwhile, as if the node were cut off.
func (h *Host) commit() error {
	if !h.stalled {
		for _, t := range h.appends {
			h.writeAppend(t.g, t.m)
		}
	}
	err := h.commitBatch(h.sync && !h.opt.Bugs.Has(invariant.BugAckBeforeFsync))
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
	h.stalled, h.sync = false, false
	for _, t := range h.appends {
		h.finishAppend(t.g, t.m)
	}
	clear(h.appends)
	h.appends = h.appends[:0]
	return nil
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

// commitNow writes something apart from the loop's batch, durably.
func (h *Host) commitNow(add func(*raftlog.Batch)) error {
	b := h.log.NewBatch()
	add(b)
	return h.log.Commit(b, true)
}

func (h *Host) writeAppend(g *group, m *raftpb.Message) {
	if !raft.IsEmptySnap(m.GetSnapshot()) {
		h.writeSwitch(g, m.GetSnapshot())
		h.sync = true
	}
	if entries := m.GetEntries(); len(entries) > 0 {
		h.batch.Entries(g.id, entries)
		h.sync = true
	}
	if m.Term == nil && m.Vote == nil && m.Commit == nil {
		return
	}
	hs := hardState{m.GetTerm(), m.GetVote(), m.GetCommit()}
	if hs.term != g.hard.term || hs.vote != g.hard.vote {
		h.sync = true
	}
	g.hard = hs
	if !h.opt.Bugs.Has(invariant.BugHardStateLost) {
		h.batch.HardState(g.id, &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit})
	}
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
