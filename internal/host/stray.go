package host

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// Strays. A replica that was taken out of its group must not vanish as soon as
// it knows: of two voters one may be taken out, commit that with its own vote,
// and the other may restart without knowing that it was committed; it then needs
// the vote again. Nor does it always know: one that was down or cut off
// meanwhile never sees the entry, since nobody sends to it any more.
//
// So both ask: the one that knows at once, the one that has had no leader for
// long. They ask their last members and the nodes where the group is meant to
// be, and go when a leader says that their id is gone. That is final: ids are
// never used again (DESIGN 5), and a leader says so only once a quorum of those
// who stay knows durably that the change is committed (quorumKnows); that the
// leader knows is not enough, since it may be the next to be lost. Until then
// they vote and acknowledge when asked. Silence changes nothing.

// strayAfter is how many election timeouts without a leader make a replica ask;
// one of them is enough to believe the answer.
const strayAfter = 5

// askWhenStray asks about this replica's membership, a few times per election
// timeout.
func (h *Host) askWhenStray(g *group) {
	if g.removed() && h.opt.Bugs.Has(invariant.BugRemovedVanishes) {
		h.control(func() {
			if h.groups[g.id] == g {
				h.giveUpReplica(g)
			}
		})
		return
	}
	g.leaderless++
	if g.leader == g.replica {
		g.leaderless = 0
	}
	if every := max(1, h.opt.ElectionTicks/3); g.leaderless == 0 || g.leaderless%every != 0 ||
		!g.removed() && g.leaderless < strayAfter*h.opt.ElectionTicks {
		return
	}
	nodes := slices.Clone(g.guide)
	for _, m := range g.core.State().Members {
		nodes = append(nodes, m.Node)
	}
	h.askMembership(g, nodes)
}

// askDamaged asks about the replicas that do not run: one that is no member is
// replaced by nobody.
func (h *Host) askDamaged() {
	if len(h.groups) == len(h.order) || h.ticks%uint64(strayAfter*h.opt.ElectionTicks) != 0 {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(h.groups)) {
		if g := h.groups[id]; g.quarantined != "" && g.replica != 0 {
			h.askMembership(g, slices.Clone(g.guide))
		}
	}
}

// hear notes that a leader speaks to this replica. raft itself forgets its leader
// only where it may campaign, which a learner may not.
func (g *group) hear(m *raftpb.Message) {
	if t := m.GetType(); t == raftpb.MsgHeartbeat || t == raftpb.MsgApp || t == raftpb.MsgSnap {
		g.leaderless = 0
	}
}

func (h *Host) askMembership(g *group, nodes []keyspace.NodeID) {
	slices.Sort(nodes)
	for _, node := range slices.Compact(nodes) {
		if node != h.opt.Node {
			h.opt.Out.Send(node, &api.GroupMessage{Group: uint32(g.id), Body: &api.GroupMessage_AsksReplica{AsksReplica: uint64(g.replica)}})
		}
	}
}

// answerStray tells a replica that it is no member any more, if a quorum of
// this leader's group knows.
func (h *Host) answerStray(g *group, from keyspace.NodeID, id keyspace.ReplicaID) {
	s := g.core.State()
	member := slices.ContainsFunc(s.Members, func(m format.Member) bool { return m.Replica == id })
	if member || id.Number() >= s.NextID || !g.core.Serving(h.now(g)) || !h.quorumKnows(g) {
		return
	}
	h.opt.Out.Send(from, &api.GroupMessage{Group: uint32(g.id), Body: &api.GroupMessage_RemovedReplica{RemovedReplica: uint64(id)}})
}

// quorumKnows reports whether a quorum of the members knows durably that the
// last change of them is committed. Whoever acknowledged an entry that was
// proposed here after that does: the entry came with the commit index, and that
// is kept with it (writeAppend). If there is none yet, one is proposed.
func (h *Host) quorumKnows(g *group) bool {
	s := g.core.State()
	if g.echo == 0 && !h.stalled {
		// All that raft has was written in the last loop.
		if last, err := g.storage.LastIndex(); err == nil {
			g.echo = keyspace.Index(last) + 1
		}
	}
	if g.echo != 0 && s.Index >= g.echo {
		return true
	}
	ahead := keyspace.RevisionAt(h.now(g).Physical + h.opt.electionTimeout().Milliseconds())
	if g.core.RaiseCeiling(max(ahead, s.Ceiling+1)) {
		g.dirty = true
	}
	return false
}

// wasRemoved gives up this replica.
func (h *Host) wasRemoved(g *group, id keyspace.ReplicaID) {
	if g.replica == id && (g.leaderless >= h.opt.ElectionTicks || g.quarantined != "" || g.removed()) {
		h.giveUpReplica(g)
	}
}

// removed reports whether this replica knows that it is no member.
func (g *group) removed() bool {
	s := g.core.State()
	return len(s.Members) > 0 && s.Index >= g.replayTo && !slices.ContainsFunc(s.Members, func(m format.Member) bool { return m.Replica == g.replica })
}
