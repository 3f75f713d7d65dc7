package router

import (
	"slices"

	"kvstore/internal/keyspace"
)

// Wanted returns the nodes that should have a voter of g, the preferred leader
// first: its target with what stands for its nodes now, else where its voters
// are.
func (m *Map) Wanted(g keyspace.GroupID) []keyspace.NodeID {
	var nodes []keyspace.NodeID
	add := func(id keyspace.NodeID) {
		if id = m.Successor(id); !slices.Contains(nodes, id) {
			nodes = append(nodes, id)
		}
	}
	if t, ok := m.Targets[g]; ok && len(t.Nodes) > 0 {
		for _, id := range t.Nodes {
			add(id)
		}
		return nodes
	}
	for _, member := range m.Members[g] {
		if !member.Learner {
			add(member.Node)
		}
	}
	return nodes
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
