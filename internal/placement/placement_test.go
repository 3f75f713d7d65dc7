package placement

import (
	"fmt"
	"hash/fnv"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/keyspace"
)

func named(n int, zones int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i].Name = fmt.Sprintf("n%02d", i)
		if zones > 0 {
			nodes[i].Zone = fmt.Sprintf("z%d", i%zones)
		}
	}
	return nodes
}

type counts struct{ replicas, leaders map[string]int }

func count(nodes []Node, plan []Assignment) counts {
	c := counts{map[string]int{}, map[string]int{}}
	for _, n := range nodes {
		c.replicas[n.Name], c.leaders[n.Name] = 0, 0
	}
	for _, a := range plan {
		c.leaders[a.Replicas[0].Node]++
		for _, r := range a.Replicas {
			c.replicas[r.Node]++
		}
	}
	return c
}

func spread(m map[string]int) int {
	values := slices.Sorted(maps.Values(m))
	return values[len(values)-1] - values[0]
}

func TestBootstrapOfThree(t *testing.T) {
	plan, err := Bootstrap(named(3, 0), 8, 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(plan) != 9 {
		t.Fatalf("%d groups, want 8 and the meta group", len(plan))
	}
	want := []Replica{{1, "n00"}, {2, "n01"}, {3, "n02"}}
	if !reflect.DeepEqual(plan[0].Replicas, want) {
		t.Errorf("group 0 is on %v", plan[0].Replicas)
	}
	if got := count(named(3, 0), plan); spread(got.leaders) != 0 {
		t.Errorf("leaders %v", got.leaders)
	}
}

// TestBootstrapStays: nodes of a founded cluster compute their seeds again, also
// after an upgrade, so what was given once is given for ever.
func TestBootstrapStays(t *testing.T) {
	h := fnv.New64a()
	for nodes := 1; nodes <= 9; nodes++ {
		for _, zones := range []int{0, 2, 3} {
			for _, factor := range []int{1, 3, 5} {
				plan, err := Bootstrap(named(nodes, zones), 35, factor)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = fmt.Fprint(h, plan)
			}
		}
	}
	if got := h.Sum64(); got != 0x6ba0f597fd41de7c {
		t.Errorf("the maps have the hash %#x", got)
	}
}

// TestProperties holds for any cluster without zones.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := named(rapid.IntRange(1, 12).Draw(t, "nodes"), 0)
		groups := rapid.IntRange(1, 40).Draw(t, "groups")
		factor := rapid.SampledFrom([]int{1, 3, 5, 7}).Draw(t, "factor")
		shuffled := rapid.Permutation(nodes).Draw(t, "order")
		plan, err := Bootstrap(shuffled, groups, factor)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Bootstrap(nodes, groups, factor)
		if err != nil || !reflect.DeepEqual(plan, again) {
			t.Fatalf("the order of the members matters: %v", err)
		}
		checkShape(t, plan, groups, min(factor, len(nodes)))
		c := count(nodes, plan)
		if spread(c.replicas) > 1 || spread(c.leaders) > 1 {
			t.Fatalf("uneven: %+v", c)
		}
	})
}

func checkShape(t *rapid.T, plan []Assignment, groups, replicas int) {
	if len(plan) != groups+1 {
		t.Fatalf("%d groups, want %d", len(plan), groups+1)
	}
	for g, a := range plan {
		if a.Group != keyspace.GroupID(g) || len(a.Replicas) != replicas {
			t.Fatalf("group %d is %+v, want %d replicas", g, a, replicas)
		}
		byName := slices.Clone(a.Replicas)
		slices.SortFunc(byName, func(x, y Replica) int { return int(x.ID) - int(y.ID) })
		for i, r := range byName {
			if r.ID != keyspace.ReplicaID(i+1) || i > 0 && byName[i-1].Node >= r.Node {
				t.Fatalf("group %d: ids do not follow the sorted names: %v", g, a.Replicas)
			}
		}
	}
}

// TestNoQuorumInOneZone: with three zones or more, placement never puts a
// quorum in one of them when it can avoid it.
func TestNoQuorumInOneZone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.IntRange(3, 5).Draw(t, "zones")
		nodes := named(rapid.IntRange(zones, 15).Draw(t, "nodes"), zones)
		factor := rapid.SampledFrom([]int{3, 5}).Draw(t, "factor")
		if factor > len(nodes) {
			factor = 3
		}
		plan, err := Bootstrap(nodes, rapid.IntRange(1, 30).Draw(t, "groups"), factor)
		if err != nil {
			t.Fatal(err)
		}
		zoneOf := map[string]string{}
		for _, n := range nodes {
			zoneOf[n.Name] = n.Zone
		}
		for _, a := range plan {
			in := map[string]int{}
			for _, r := range a.Replicas {
				in[zoneOf[r.Node]]++
			}
			for z, n := range in {
				if n > factor/2 {
					t.Fatalf("zone %s holds %d of %d replicas of group %d", z, n, factor, a.Group)
				}
			}
		}
	})
}

func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		nodes          []Node
		groups, factor int
	}{{nil, 8, 3}, {named(3, 0), 0, 3}, {named(3, 0), 8, 0}, {[]Node{{Name: "a"}, {Name: "a"}}, 8, 3}} {
		if plan, err := Bootstrap(tc.nodes, tc.groups, tc.factor); err == nil {
			t.Errorf("%+v gave %v", tc, plan)
		}
	}
}
