package membership

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// world is a model of first members that probe each other one probe at a time,
// crash (losing memory) and are wiped (losing everything) at any moment.
type world struct {
	nodes    []modelNode
	wipes    int
	restarts int
	losses   int
	// founded is every founding so far, oldest first.
	founded []founding
}

type modelNode struct {
	life  int
	round map[string]Answer // answers of this round
	sees  map[string]string
	// decided is what was decided and not stored yet.
	decided *Decision
	// On disk.
	cluster string
	list    map[string]string
}

type founding struct {
	node, life int
	list       string
}

func newWorld(n, wipes, restarts, losses int) *world {
	w := &world{nodes: make([]modelNode, n), wipes: wipes, restarts: restarts, losses: losses}
	for i := range w.nodes {
		w.nodes[i] = modelNode{life: 1, round: map[string]Answer{}}
	}
	return w
}

func nodeName(i int) string       { return string(rune('a' + i)) }
func lifeName(i, life int) string { return fmt.Sprintf("%s%d", nodeName(i), life) }

func (w *world) clone() *world {
	c := *w
	c.nodes = slices.Clone(w.nodes)
	for i := range c.nodes {
		c.nodes[i].round = maps.Clone(c.nodes[i].round)
	}
	c.founded = slices.Clone(w.founded)
	return &c
}

func (w *world) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d %d %v", w.wipes, w.restarts, w.losses, w.founded)
	for _, n := range w.nodes {
		fmt.Fprintf(&b, "|%d %v %v %s %v", n.life, n.round, n.sees, n.cluster, n.list)
		if n.decided != nil {
			fmt.Fprintf(&b, " %v %v", n.decided.Action, n.decided.Members)
		}
	}
	return b.String()
}

// steps returns every step that can come next; faults are among them while
// there is a budget for them.
func (w *world) steps(faults bool) []func(*world) {
	var out []func(*world)
	for i := range w.nodes {
		n := &w.nodes[i]
		switch {
		case n.cluster != "":
		case n.decided != nil:
			if n.decided.Action == Found || w.hasQuorum(n.decided.ClusterID) {
				out = append(out, func(w *world) { w.store(i) })
			}
		case len(n.round) == len(w.nodes)-1:
			out = append(out, func(w *world) { w.decide(i) })
		default:
			out = append(out, w.probes(i, faults)...)
		}
		if faults && w.wipes > 0 {
			out = append(out, func(w *world) {
				w.wipes--
				w.nodes[i] = modelNode{life: w.nodes[i].life + 1, round: map[string]Answer{}}
			})
		}
		if faults && w.restarts > 0 {
			out = append(out, func(w *world) {
				w.restarts--
				n := w.nodes[i]
				w.nodes[i] = modelNode{life: n.life, round: map[string]Answer{}, cluster: n.cluster, list: n.list}
			})
		}
	}
	return out
}

// probes returns the probes node i still has to make in its round.
func (w *world) probes(i int, faults bool) []func(*world) {
	var out []func(*world)
	for j := range w.nodes {
		if _, asked := w.nodes[i].round[nodeName(j)]; asked || i == j {
			continue
		}
		out = append(out, func(w *world) { w.nodes[i].round[nodeName(j)] = w.answer(j) })
		if faults && w.losses > 0 {
			out = append(out, func(w *world) { w.losses--; w.nodes[i].round[nodeName(j)] = Answer{Err: "lost"} })
		}
	}
	return out
}

func (w *world) answer(j int) Answer {
	n := &w.nodes[j]
	a := Answer{Name: nodeName(j), Life: lifeName(j, n.life), Empty: n.cluster == ""}
	if a.Empty {
		a.Seen = n.sees
	} else {
		a.ClusterID, a.Founded = n.cluster, n.list
	}
	return a
}

func (w *world) decide(i int) {
	n := &w.nodes[i]
	var first []string
	for j := range w.nodes {
		first = append(first, nodeName(j))
	}
	d := Decide(Self{Name: nodeName(i), Life: lifeName(i, n.life), Cluster: testCluster, First: first, Sees: n.sees}, n.round)
	n.sees, n.round = d.Sees, map[string]Answer{}
	if d.Action != Wait {
		n.decided = &d
	}
}

