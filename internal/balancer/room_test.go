package balancer

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// move gives groups a target, as an earlier round wrote it.
func move(m *router.Map, reason string, nodes map[keyspace.GroupID][]keyspace.NodeID) {
	if m.Targets == nil {
		m.Targets = map[keyspace.GroupID]router.Target{}
	}
	for g, to := range nodes {
		m.Targets[g] = router.Target{Nodes: to, Reason: reason}
	}
}

// A node dies while as many groups as may move are on their way to it: they are
// sent elsewhere, though nothing else could begin.
func TestMovesToADeadNodeAreTurned(t *testing.T) {
	m := threeGroups()
	move(m, "balance", map[keyspace.GroupID][]keyspace.NodeID{2: {"c", "a", "d"}, 3: {"a", "b", "d"}})
	m.Dead = map[keyspace.NodeID]bool{"d": true}
	b, store := newPlacer(t, m, Options{ReplaceAfter: time.Minute, Silent: func(id keyspace.NodeID) time.Duration {
		if id == "d" {
			return time.Hour
		}
		return 0
	}})
	b.place(t.Context(), m)
	want := []string{"target/2 [c a b] node is silent at version 0", "target/3 [a b c] node is silent at version 0"}
	if got := store.written(t); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("written %q\nwant %q", got, want)
	}
}

// Moves that do not end, for whatever reason, do not keep a dead node from
// being replaced.
func TestADeadNodeIsReplacedBesideMovesThatDoNotEnd(t *testing.T) {
	m := threeGroups()
	m.Nodes["e"] = router.Node{ID: "e"}
	move(m, "balance", map[keyspace.GroupID][]keyspace.NodeID{2: {"a", "b", "d"}, 3: {"a", "b", "d"}})
	m.Dead = map[keyspace.NodeID]bool{"c": true}
	silent := func(id keyspace.NodeID) time.Duration {
		if id == "c" {
			return time.Hour
		}
		return 0
	}
	b, store := newPlacer(t, m, Options{ReplaceAfter: time.Minute, Silent: silent})
	b.place(t.Context(), m)
	if moves := movesOf(t, store, m); moves != 2 {
		t.Fatalf("%d groups leave the dead node, want 2: %q", moves, store.written(t))
	}
}

// A node that was removed by force leaves its groups one voter short, more of
// them than may move at a time. They get their voter back, a few at a time.
func TestGroupsOfARemovedNodeAreFilledUp(t *testing.T) {
	m := threeGroups()
	move(m, "balance", map[keyspace.GroupID][]keyspace.NodeID{0: {"a", "b", "c"}, 1: {"b", "a", "c"}, 2: {"a", "b", "c"}, 3: {"a", "b", "c"}})
	delete(m.Nodes, "c")
	m.Removed = map[keyspace.NodeID]bool{"c": true}
	for g := range keyspace.GroupID(4) { // its voters are dropped already
		m.Members[g] = []router.Member{{Replica: 1, Node: "a"}, {Replica: 2, Node: "b"}}
	}
	b, store := newPlacer(t, m, Options{})
	b.place(t.Context(), m)
	if moves := movesOf(t, store, m); moves != 2 {
		t.Fatalf("%d groups get a third voter, want 2: %q", moves, store.written(t))
	}
}

