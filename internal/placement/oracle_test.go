package placement

// What the best plan is, found by trying all of them or by other means than
// Plan's.

import (
	"cmp"
	"fmt"
	"slices"

	"pgregory.net/rapid"

	"kvstore/internal/keyspace"
)

// numbered returns groups without replicas.
func numbered(n int) []Present {
	out := make([]Present, n)
	for i := range out {
		out[i].Group = keyspace.GroupID(i)
	}
	return out
}

// after is the present map once targets have come true.
func after(present []Present, targets []Target) []Present {
	load := map[keyspace.GroupID]float64{}
	for _, p := range present {
		load[p.Group] = p.Load
	}
	out := make([]Present, len(targets))
	for i, t := range targets {
		out[i] = Present{Group: t.Group, Replicas: t.Replicas, Load: load[t.Group]}
	}
	return out
}

type failer interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func mustPlan(t failer, nodes []Node, present []Present, factor int) []Target {
	t.Helper()
	targets, err := Plan(nodes, present, factor)
	if err != nil {
		t.Fatal(err)
	}
	return targets
}

func usable(nodes []Node) map[string]Node {
	out := map[string]Node{}
	for _, n := range nodes {
		if !n.Dead && !n.Draining {
			out[n.Name] = n
		}
	}
	return out
}

func names(nodes map[string]Node) []string {
	var out []string
	for name := range nodes {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// zoneOf is a node's zone; unknown ones are of no other node.
func zoneOf(n Node) string {
	if n.Zone == "" {
		return "of " + n.Name
	}
	return "zone " + n.Zone
}

// inZones counts replicas by zone, the most first.
func inZones(nodes map[string]Node, replicas []string) []int {
	count := map[string]int{}
	for _, r := range replicas {
		if n, ok := nodes[r]; ok {
			count[zoneOf(n)]++
		}
	}
	return descending(count)
}

// evenZones is the most even way to spread replicas over zones with room: one
// by one into the zone that has the fewest.
func evenZones(nodes map[string]Node, replicas int) []int {
	room, count := map[string]int{}, map[string]int{}
	for _, n := range nodes {
		room[zoneOf(n)]++
	}
	for range min(replicas, len(nodes)) {
		best := ""
		for z := range room {
			if count[z] < room[z] && (best == "" || count[z] < count[best]) {
				best = z
			}
		}
		count[best]++
	}
	return descending(count)
}

func descending(count map[string]int) []int {
	var out []int
	for _, n := range count {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b int) int { return cmp.Compare(b, a) })
	return out
}

// choices are all sets of nodes that a group may be on.
func choices(nodes map[string]Node, factor int) [][]string {
	all := names(nodes)
	var out [][]string
	for bits := range 1 << len(all) {
		var set []string
		for i, name := range all {
			if bits&(1<<i) != 0 {
				set = append(set, name)
			}
		}
		if len(set) == min(factor, len(all)) && slices.Equal(inZones(nodes, set), evenZones(nodes, factor)) {
			out = append(out, set)
		}
	}
	return out
}

// unevenness is the sum of load²/weight for weights 1, 2 and 3, times 6.
func unevenness(nodes map[string]Node, load map[string]int) int {
	sum := 0
	for name, l := range load {
		sum += l * l * 6 / max(1, int(nodes[name].Weight))
	}
	return sum
}

// best tries all maps and returns the least unevenness, and the least cost of a
// map as even: what is not among the first of the present replicas.
func best(nodes map[string]Node, present []Present, first int, options func(i int) [][]string) (uneven, added int) {
	load := map[string]int{}
	uneven = -1
	var try func(i, cost int)
	try = func(i, cost int) {
		if i == len(present) {
			if u := unevenness(nodes, load); uneven < 0 || u < uneven || u == uneven && cost < added {
				uneven, added = u, cost
			}
			return
		}
		for _, set := range options(i) {
			for _, name := range set {
				load[name]++
			}
			try(i+1, cost+len(without(set, present[i].Replicas[:min(first, len(present[i].Replicas))])))
			for _, name := range set {
				load[name]--
			}
		}
	}
	try(0, 0)
	return uneven, added
}

// drawNodes returns up to most nodes with zones or without, of equal or other
// weights, in all states.
func drawNodes(t *rapid.T, most int, states bool) []Node {
	zones := rapid.SampledFrom([][]string{{""}, {"x", "y", "z"}, {"x", "y"}, {"x", "y", "z", "v", "w"}, {"x", "y", "z", ""}}).Draw(t, "zones")
	weights := rapid.SampledFrom([][]float64{{0}, {1, 2, 3}}).Draw(t, "weights")
	nodes := named(rapid.IntRange(1, most).Draw(t, "nodes"), 0)
	for i := range nodes {
		nodes[i].Zone = rapid.SampledFrom(zones).Draw(t, "zone")
		nodes[i].Weight = rapid.SampledFrom(weights).Draw(t, "weight")
		nodes[i].Priority = rapid.SampledFrom([]int{0, 0, 1, -1}).Draw(t, "priority")
		if states {
			switch rapid.IntRange(0, 7).Draw(t, "state") {
			case 0:
				nodes[i].Dead = true
			case 1:
				nodes[i].Draining = true
			case 2:
				nodes[i].Dead, nodes[i].Draining = true, true
			}
		}
	}
	return nodes
}

// drawPresent returns groups anywhere, also on nodes that are not there.
func drawPresent(t *rapid.T, nodes []Node, most, factor int, loads bool) []Present {
	all := []string{"gone1", "gone2"}
	for _, n := range nodes {
		all = append(all, n.Name)
	}
	if rapid.Bool().Draw(t, "known only") {
		all = all[2:]
	}
	groups := numbered(rapid.IntRange(1, most).Draw(t, "groups"))
	for i := range groups {
		order := rapid.Permutation(all).Draw(t, "order")
		groups[i].Replicas = order[:rapid.IntRange(0, min(factor+1, len(order))).Draw(t, "replicas")]
		if loads {
			groups[i].Load = rapid.Float64Range(0.5, 4).Draw(t, "load")
		}
	}
	return groups
}

func show(nodes []Node, present []Present, targets []Target) string {
	return fmt.Sprintf("\nnodes %+v\npresent %+v\ntargets %+v", nodes, present, targets)
}
