package placement

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// moved counts what targets change.
func moved(present []Present, targets []Target) (added, removed, leads int) {
	for _, m := range Moves(present, targets) {
		added += len(m.Add)
		removed += len(m.Remove)
		if m.Lead != "" {
			leads++
		}
	}
	return added, removed, leads
}

// settled is an even cluster with a past: grown or shrunk from another size.
func settled(t *rapid.T, nodes []Node, groups, factor int) []Present {
	present := numbered(groups)
	if past := rapid.IntRange(0, 12).Draw(t, "past"); past > 0 {
		present = founded(t, named(past, 0), groups, factor)
	}
	return after(present, mustPlan(t, nodes, present, factor))
}

// TestOneNodeMore: only the new node takes anything, and no more than its
// share; the leaders that change are those whose replicas moved, and for each
// that it takes a chain of three.
func TestOneNodeMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor := rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(t, "factor")
		nodes := named(rapid.IntRange(factor, 12).Draw(t, "nodes")+1, 0)
		fresh := nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, "new")].Name
		old := slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool { return n.Name == fresh })
		present := settled(t, old, rapid.IntRange(1, 100).Draw(t, "groups"), factor)
		targets := mustPlan(t, nodes, present, factor)
		added, _, leads := moved(present, targets)
		for _, m := range Moves(present, targets) {
			if len(without(m.Add, []string{fresh})) > 0 {
				t.Fatalf("%+v moves, but %s is new", m, fresh)
			}
		}
		share := float64(len(present)*factor) / float64(len(nodes))
		if added > int(math.Ceil(share)) {
			t.Fatalf("%d moves, its share is %.1f", added, share)
		}
		if most := added + 3*(len(present)/len(nodes)+1); leads > most {
			t.Fatalf("%d leaders of %d groups change, at most %d", leads, len(present), most)
		}
	})
}

// TestOneNodeLess: what a node had is placed elsewhere, and nothing else moves
// where that can be even.
func TestOneNodeLess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor := rapid.SampledFrom([]int{1, 2, 3}).Draw(t, "factor")
		nodes := named(rapid.IntRange(2, 12).Draw(t, "nodes"), 0)
		present := settled(t, nodes, rapid.IntRange(1, 100).Draw(t, "groups"), factor)
		gone := rapid.IntRange(0, len(nodes)-1).Draw(t, "gone")
		rest := slices.Delete(slices.Clone(nodes), gone, gone+1)
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0: // unknown from now on
			nodes = rest
		case 1:
			nodes[gone].Dead = true
		case 2:
			nodes[gone].Draining = true
		}
		added, removed, _ := moved(present, mustPlan(t, nodes, present, factor))
		lost, even := refill(rest, present, factor)
		if added < lost || removed < lost && nodes[min(gone, len(nodes)-1)].Draining {
			t.Fatalf("%d added, %d removed, %d lost", added, removed, lost)
		}
		if even && added > lost {
			t.Fatalf("%d added, %d lost", added, lost)
		}
		if added > lost+len(present) {
			t.Fatalf("%d added, %d lost, %d groups", added, lost, len(present))
		}
	})
}

// refill places what groups lack on nodes, moving only that, as evenly as it
// can. It returns how much that was and whether nodes are even.
func refill(nodes []Node, present []Present, factor int) (lost int, even bool) {
	held := map[string]float64{}
	for _, n := range nodes {
		held[n.Name] = 0
	}
	placed := make([][]string, len(present)) // what a group got
	stays := make([][]string, len(present))
	for i, p := range present {
		for _, r := range p.Replicas {
			if _, here := held[r]; here {
				stays[i] = append(stays[i], r)
				held[r]++
			}
		}
		for _, n := range nodes {
			if len(stays[i])+len(placed[i]) < min(factor, len(nodes)) && !slices.Contains(stays[i], n.Name) {
				placed[i] = append(placed[i], n.Name)
				held[n.Name]++
				lost++
			}
		}
	}
	for better := true; better; {
		better = false
		for _, n := range nodes {
			better = better || pushAway(held, placed, stays, n.Name)
		}
	}
	return lost, gap(held) <= 1
}