// Of three nodes two were removed, as after a recovery, and one comes: it gets a
// copy, though the place of the third one stays empty. A witness that is there
// breaks the tie of the two that are, not of those that were named.
func TestRemovedNodesAreNotNamedAgain(t *testing.T) {
	for _, witness := range []bool{false, true} {
		m := threeGroups()
		m.Removed, m.Targets = map[keyspace.NodeID]bool{"b": true, "c": true}, map[keyspace.GroupID]router.Target{}
		delete(m.Nodes, "b")
		delete(m.Nodes, "c")
		m.Nodes["d"] = router.Node{ID: "d", Name: "d"}
		want := "a d"
		if witness {
			m.Nodes["w"] = router.Node{ID: "w", Name: "w", Witness: true}
			want = "a d w"
		}
		for g := range keyspace.GroupID(m.Groups + 1) {
			m.Members[g] = []router.Member{{Replica: 1025, Node: "a"}}
			m.Targets[g] = router.Target{Nodes: []keyspace.NodeID{"b", "a", "c"}}
		}
		b, store := newPlacer(t, m, Options{Silent: func(id keyspace.NodeID) time.Duration {
			if m.Removed[id] {
				return time.Hour
			}
			return 0
		}})
		b.place(t.Context(), m)
		if moves := movesOf(t, store, m); moves != 2 {
			t.Fatalf("%d groups get a second copy, want 2: %q", moves, store.written(t))
		}
		for _, p := range store.puts {
			r, err := format.DecodeSystem[format.TargetRecord](p.GetKey(), p.GetValue())
			names := strings.Fields(strings.Trim(fmt.Sprint(r.Nodes), "[]"))
			slices.Sort(names)
			if err != nil || strings.Join(names, " ") != want || r.Reason != reasonRemoved {
				t.Errorf("target %+v, %v; want %s", r, err, want)
			}
		}
	}
}

// Nodes of which no record is written yet have no zone and no weight that is
// known; nothing is planned with those.
func TestNothingIsPlannedBeforeTheNodesAreKnown(t *testing.T) {
	m := threeGroups()
	m.Nodes["b"] = router.Node{ID: "b", Unrecorded: true}
	silent := time.Duration(0)
	b, store := newPlacer(t, m, Options{ReplaceAfter: time.Minute, Silent: func(id keyspace.NodeID) time.Duration {
		if id == "b" {
			return silent
		}
		return 0
	}})
	b.place(t.Context(), m)
	if len(store.puts) > 0 {
		t.Fatalf("written: %q", store.written(t))
	}
	silent = time.Hour // it was never heard of and is not waited for
	m.Dead = map[keyspace.NodeID]bool{"b": true}
	b.place(t.Context(), m)
	if len(store.puts) == 0 {
		t.Fatal("a node that never came stops everything")
	}
}

// A replica is recorded before anything is built on it: a node whose replicas
// are not recorded could be removed as one that holds nothing.
func TestNoStepBeforeTheMembersAreRecorded(t *testing.T) {
	c := &fakeCluster{
		m: topology(map[keyspace.NodeID]keyspace.NodeID{"b": "b2"}, "a", "b2", "c"),
		group: host.GroupStatus{Group: 3, Replica: 1, Role: "leader", Serving: true, Term: 2, Commit: 50,
			Members: voters("a", "b", "c")},
	}
	store := &records{fail: fault.New(fault.Unavailable, "the meta group has no leader")}
	b, err := New(Options{Host: c, Store: store, Directory: c, Rand: noRand{}, Clock: noClock{}})
	if err != nil {
		t.Fatal(err)
	}
	b.roundToEnd(t.Context())
	if len(c.changes) > 0 {
		t.Fatalf("changed %+v", c.changes)
	}
	store.fail = nil
	b.roundToEnd(t.Context())
	if len(c.changes) != 1 {
		t.Fatalf("changed %+v, want one step", c.changes)
	}
}

// A leader that was deposed and does not know it yet does not write over what
// its successor recorded, and takes no step either.
func TestADeposedLeaderRecordsNothing(t *testing.T) {
	m := topology(nil, "a", "b", "c")
	m.Recorded = map[keyspace.GroupID]router.Recorded{3: {Term: 5, Version: 7}}
	store := &records{}
	b, err := New(Options{Host: &fakeCluster{m: m}, Store: store, Directory: &fakeCluster{m: m}, Rand: noRand{}, Clock: noClock{}})
	if err != nil {
		t.Fatal(err)
	}
	g := &host.GroupStatus{Group: 3, Replica: 1, Term: 4, Members: voters("a", "b", "c")}
	if err := b.record(t.Context(), g, m); fault.CodeOf(err) != fault.FailedPrecondition || len(store.puts) > 0 {
		t.Fatalf("%v, written %v", err, store.puts)
	}
	g.Term = 6
	if err := b.record(t.Context(), g, m); err != nil || len(store.puts) != 1 || *store.puts[0].Condition.VersionMatch != 7 {
		t.Fatalf("%v, written %v", err, store.puts)
	}
}
