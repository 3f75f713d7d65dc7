package host

import (
	"errors"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
)

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
			h.appends = append(h.appends, appendTask{g: g, m: m})
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
		g.proposed, g.echo = nil, 0
		g.duty = duty{since: h.opt.Clock.Mono()}
		clear(g.beats.held)
		g.raisedAt = h.opt.Clock.Mono()
		g.acked = commitSamples{}
		g.freeze.nonce = 0
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
	// A transfer makes its target a candidate, without a pre-vote, then the leader.
	g.planned = g.planned && s.RaftState == raft.StateCandidate
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
	if m.GetType() == raftpb.MsgTransferLeader {
		return // asked for in the loop in which the lead was lost; the new leader was not meant
	}
	node := g.nodes[to]
	if to.Witness() {
		if h.withheld(g, m) {
			return
		}
		m = stripped(m)
	}
	if g.commits.hold(m) || h.holdBeat(g, m) || h.hanging.Load() && asksForVotes(m) {
		return
	}
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
	h.sendRaft(g, node, m)
}

func (h *Host) stepRaft(g *group, m *raftpb.Message) {
	if err := g.rn.Step(m); err != nil && !errors.Is(err, raft.ErrProposalDropped) && !errors.Is(err, raft.ErrStepPeerNotFound) {
		h.opt.Logger.Debug("raft refused a message", "group", g.id, "type", m.GetType(), "error", err)
	}
}

// commitNow writes something apart from the loop's batch, durably, and after
// what waits there: a replica that goes would otherwise take the one with it
// that comes in its place.
func (h *Host) commitNow(add func(*raftlog.Batch)) error {
	if err := h.commitBatch(true); err != nil {
		return err
	}
	b := h.log.NewBatch()
	add(b)
	return h.log.Commit(b, true)
}
