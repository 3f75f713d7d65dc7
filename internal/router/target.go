package router

import (
	"slices"

	"kvstore/internal/keyspace"
)

// Planned returns the nodes that should have a voter of g, the preferred leader
// first: its target with what stands for its nodes now, else where its voters
// are. Nodes that were removed are among them until others take their places.
func (m *Map) Planned(g keyspace.GroupID) []keyspace.NodeID {
	nodes := m.standing(m.Targets[g].Nodes)
	if len(nodes) > 0 {
		return nodes
	}
	var voters []keyspace.NodeID
	for _, member := range m.Members[g] {
		if !member.Learner {
			voters = append(voters, member.Node)
		}
	}
	return m.standing(voters)
}

// standing are the nodes that stand for others now, each once.
func (m *Map) standing(ids []keyspace.NodeID) (nodes []keyspace.NodeID) {
	for _, id := range ids {
		if id = m.Successor(id); !slices.Contains(nodes, id) {
			nodes = append(nodes, id)
		}
	}
	return nodes
}

// Wanted is Planned without the nodes that were removed: they get nothing, and
// nobody waits for them.
func (m *Map) Wanted(g keyspace.GroupID) []keyspace.NodeID {
	return slices.DeleteFunc(m.Planned(g), func(id keyspace.NodeID) bool { return m.Removed[id] })
}

// Moving returns the groups whose voters are not where they should be, in
// order.
func (m *Map) Moving() []keyspace.GroupID {
	var groups []keyspace.GroupID
	for g := range keyspace.GroupID(m.Groups + 1) {
		if want := m.Wanted(g); len(m.Members[g]) > 0 && len(want) > 0 && !sameVoters(m.Members[g], want) {
			groups = append(groups, g)
		}
	}
	return groups
}

func sameVoters(members []Member, want []keyspace.NodeID) bool {
	if len(members) != len(want) {
		return false
	}
	for _, member := range members {
		if member.Learner || !slices.Contains(want, member.Node) {
			return false
		}
	}
	return true
}
