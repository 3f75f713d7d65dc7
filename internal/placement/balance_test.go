package placement

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// tally sums what nodes hold and lead.
func tally(nodes []Node, present []Present) (held, led map[string]float64) {
	held, led = map[string]float64{}, map[string]float64{}
	for _, n := range nodes {
		held[n.Name], led[n.Name] = 0, 0
	}
	for _, p := range present {
		led[p.Replicas[0]] += orOne(p.Load)
		for _, r := range p.Replicas {
			if _, known := held[r]; known {
				held[r] += orOne(p.Load)
			}
		}
	}
	return held, led
}

func gap(m map[string]float64) float64 {
	least, most := math.Inf(1), math.Inf(-1)
	for _, x := range m {
		least, most = min(least, x), max(most, x)
	}
	return most - least
}

// TestEqualNodes differ by one replica and one leader at most, wherever their
// groups were before.
func TestEqualNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		factor := rapid.SampledFrom([]int{1, 2, 3, 5, 7}).Draw(t, "factor")
		zones := 0
		count := rapid.IntRange(1, 15).Draw(t, "nodes")
		if factor == 3 && rapid.Bool().Draw(t, "zones") { // of one size, so they do not decide
			zones, count = 3, 3*rapid.IntRange(1, 5).Draw(t, "nodes of a zone")
		}
		nodes := named(count, zones)
		present := drawPresent(t, nodes, 60, factor, false)
		targets := mustPlan(t, nodes, present, factor)
		held, led := tally(nodes, after(present, targets))
		if gap(held) > 1 || gap(led) > 1 {
			t.Fatalf("held %v, led %v%s", held, led, show(nodes, present, targets))
		}
	})
}

// shares are what nodes should hold by weight; none holds more than limit.
func shares(nodes []Node, total, limit float64) map[string]float64 {
	out := map[string]float64{}
	for len(out) < len(nodes) {
		weights, left := 0.0, total
		for _, n := range nodes {
			if s, full := out[n.Name]; full {
				left -= s
			} else {
				weights += orOne(n.Weight)
			}
		}
		before := len(out)
		for _, n := range nodes {
			if _, full := out[n.Name]; !full && left*orOne(n.Weight)/weights >= limit {
				out[n.Name] = limit
			}
		}
		if len(out) == before {
			for _, n := range nodes {
				if _, full := out[n.Name]; !full {
					out[n.Name] = left * orOne(n.Weight) / weights
				}
			}
		}
	}
	return out
}

// TestWeights: a node with 30 replicas or more holds its share within 10 %.
func TestWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := named(rapid.IntRange(4, 10).Draw(t, "nodes"), 0)
		for i := range nodes {
			nodes[i].Weight = rapid.Float64Range(0.5, 4).Draw(t, "weight")
		}
		present := numbered(rapid.IntRange(50, 250).Draw(t, "groups"))
		if rapid.Bool().Draw(t, "skewed") { // all on the first three
			for i := range present {
				present[i].Replicas = []string{"n00", "n01", "n02"}
			}
		}
		held, _ := tally(nodes, after(present, mustPlan(t, nodes, present, 3)))
		for name, share := range shares(nodes, float64(3*len(present)), float64(len(present))) {
			if share >= 30 && math.Abs(held[name]-share) > 0.1*share {
				t.Fatalf("%s holds %v, its share is %.1f; %v", name, held[name], share, nodes)
			}
		}
	})
}

// TestLoads: with 30 replicas per node, loads are even within 10 %, unless
// single groups dominate.
func TestLoads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zones := rapid.SampledFrom([]int{0, 3, 4}).Draw(t, "zones")
		count := rapid.IntRange(1, 3).Draw(t, "nodes") * max(3, zones)
		nodes := named(count, zones)
		most := rapid.SampledFrom([]float64{1.1, 2, 8}).Draw(t, "most")
		present := numbered(rapid.IntRange(count*10, count*20).Draw(t, "groups"))
		total := 0.0
		for i := range present {
			present[i].Load = rapid.Float64Range(0.5, most).Draw(t, "load")
			total += present[i].Load
			if count > 3 { // all on the first three
				present[i].Replicas = []string{"n00", "n01", "n02"}
			}
		}
		held, _ := tally(nodes, after(present, mustPlan(t, nodes, present, 3)))
		share := total * 3 / float64(count)
		for name, load := range held {
			if math.Abs(load-share) > 0.1*share {
				t.Fatalf("%s holds %.1f, the average is %.1f", name, load, share)
			}
		}
	})
}