func (w *world) store(i int) {
	n := &w.nodes[i]
	d := n.decided
	n.decided, n.cluster, n.list = nil, d.ClusterID, d.Members
	if d.Action == Found {
		w.founded = append(w.founded, founding{i, n.life, fmt.Sprint(d.Members)})
	}
}

// hasQuorum reports whether most of a cluster's first members run, so that it
// can admit others.
func (w *world) hasQuorum(cluster string) bool {
	count := 0
	for _, n := range w.nodes {
		if n.cluster == cluster && n.list != nil {
			count++
		}
	}
	return count > len(w.nodes)/2
}

// check holds the invariants of doc.go.
func (w *world) check() error {
	for _, f := range w.founded {
		if !strings.Contains(f.list, nodeName(f.node)+":"+lifeName(f.node, f.life)) {
			return fmt.Errorf("%s founded %s", lifeName(f.node, f.life), f.list)
		}
		for _, g := range w.founded {
			if f.node == g.node && f.life == g.life && f.list != g.list {
				return fmt.Errorf("%s founded %s and %s", lifeName(f.node, f.life), f.list, g.list)
			}
			if f.list != g.list && w.alive(f) && w.alive(g) {
				return fmt.Errorf("%s runs %s while %s runs %s", lifeName(f.node, f.life), f.list, lifeName(g.node, g.life), g.list)
			}
		}
	}
	return nil
}

func (w *world) alive(f founding) bool { return w.nodes[f.node].life == f.life }

// settles runs the world without faults, fairly, until every node is in one
// cluster.
func (w *world) settles(r *rand.Rand) error {
	for range 1000 * len(w.nodes) {
		steps := w.steps(false)
		if len(steps) == 0 {
			break
		}
		steps[r.IntN(len(steps))](w)
	}
	for _, n := range w.nodes {
		if n.cluster == "" || n.cluster != w.nodes[0].cluster {
			return fmt.Errorf("does not settle: %s", w.key())
		}
	}
	return nil
}

// TestDecideEveryOrder walks every interleaving of probes, decisions, stores
// and one wipe, with two members, and with three as far as a bound.
func TestDecideEveryOrder(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct{ nodes, wipes, restarts, losses, limit int }{
		{2, 1, 1, 1, 1 << 20},
		{3, 1, 0, 0, 20_000},
	} {
		start := newWorld(c.nodes, c.wipes, c.restarts, c.losses)
		seen := map[string]bool{start.key(): true}
		queue := []*world{start}
		for len(queue) > 0 && len(seen) < c.limit {
			w := queue[0]
			queue = queue[1:]
			for _, step := range w.steps(true) {
				next := w.clone()
				step(next)
				key := next.key()
				if seen[key] {
					continue
				}
				seen[key] = true
				if err := next.check(); err != nil {
					t.Fatalf("%v\n%s", err, key)
				}
				queue = append(queue, next)
				if len(seen)%97 == 0 && minority(next) {
					if err := next.clone().settles(r); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		t.Logf("%d members: %d states, %d not expanded", c.nodes, len(seen), len(queue))
	}
}

// minority reports whether wipes have hit fewer members than a quorum needs.
func minority(w *world) bool {
	wiped := 0
	for _, n := range w.nodes {
		if n.life > 1 {
			wiped++
		}
	}
	return wiped <= (len(w.nodes)-1)/2
}

// TestDecideRandomOrders takes long random walks with more members and faults.
func TestDecideRandomOrders(t *testing.T) {
	walks := 4000
	if testing.Short() {
		walks = 500
	}
	for seed := range walks {
		r := rand.New(rand.NewPCG(7, uint64(seed)))
		n := 3 + 2*r.IntN(2)
		w := newWorld(n, 1+r.IntN(n/2), r.IntN(4), r.IntN(6))
		for range 200 {
			steps := w.steps(true)
			if len(steps) == 0 {
				break
			}
			steps[r.IntN(len(steps))](w)
			if err := w.check(); err != nil {
				t.Fatalf("seed %d: %v\n%s", seed, err, w.key())
			}
		}
		if minority(w) {
			if err := w.settles(r); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
	}
}