// pushAway makes one node hold one less, by a path to one that holds two less.
func pushAway(held map[string]float64, placed, stays [][]string, from string) bool {
	type step struct{ group, at int }
	via := map[string]step{from: {}}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for g, names := range placed {
			at := slices.Index(names, queue[0])
			for to := range held {
				if _, seen := via[to]; at < 0 || seen || slices.Contains(names, to) || slices.Contains(stays[g], to) {
					continue
				}
				via[to] = step{g, at}
				queue = append(queue, to)
				if held[to] > held[from]-2 {
					continue
				}
				held[from]--
				held[to]++
				for n := to; n != from; {
					s := via[n]
					n, placed[s.group][s.at] = placed[s.group][s.at], n
				}
				return true
			}
		}
	}
	return false
}

// TestSizes: 1, 3, 5, 7, 3 nodes; even at each size. A step moves no more than
// what groups lack, what is on nodes that go, and a fair share for each node
// that comes.
func TestSizes(t *testing.T) {
	for _, zones := range []int{0, 3} {
		for _, groups := range []int{8, 35, 200} {
			t.Run(fmt.Sprintf("zones %d groups %d", zones, groups), func(t *testing.T) {
				present, total, bound := numbered(groups), 0, 0
				for _, size := range []int{1, 3, 5, 7, 3} {
					nodes := named(size, zones)
					targets := mustPlan(t, nodes, present, 3)
					added, _, _ := moved(present, targets)
					most := fair(nodes, present)
					if added > most {
						t.Errorf("%d nodes: %d moves, at most %d", size, added, most)
					}
					total, bound = total+added, bound+most
					present = after(present, targets)
					checkEven(t, nodes, present, zones)
				}
				t.Logf("%d moves, at most %d", total, bound)
				if limit := 3*groups + 2*groups*3*(2+2)/7 + 3*groups; total > limit {
					t.Errorf("%d moves in all, at most %d", total, limit)
				}
			})
		}
	}
}

// fair is what groups lack on nodes, and for each node that has nothing its
// share, by zone where there are several.
func fair(nodes []Node, present []Present) int {
	lack, share := 0, 0
	held, _ := tally(nodes, slices.DeleteFunc(slices.Clone(present), func(p Present) bool { return len(p.Replicas) == 0 }))
	for _, p := range present {
		here := 0
		for _, r := range p.Replicas {
			if _, ok := held[r]; ok {
				here++
			}
		}
		lack += min(3, len(nodes)) - here
	}
	if lack > 0 {
		return lack
	}
	for _, n := range nodes {
		peers := 0 // that share replicas with it: those of its zone, or all
		for _, m := range nodes {
			if m.Zone == n.Zone {
				peers++
			}
		}
		of := len(present) // a third of all for each of three zones
		if n.Zone == "" {
			of *= 3
		}
		if held[n.Name] == 0 {
			share += int(math.Ceil(float64(of) / float64(peers)))
		}
	}
	return share
}

// checkEven: replicas are even among the nodes of a zone, leaders among all
// that have as many replicas.
func checkEven(t *testing.T, nodes []Node, present []Present, zones int) {
	t.Helper()
	held, led := tally(nodes, present)
	for z := range max(1, zones) {
		some := map[string]float64{}
		for i, n := range nodes {
			if zones == 0 || i%zones == z {
				some[n.Name] = held[n.Name]
			}
		}
		if len(some) > 0 && gap(some) > 1 {
			t.Errorf("%d nodes hold %v", len(nodes), held)
		}
	}
	if gap(led) > 1 {
		t.Errorf("%d nodes lead %v", len(nodes), led)
	}
}