// TestNoisyLoads: loads that change by less than half of an average group per
// node move nothing.
func TestNoisyLoads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := named(rapid.IntRange(4, 9).Draw(t, "nodes"), 0)
		present := numbered(rapid.IntRange(8, 4*len(nodes)).Draw(t, "groups"))
		noise := func() {
			for i := range present {
				present[i].Load = rapid.Float64Range(0.99, 1.01).Draw(t, "load")
			}
		}
		noise()
		present = after(present, mustPlan(t, nodes, present, 3))
		noise()
		targets := mustPlan(t, nodes, present, 3)
		for _, m := range Moves(present, targets) {
			if len(m.Add)+len(m.Remove) > 0 {
				t.Fatalf("noise moves %+v", m)
			}
		}
	})
}

// TestWork: what a plan looks at grows with groups and with nodes as the map
// does, or less; found by counting, not by time.
func TestWork(t *testing.T) {
	for _, zones := range []int{0, 3, 4, 7} {
		for _, loads := range []bool{false, true} {
			for _, size := range [][3]int{{3, 4, 200}, {3, 4, 2000}, {3, 13, 1000}, {3, 40, 500}, {7, 40, 500}, {39, 40, 500}, {40, 20, 500}, {40, 3, 500}, {40, 40, 500}} {
				before, now, groups := size[0], size[1], size[2]
				t.Run(fmt.Sprintf("zones %d loads %v %v", zones, loads, size), func(t *testing.T) {
					nodes := named(max(before, now), zones)
					present := numbered(groups)
					for i := range present {
						if loads {
							present[i].Load = 1 + float64(i*7%13)/4
						}
					}
					present = after(present, mustPlan(t, nodes[:before], present, 3))
					l, err := layOut(nodes[:now], present, 3)
					if err != nil {
						t.Fatal(err)
					}
					for l.settle() {
					}
					t.Logf("%.1f", float64(l.work)/float64(groups*3*now))
					if limit := 15 * groups * 3 * now; l.work > limit {
						t.Errorf("looked at %d, at most %d", l.work, limit)
					}
				})
			}
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	for _, size := range [][2]int{{3, 50}, {49, 50}, {50, 50}, {50, 49}} {
		b.Run(fmt.Sprintf("%d to %d nodes", size[0], size[1]), func(b *testing.B) {
			nodes := named(50, 3)
			present := numbered(1024)
			present = after(present, mustPlan(b, nodes[:size[0]], present, 3))
			for b.Loop() {
				mustPlan(b, nodes[:size[1]], present, 3)
			}
		})
	}
}

// founded is a cluster as Bootstrap founds it.
func founded(t failer, nodes []Node, groups, factor int) []Present {
	t.Helper()
	plan, err := Bootstrap(nodes, groups, factor)
	if err != nil {
		t.Fatal(err)
	}
	var out []Present
	for _, a := range plan {
		p := Present{Group: a.Group}
		for _, r := range a.Replicas {
			p.Replicas = append(p.Replicas, r.Node)
		}
		out = append(out, p)
	}
	return out
}

// TestFoundedIsPlanned: what Bootstrap founds needs no plan to change it.
func TestFoundedIsPlanned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := named(rapid.IntRange(1, 15).Draw(t, "nodes"), 0)
		factor := rapid.IntRange(1, 7).Draw(t, "factor")
		present := founded(t, nodes, rapid.IntRange(1, 60).Draw(t, "groups"), factor)
		if moves := Moves(present, mustPlan(t, nodes, present, factor)); len(moves) > 0 {
			t.Fatalf("%+v", moves)
		}
	})
}
