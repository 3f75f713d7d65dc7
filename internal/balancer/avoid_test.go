package balancer

import (
	"testing"
	"time"

	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// A drained node gives up what it has though the node that would be even is not
// heard from; without another one it waits, and so does what is only for balance.
func TestSilentNodesGetNothingNew(t *testing.T) {
	for _, c := range []struct {
		name  string
		more  []router.Node
		moved int
	}{
		{"another node takes it", []router.Node{{ID: "e"}}, 4},
		{"nobody else is there", nil, 0},
		{"a witness takes no data", []router.Node{{ID: "e", Witness: true}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := threeGroups()
			m.Balance.MaxMoves = 4
			m.Nodes["b"] = router.Node{ID: "b", Draining: true}
			for _, n := range c.more {
				m.Nodes[n.ID] = n
			}
			b, store := newPlacer(t, m, Options{Silent: func(id keyspace.NodeID) time.Duration {
				if id == "d" {
					return time.Second
				}
				return 0
			}})
			b.place(t.Context(), m)
			moved := 0
			for _, q := range store.puts {
				g, rec := targetOf(t, q)
				for _, id := range rec.Nodes {
					if id == "d" || m.Nodes[id].Witness {
						t.Errorf("group %d goes to %v", g, rec.Nodes)
					}
				}
				if len(rec.Nodes) == 3 {
					moved++
				}
			}
			if moved != c.moved {
				t.Fatalf("%d groups move, want %d: %q", moved, c.moved, store.written(t))
			}
		})
	}
}
