package host

import (
	"context"
	"io"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
)

// Witnesses (DESIGN 11). A witness is a voter that keeps terms and indexes and no
// data: the third vote of a group with two copies.
//
// What makes it safe is raft alone. Its log says which entries it acknowledged,
// durably, and it votes for nobody whose log ends before its own. So an entry
// that a data replica and the witness have is either in the log of whoever leads
// next, or nobody leads: where that one data replica is down, the other one, whose
// log is shorter, does not get the witness's vote. The group waits until the
// replica with the entry is back; an acknowledged write is never lost silently.
// `kvctl cluster recover` is the way out when it never comes back, and says what
// the witness knows of: up to which index something was acknowledged.
//
// What makes it useful is that it does not know more than it must. The more
// entries a witness has, the fewer replicas get its vote. So the leader keeps
// appends from it while all data replicas acknowledge (type duty), what is
// acknowledged is then in all of them, and any one may be lost.
//
// The sender strips entries: what a witness never gets it cannot leak, and a
// stripped entry is a record of 16 bytes in its log. Membership changes stay
// whole, so that it knows whom to ask whether it is still needed (stray.go). A
// snapshot for it is the applied state without a record. It applies by counting,
// and its checkpoint needs no flush.
//
// It must never lead. The tried way, raft with a campaign that the host
// intercepts, leaves a candidate behind that has given up its leader. So raft on a
// witness is shown a membership in which this replica is a learner (asLearner):
// one that may vote, as every learner may, and never asks for votes, not even when
// TimeoutNow tells it to. Changes of the membership are applied beside raft
// (adoptConf). Only whoever campaigns needs the true one, and what is stored is
// that.

// positionEvery is after how many entries a witness lets go of its log.
const positionEvery = 4096

// hasWitness reports whether a member, voter or not, is a witness.
func (g *group) hasWitness() bool {
	return slices.ContainsFunc(g.core.State().Members, format.Member.Witness)
}

// stripped returns m as a witness gets it: without what entries carry.
func stripped(m *raftpb.Message) *raftpb.Message {
	if len(m.GetEntries()) == 0 {
		return m
	}
	out := &raftpb.Message{Type: m.Type, To: m.To, From: m.From, Term: m.Term, LogTerm: m.LogTerm, Index: m.Index, Commit: m.Commit,
		Entries: make([]*raftpb.Entry, len(m.GetEntries()))}
	for i, e := range m.GetEntries() {
		if e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 {
			e = &raftpb.Entry{Term: e.Term, Index: e.Index, Type: e.Type, Data: format.Stripped()}
		}
		out.Entries[i] = e
	}
	return out
}

// sendPosition streams a snapshot to a witness: its header is all of it.
func (h *Host) sendPosition(g *group, header *api.SnapshotHeader) {
	h.opt.Go(func(ctx context.Context) {
		err := h.opt.Snapshots.SendSnapshot(ctx, header, func() ([]byte, error) { return nil, io.EOF })
		h.control(func() {
			if h.groups[g.id] != g {
				return
			}
			status := raft.SnapshotFinish
			if err != nil {
				status = raft.SnapshotFailure
				h.opt.Logger.Debug("a witness did not take a position", "group", g.id, "to", header.GetToNode(), "error", err)
			}
			g.rn.ReportSnapshot(header.GetToReplica(), status)
		})
	})
}

// voterOnly shows raft on a witness the membership in which it is a learner.
type voterOnly struct {
	*raftlog.GroupStorage
	replica keyspace.ReplicaID
}

func (s voterOnly) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs, cs, err := s.GroupStorage.InitialState()
	demote(cs, s.replica)
	return hs, cs, err
}

func (h *Host) raftStorage(g *group) raft.Storage {
	if !g.replica.Witness() || h.opt.Bugs.Has(invariant.BugWitnessCampaigns) {
		return g.storage
	}
	return voterOnly{g.storage, g.replica}
}

// demote makes a voter of cs a learner.
func demote(cs *raftpb.ConfState, r keyspace.ReplicaID) {
	is := func(id uint64) bool { return id == uint64(r) }
	if !slices.ContainsFunc(slices.Concat(cs.GetVoters(), cs.GetVotersOutgoing()), is) {
		return
	}
	cs.Voters = slices.DeleteFunc(cs.Voters, is)
	cs.VotersOutgoing = slices.DeleteFunc(cs.VotersOutgoing, is)
	cs.LearnersNext = slices.DeleteFunc(cs.LearnersNext, is)
	if !slices.ContainsFunc(cs.Learners, is) {
		cs.Learners = append(cs.Learners, uint64(r))
	}
	invariant.Assert(len(cs.Voters) > 0, "witness %v is the only voter", r)
}

// asLearner changes a snapshot as a witness's raft is to see it.
func (h *Host) asLearner(g *group, m *raftpb.Message) {
	if g.replica.Witness() && !h.opt.Bugs.Has(invariant.BugWitnessCampaigns) {
		demote(m.GetSnapshot().GetMetadata().GetConfState(), g.replica)
	}
}

// adoptConf takes a membership change in and returns the membership after it.
func (h *Host) adoptConf(g *group, cc *raftpb.ConfChangeV2) (*raftpb.ConfState, error) {
	if g.replica.Witness() && !h.opt.Bugs.Has(invariant.BugWitnessCampaigns) {
		return confAfter(g.replica, appliedConf(g), cc)
	}
	return g.rn.ApplyConfChange(cc), nil
}

// keepPositions records where the witnesses here are that applied as many entries
// since their last checkpoint. There is nothing to flush before.
func (h *Host) keepPositions(entries keyspace.Index) {
	kept := false
	for _, g := range h.order {
		if s := g.core.State(); s.Index < g.saved+entries || g.incoming != nil {
			continue
		}
		c := h.checkpointOf(g)
		h.batch.Checkpoint(g.id, c.cp)
		g.saved, g.savedRev, kept = c.cp.Index, c.rev, true
	}
	if kept {
		h.inline = true
		h.compact()
	}
}

// leaderOf is who leads as far as this replica knows. Raft forgets a leader that
// is silent only where it may campaign.
func (h *Host) leaderOf(g *group) keyspace.ReplicaID {
	if g.leaderless >= h.opt.ElectionTicks && (g.replica.Witness() || g.learner()) {
		return 0
	}
	return g.leader
}

func (g *group) learner() bool {
	return slices.ContainsFunc(g.core.State().Members, func(m format.Member) bool { return m.Replica == g.replica && m.Learner })
}

// plantBlindVote is BugWitnessVotesBlind: every candidate's log looks long enough.
func (h *Host) plantBlindVote(g *group, m *raftpb.Message) {
	if asksForVotes(m) && g.replica.Witness() && h.opt.Bugs.Has(invariant.BugWitnessVotesBlind) {
		m.LogTerm = m.Term
	}
}
