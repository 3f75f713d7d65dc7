package host

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/keyspace"
)

// commitNotes hold back what tells a follower only that the commit index moved.
//
// Raft sends that as a message of its own after every commit, and the follower
// answers it; under load the next entries follow at once and say the same. So
// the message waits for the next one to the follower, for a follower's read,
// which may wait for the index, or for the next tick. A follower applies later
// by that much, and nobody else waits for it. Losing one is harmless:
// heartbeats carry the commit index, too.
type commitNotes struct {
	// sent is the last index sent to each follower with entries.
	sent map[keyspace.ReplicaID]uint64
	held map[keyspace.ReplicaID]*raftpb.Message
}

// hold keeps m back if it is such a message; another one to the same follower
// makes what was held superfluous.
func (n *commitNotes) hold(m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgApp {
		return false
	}
	to := keyspace.ReplicaID(m.GetTo())
	delete(n.held, to)
	if entries := m.GetEntries(); len(entries) > 0 {
		if n.sent == nil {
			n.sent, n.held = make(map[keyspace.ReplicaID]uint64), make(map[keyspace.ReplicaID]*raftpb.Message)
		}
		n.sent[to] = entries[len(entries)-1].GetIndex()
		return false
	}
	if last, ok := n.sent[to]; !ok || m.GetIndex() != last {
		return false // it looks for the follower's place in the log
	}
	n.held[to] = m
	return true
}

// releaseCommits sends what is held for a node, or for all ("").
func (h *Host) releaseCommits(g *group, node keyspace.NodeID) {
	if len(g.commits.held) == 0 {
		return
	}
	for _, to := range slices.Sorted(maps.Keys(g.commits.held)) {
		if at := g.nodes[to]; node == "" || at == node {
			m := g.commits.held[to]
			delete(g.commits.held, to)
			if at != "" && m.GetTerm() == uint64(g.term) {
				h.sendRaft(g, at, m)
			}
		}
	}
}