// TestWalk: nodes come, go, die, return and drain. After each event the plan
// has its shape, and it moves what the event takes, not more.
func TestWalk(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := named(rapid.IntRange(3, 8).Draw(t, "nodes"), rapid.SampledFrom([]int{0, 3}).Draw(t, "zones"))
		present := founded(t, nodes, rapid.IntRange(1, 40).Draw(t, "groups"), 3)
		present = after(present, mustPlan(t, nodes, present, 3))
		t.Repeat(map[string]func(*rapid.T){
			"one node": func(t *rapid.T) {
				n := &nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, "node")]
				n.Dead, n.Draining = rapid.Bool().Draw(t, "dead"), rapid.Bool().Draw(t, "draining")
			},
			"new node": func(t *rapid.T) {
				if len(nodes) < 10 {
					nodes = append(nodes, Node{Name: fmt.Sprintf("m%02d", len(nodes)), Zone: nodes[rapid.IntRange(0, 2).Draw(t, "beside")].Zone})
				}
			},
			"": func(t *rapid.T) {
				targets := mustPlan(t, nodes, present, 3)
				for i, target := range targets {
					if bad := misshaped(nodes, present[i], target, 3); bad != "" {
						t.Fatalf("group %d: %s%s", target.Group, bad, show(nodes, present[i:i+1], targets[i:i+1]))
					}
				}
				added, _, _ := moved(present, targets)
				if added > 2*len(present) {
					t.Fatalf("%d replicas of %d groups move", added, len(present))
				}
				present = after(present, targets)
			},
		})
	})
}

// TestFlap: without room for its replicas, a node that dies and returns moves
// none; and neither does it for other nodes.
func TestFlap(t *testing.T) {
	nodes := named(3, 0)
	present := founded(t, nodes, 8, 3)
	for range 3 {
		for _, dead := range []bool{true, false} {
			nodes[1].Dead = dead
			targets := mustPlan(t, nodes, present, 3)
			if added, removed, _ := moved(present, targets); added+removed > 0 {
				t.Fatalf("dead %v: %d added, %d removed", dead, added, removed)
			}
			present = after(present, targets)
			if _, led := tally(nodes, present); !dead && gap(led) > 0 {
				t.Errorf("leaders %v", led)
			}
		}
	}
}

func TestMoves(t *testing.T) {
	present := []Present{
		{Group: 3, Replicas: []string{"a", "b", "c"}},
		{Group: 1, Replicas: []string{"a", "b", "c"}},
		{Group: 2, Replicas: []string{"a", "b", "c"}},
		{Group: 4, Replicas: []string{"a"}},
		{Group: 5},
	}
	targets := []Target{
		{Group: 3, Replicas: []string{"a", "c", "b"}},
		{Group: 2, Replicas: []string{"c", "a", "b"}},
		{Group: 1, Replicas: []string{"e", "d", "a"}},
		{Group: 5, Replicas: []string{"b", "a"}},
	}
	want := []Move{
		{Group: 1, Add: []string{"d", "e"}, Remove: []string{"b", "c"}, Lead: "e"},
		{Group: 2, Lead: "c"},
		{Group: 5, Add: []string{"a", "b"}, Lead: "b"},
	}
	if got := Moves(present, targets); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
}

// TestMovesUnderWay: a plan that is partly carried out is gone on with, when what
// was begun counts as done.
func TestMovesUnderWay(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := named(rapid.IntRange(4, 9).Draw(t, "nodes"), rapid.SampledFrom([]int{0, 3}).Draw(t, "zones"))
		present := founded(t, nodes[:rapid.IntRange(1, len(nodes)).Draw(t, "old")], rapid.IntRange(1, 60).Draw(t, "groups"), 3)
		if rapid.Bool().Draw(t, "one leaves") {
			nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, "leaves")].Draining = true
		}
		targets := mustPlan(t, nodes, present, 3)
		left, _, _ := moved(present, targets)
		for i := range present {
			if rapid.Bool().Draw(t, "begun") {
				left -= len(without(targets[i].Replicas, present[i].Replicas))
				present[i].Replicas = targets[i].Replicas
			}
		}
		again := mustPlan(t, nodes, present, 3)
		if added, _, _ := moved(present, again); added > left {
			t.Fatalf("%d replicas are added, %d were left to add%s", added, left, show(nodes, present, again))
		}
	})
}
