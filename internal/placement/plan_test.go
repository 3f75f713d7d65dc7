package placement

import (
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestPlanIsAFunction: of sets, not of lists; and its result needs no change.
func TestPlanIsAFunction(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor := rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(t, "factor")
		nodes := drawNodes(t, 12, true)
		present := drawPresent(t, nodes, 30, factor, rapid.Bool().Draw(t, "loads"))
		targets := mustPlan(t, nodes, present, factor)
		other := mustPlan(t, rapid.Permutation(nodes).Draw(t, "nodes"), rapid.Permutation(present).Draw(t, "present"), factor)
		if !reflect.DeepEqual(targets, other) {
			t.Fatalf("order matters:%s\nother %+v", show(nodes, present, targets), other)
		}
		again := mustPlan(t, nodes, after(present, targets), factor)
		if !reflect.DeepEqual(targets, again) {
			t.Fatalf("planned twice:%s\nagain %+v", show(nodes, present, targets), again)
		}
		if moves := Moves(after(present, targets), again); len(moves) > 0 {
			t.Fatalf("moves without a change: %+v", moves)
		}
	})
}

// TestPlanShape: the number of replicas, which nodes they are on, in which
// zones, and who leads.
func TestPlanShape(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor := rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(t, "factor")
		nodes := drawNodes(t, 12, true)
		present := drawPresent(t, nodes, 20, factor, rapid.Bool().Draw(t, "loads"))
		targets := mustPlan(t, nodes, present, factor)
		if len(targets) != len(present) {
			t.Fatalf("%d targets for %d groups", len(targets), len(present))
		}
		for i, target := range targets {
			if target.Group != present[i].Group {
				t.Fatalf("target %d is of group %d", i, target.Group)
			}
			if bad := misshaped(nodes, present[i], target, factor); bad != "" {
				t.Fatalf("group %d: %s%s", target.Group, bad, show(nodes, present[i:i+1], targets[i:i+1]))
			}
		}
	})
}

// misshaped says what is wrong with a target, apart from balance.
func misshaped(nodes []Node, p Present, target Target, factor int) string {
	good := usable(nodes)
	size := min(factor, len(good))
	sorted := slices.Clone(target.Replicas)
	slices.Sort(sorted)
	var on, draining, dead []string
	for _, name := range slices.Compact(sorted) {
		i := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name })
		switch {
		case i < 0 || nodes[i].Dead:
			dead = append(dead, name)
		case nodes[i].Draining:
			draining = append(draining, name)
		default:
			on = append(on, name)
		}
	}
	switch {
	case len(sorted) != len(target.Replicas) || len(on)+len(draining)+len(dead) != len(sorted):
		return "two replicas on one node"
	case len(on) != size:
		return "not the right number of replicas on usable nodes"
	case target.Missing != len(dead) || !slices.Equal(target.Replicas[len(sorted)-len(dead):], dead) && len(dead) < len(sorted):
		return "dead members are not the last, or not counted"
	case len(without(append(draining, dead...), p.Replicas)) > 0:
		return "new replicas on unusable nodes"
	case size == 0:
		if len(without(p.Replicas, target.Replicas)) > 0 {
			return "without a usable node something moves"
		}
		return ""
	case len(sorted) > factor:
		return "more members than the factor"
	case len(draining) > 0 && len(on)+len(draining)-1 > len(dead):
		return "a draining node keeps a replica without need"
	case !slices.Equal(inZones(good, on), evenZones(good, factor)):
		return "zones are crowded"
	}
	for _, name := range on {
		if good[name].Priority > good[target.Replicas[0]].Priority {
			return "the leader is not of the highest priority"
		}
	}
	if _, ok := good[target.Replicas[0]]; !ok {
		return "the leader's node is not usable"
	}
	return ""
}

// TestPlanIsOptimal: of all maps, one of the most even ones, with replicas and
// leaders; and at most one replica and one leader more change than the nearest of
// these takes.
func TestPlanIsOptimal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor := rapid.IntRange(1, 3).Draw(t, "factor")
		nodes := drawNodes(t, 6, true)
		good := usable(nodes)
		if len(good) == 0 {
			t.Skip("nothing to place on")
		}
		present := drawPresent(t, nodes, 4, factor, false)
		targets := mustPlan(t, nodes, present, factor)
		added, changed := 0, 0
		load, leads := map[string]int{}, map[string]int{}
		for i, target := range targets {
			added += len(without(target.Replicas, present[i].Replicas))
			leads[target.Replicas[0]]++
			if len(present[i].Replicas) == 0 || present[i].Replicas[0] != target.Replicas[0] {
				changed++
			}
			for _, r := range target.Replicas {
				if _, ok := good[r]; ok {
					load[r]++
				}
			}
		}
		all := choices(good, factor)
		uneven, least := best(good, present, len(nodes), func(int) [][]string { return all })
		if got := unevenness(good, load); got != uneven || added > least+1 {
			t.Fatalf("unevenness %d, the least is %d; %d are added, the least is %d%s", got, uneven, added, least, show(nodes, present, targets))
		}
		uneven, least = best(good, present, 1, func(i int) [][]string { return leaders(good, targets[i]) })
		if got := unevenness(good, leads); got != uneven || changed > least+1 {
			t.Fatalf("unevenness of leaders %d, the least is %d; %d change, the least is %d%s", got, uneven, changed, least, show(nodes, present, targets))
		}
	})
}

// leaders are the members that may lead a group.
func leaders(good map[string]Node, p Target) [][]string {
	var out [][]string
	for _, name := range p.Replicas {
		n, ok := good[name]
		switch {
		case !ok || len(out) > 0 && n.Priority < good[out[0][0]].Priority:
		case len(out) > 0 && n.Priority == good[out[0][0]].Priority:
			out = append(out, []string{name})
		default:
			out = [][]string{{name}}
		}
	}
	return out
}
