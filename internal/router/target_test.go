package router

import (
	"fmt"
	"testing"

	"kvstore/internal/keyspace"
)

func members(nodes ...keyspace.NodeID) (out []Member) {
	for i, id := range nodes {
		m := Member{Replica: keyspace.ReplicaID(i + 1), Node: id}
		if id[len(id)-1] == '?' {
			m.Node, m.Learner = id[:len(id)-1], true
		}
		out = append(out, m)
	}
	return out
}

func TestWhereAGroupShouldBe(t *testing.T) {
	type ids = []keyspace.NodeID
	for _, c := range []struct {
		name            string
		members, target ids
		replaced        map[keyspace.NodeID]keyspace.NodeID
		removed         map[keyspace.NodeID]bool
		planned, wanted string
		moving          bool
	}{
		{name: "nothing is known", planned: "[]", wanted: "[]"},
		{name: "without a target it is where its voters are", members: ids{"c", "a", "b", "d?"}, planned: "[c a b]", wanted: "[c a b]", moving: true},
		{name: "at rest", members: ids{"a", "b", "c"}, target: ids{"b", "c", "a"}, planned: "[b c a]", wanted: "[b c a]"},
		{name: "one moves", members: ids{"a", "b", "c"}, target: ids{"a", "b", "d"}, planned: "[a b d]", wanted: "[a b d]", moving: true},
		{name: "it is copied", members: ids{"a", "b", "d?"}, target: ids{"a", "b", "d"}, planned: "[a b d]", wanted: "[a b d]", moving: true},
		{name: "one too many", members: ids{"a", "b", "c"}, target: ids{"a"}, planned: "[a]", wanted: "[a]", moving: true},
		{name: "a node came back empty, twice", members: ids{"a", "b", "c"}, target: ids{"a", "b", "c"},
			replaced: map[keyspace.NodeID]keyspace.NodeID{"b": "b2", "b2": "b3"}, planned: "[a b3 c]", wanted: "[a b3 c]", moving: true},
		{name: "old and new are one", members: ids{"a", "b2", "c"}, target: ids{"b", "b2", "c", "a"},
			replaced: map[keyspace.NodeID]keyspace.NodeID{"b": "b2"}, planned: "[b2 c a]", wanted: "[b2 c a]"},
		{name: "the target names a removed node, and nobody waits for it", members: ids{"a", "b"}, target: ids{"a", "b", "c"},
			removed: map[keyspace.NodeID]bool{"c": true}, planned: "[a b c]", wanted: "[a b]"},
		{name: "a removed node still has a voter", members: ids{"a", "b", "c"}, target: ids{"a", "b", "c"},
			removed: map[keyspace.NodeID]bool{"c": true}, planned: "[a b c]", wanted: "[a b]", moving: true},
		{name: "all of the target is removed", members: ids{"a", "b"}, target: ids{"c"},
			removed: map[keyspace.NodeID]bool{"c": true}, planned: "[c]", wanted: "[]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &Map{Groups: 1, Members: map[keyspace.GroupID][]Member{}, Replaced: c.replaced, Removed: c.removed, Targets: map[keyspace.GroupID]Target{}}
			if c.members != nil {
				m.Members[1] = members(c.members...)
			}
			if c.target != nil {
				m.Targets[1] = Target{Nodes: c.target}
			}
			before := fmt.Sprint(m.Targets)
			if got := fmt.Sprint(m.Planned(1)); got != c.planned {
				t.Errorf("planned %s, want %s", got, c.planned)
			}
			if got := fmt.Sprint(m.Wanted(1)); got != c.wanted {
				t.Errorf("wanted %s, want %s", got, c.wanted)
			}
			if got := len(m.Moving()) == 1; got != c.moving {
				t.Errorf("moving %v, want %v", got, c.moving)
			}
			if after := fmt.Sprint(m.Targets); after != before {
				t.Errorf("the shared map changed: %s", after)
			}
		})
	}
}

func TestHeldByCountsLearnersToo(t *testing.T) {
	m := &Map{Groups: 2, Members: map[keyspace.GroupID][]Member{0: members("a", "b"), 1: members("b", "c"), 2: members("c", "a?")}}
	for id, want := range map[keyspace.NodeID]string{"a": "[0 2]", "b": "[0 1]", "c": "[1 2]", "d": "[]"} {
		if got := fmt.Sprint(m.HeldBy(id)); got != want {
			t.Errorf("%s holds %s, want %s", id, got, want)
		}
	}
}
