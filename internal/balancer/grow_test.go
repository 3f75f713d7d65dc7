package balancer

import (
	"context"
	"fmt"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// withSlots is a map of a record, in which groups that own nothing were added.
func withSlots(m *router.Map, added int, change func(*format.SlotsRecord)) *router.Map {
	r := format.FoundingSlotsRecord(m.Groups)
	for range added {
		m.Groups++
		r.Owners = append(r.Owners, format.SlotOwner{Group: keyspace.GroupID(m.Groups)})
	}
	if change != nil {
		change(&r)
	}
	m.Slots = router.NewSlotMap(&r, 7)
	return m
}

func place3(m *router.Map, g keyspace.GroupID, nodes ...keyspace.NodeID) {
	m.Members[g] = nil
	for _, member := range voters(nodes...) {
		m.Members[g] = append(m.Members[g], router.Member(member))
	}
}

// said is a step of growth in words.
func said(s growth) string {
	switch s.kind {
	case growNothing:
	case growLayout:
		return "layout"
	case growFound:
		return fmt.Sprintf("found %d on %s as %d over %d", s.group, s.founding.Node, s.founding.Replica, s.version)
	case growAdmit:
		return fmt.Sprintf("admit %d", s.group)
	case growForget:
		return fmt.Sprintf("forget %d at %d", s.group, s.version)
	case growMove:
		out := "move"
		for _, move := range s.moves {
			out += fmt.Sprintf(" %d>%d:%d", move.From, move.To, move.Slots.Count())
		}
		return out
	}
	return "nothing"
}

// TestGrowthTakesOneStepAtATime: four nodes and three groups become four groups.
func TestGrowthTakesOneStepAtATime(t *testing.T) {
	auto := func() *router.Map {
		m := threeGroups()
		m.Balance.SplitOff = false
		return m
	}
	founding := func(node keyspace.NodeID, recorded uint64) *router.Map {
		m := withSlots(auto(), 0, nil)
		m.Founding = map[keyspace.GroupID]router.Founding{4: {Node: node, Replica: 1, Version: 3}}
		m.Recorded = map[keyspace.GroupID]router.Recorded{4: {Version: recorded}}
		return m
	}
	four := func(change func(*format.SlotsRecord)) *router.Map {
		m := withSlots(auto(), 1, change)
		place3(m, 4, "d", "a", "b")
		return m
	}
	for _, c := range []struct {
		name string
		m    *router.Map
		want string
	}{
		{"as many groups as nodes", func() *router.Map { m := auto(); delete(m.Nodes, "d"); return m }(), "nothing"},
		{"more nodes, but it is off", threeGroups(), "nothing"},
		{"more nodes, but one is drained", func() *router.Map { m := auto(); n := m.Nodes["d"]; n.Draining = true; m.Nodes["d"] = n; return m }(), "nothing"},
		{"one more, a witness", func() *router.Map { m := auto(); m.Nodes["d"] = router.Node{ID: "d", Witness: true}; return m }(), "nothing"},
		{"a witness founds nothing", func() *router.Map {
			m := withSlots(threeGroups(), 0, nil)
			m.Balance.Groups, m.Nodes["d"] = 4, router.Node{ID: "d", Witness: true}
			return m
		}(), "found 4 on a as 1 over 0"},
		{"more nodes", auto(), "layout"},
		{"with a layout, the emptiest node founds", withSlots(auto(), 0, nil), "found 4 on d as 1 over 0"},
		{"by an operator", func() *router.Map { m := withSlots(threeGroups(), 0, nil); m.Balance.Groups = 9; return m }(), "found 4 on d as 1 over 0"},
		{"while it is founded", founding("d", 0), "nothing"},
		{"its node is gone", founding("x", 0), "found 4 on d as 2 over 3"},
		{"its members are recorded", founding("d", 1), "admit 4"},
		{"its members are recorded, though its node is gone", founding("x", 1), "admit 4"},
		{"it is admitted", func() *router.Map {
			m := four(nil)
			m.Founding = map[keyspace.GroupID]router.Founding{4: {Node: "d", Replica: 1, Version: 3}}
			return m
		}(), "forget 4 at 3"},
		{"it has one replica yet", func() *router.Map { m := four(nil); place3(m, 4, "d"); return m }(), "nothing"},
		{"it is complete", four(nil), "move 1>4:342"},
		{"nothing is planned", func() *router.Map { m := four(nil); m.Balance.HoldSlots = true; return m }(), "nothing"},
		{"a group takes part in one move", four(func(r *format.SlotsRecord) {
			r.Moves = []format.SlotMoveRecord{{ID: 1, From: 1, To: 4, Slots: format.FoundingSlots(1, 16)}}
			r.NextMove = 2
		}), "nothing"},
		{"a sender is not complete", func() *router.Map { m := four(nil); place3(m, 1, "a", "b"); return m }(), "move 2>4:341"},
	} {
		if got := said(nextGrowth(c.m)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestGroupsAreFoundedWhereTheRecordSays: once, on the node that it names.
func TestGroupsAreFoundedWhereTheRecordSays(t *testing.T) {
	m := withSlots(threeGroups(), 0, nil)
	m.Founding = map[keyspace.GroupID]router.Founding{4: {Node: "a", Replica: 1}}
	c := &fakeCluster{m: m, group: host.GroupStatus{Group: 1}}
	for _, node := range []keyspace.NodeID{"b", "a"} {
		b := newBalancer(t, c)
		b.o.Node = node
		b.found(t.Context(), m)
	}
	if len(c.founded) != 1 || c.founded[0].Group != 4 || c.founded[0].Self != 1 || !c.founded[0].Slots.Empty() {
		t.Fatalf("founded %+v", c.founded)
	}
	m.Recorded = map[keyspace.GroupID]router.Recorded{4: {Version: 1}}
	b := newBalancer(t, c)
	b.o.Node = "a"
	b.found(t.Context(), m)
	if len(c.founded) != 1 {
		t.Fatal("a group that was recorded is founded again")
	}
}

// TestAFoundedGroupIsRecordedWithItsFounding: the first record of the members
// changes the founding too, so that only the one who holds it counts.
func TestAFoundedGroupIsRecordedWithItsFounding(t *testing.T) {
	m := threeGroups()
	m.Founding = map[keyspace.GroupID]router.Founding{4: {Node: "a", Replica: 1, Version: 3}}
	g := host.GroupStatus{Group: 4, Replica: 1, Term: 2, Role: "leader", Serving: true, Members: voters("a")}
	for _, test := range []struct {
		node    keyspace.NodeID
		replica keyspace.ReplicaID
		fail    error
		batches int
		code    fault.Code
	}{
		{"a", 1, nil, 1, ""},
		{"a", 2, nil, 0, fault.FailedPrecondition},
		{"b", 1, nil, 0, fault.FailedPrecondition},
		{"a", 1, fault.New(fault.ConditionFailed, "another version"), 1, fault.ConditionFailed},
	} {
		c := &fakeCluster{m: m, fail: test.fail}
		b := newBalancer(t, c)
		b.o.Node = test.node
		g.Replica = test.replica
		err := b.record(context.Background(), &g, m)
		if len(c.batches) != test.batches || fault.CodeOf(err) != test.code {
			t.Errorf("%+v: %d batches, %v", test, len(c.batches), err)
			continue
		}
		if test.batches == 1 {
			items := c.batches[0].Items
			if !c.batches[0].Atomic || items[0].Key != "group/4" || *items[0].Condition.VersionMatch != 0 ||
				items[1].Key != "founding/4" || *items[1].Condition.VersionMatch != 3 {
				t.Errorf("%+v", items)
			}
		}
	}
}

// TestANodeThatIsGoneRecordsNothing: what it leads may have been founded anew.
func TestANodeThatIsGoneRecordsNothing(t *testing.T) {
	m := threeGroups()
	m.Removed = map[keyspace.NodeID]bool{"a": true}
	c := &fakeCluster{m: m}
	b := newBalancer(t, c)
	b.o.Node = "a"
	g := host.GroupStatus{Group: 1, Replica: 1, Term: 2, Members: voters("a")}
	if err := b.record(t.Context(), &g, m); fault.CodeOf(err) != fault.FailedPrecondition || len(c.records) > 0 {
		t.Fatalf("%v, %v", err, c.records)
	}
}

func newBalancer(t *testing.T, c *fakeCluster) *Balancer {
	t.Helper()
	b, err := New(Options{Host: c, Store: c, Directory: c, Rand: noRand{}, Clock: noClock{}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
