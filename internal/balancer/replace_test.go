package balancer

import (
	"fmt"
	"slices"
	"testing"

	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// replaced is threeGroups with b drained to d.
func replaced() *router.Map {
	m := threeGroups()
	b := m.Nodes["b"]
	b.ID, b.Draining, b.DrainTo = "b", true, "d"
	m.Nodes["b"] = b
	return m
}

// carryOut lets the groups reach the targets that were written.
func carryOut(t *testing.T, store *records, m *router.Map) {
	t.Helper()
	for _, q := range store.puts {
		g, rec := targetOf(t, q)
		if m.Targets == nil {
			m.Targets = map[keyspace.GroupID]router.Target{}
		}
		m.Targets[g] = router.Target{Nodes: rec.Nodes, Held: rec.Held, Reason: rec.Reason}
		m.Members[g] = nil
		for _, member := range voters(rec.Nodes...) {
			m.Members[g] = append(m.Members[g], router.Member(member))
		}
	}
	store.puts = nil
}

// A node is replaced by another a few groups at a time, and by whoever places
// next: every group ends with the one in the place of the other, except one
// that an operator holds.
func TestANodeIsReplacedAFewGroupsAtATime(t *testing.T) {
	m := replaced()
	move(m, "held", map[keyspace.GroupID][]keyspace.NodeID{3: {"a", "b", "c"}})
	held := m.Targets[3]
	held.Held = true
	m.Targets[3] = held
	rounds := 0
	for ; ; rounds++ {
		b, store := newPlacer(t, m, Options{}) // a new leader each time
		b.place(t.Context(), m)
		moves := movesOf(t, store, m)
		if moves == 0 {
			break
		}
		if moves > m.Balance.MaxMoves || rounds > 5 {
			t.Fatalf("round %d: %d groups move at once: %q", rounds, moves, store.written(t))
		}
		for _, q := range store.puts {
			if g, rec := targetOf(t, q); slices.Contains(rec.Nodes, "b") || !slices.Contains(rec.Nodes, "d") || rec.Reason != "node is replaced" {
				t.Fatalf("group %d goes to %v (%s)", g, rec.Nodes, rec.Reason)
			}
		}
		carryOut(t, store, m)
	}
	if rounds != 2 { // three groups, two at a time
		t.Fatalf("took %d rounds", rounds)
	}
	if got := m.Wanted(3); fmt.Sprint(got) != "[a b c]" || !m.Targets[3].Held {
		t.Fatalf("the held group goes to %v, held %v", got, m.Targets[3].Held)
	}
}

// A replacement that is gone, or is drained itself, is none: what it does not
// have yet goes wherever there is room.
func TestAReplacementThatIsGoneIsNone(t *testing.T) {
	for name, change := range map[string]func(m *router.Map){
		"dead":    func(m *router.Map) { m.Dead = map[keyspace.NodeID]bool{"d": true} },
		"removed": func(m *router.Map) { delete(m.Nodes, "d"); m.Removed = map[keyspace.NodeID]bool{"d": true} },
		"drained": func(m *router.Map) { m.Nodes["d"] = router.Node{ID: "d", Draining: true} },
	} {
		t.Run(name, func(t *testing.T) {
			m := replaced()
			m.Nodes["e"] = router.Node{ID: "e"}
			change(m)
			b, store := newPlacer(t, m, Options{})
			b.place(t.Context(), m)
			if moves := movesOf(t, store, m); moves != m.Balance.MaxMoves {
				t.Fatalf("%d groups move: %q", moves, store.written(t))
			}
			for _, q := range store.puts {
				if g, rec := targetOf(t, q); slices.Contains(rec.Nodes, "d") {
					t.Fatalf("group %d goes to %v", g, rec.Nodes)
				}
			}
		})
	}
}
