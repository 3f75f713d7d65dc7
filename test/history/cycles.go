package history

import (
	"fmt"
	"slices"
	"strings"
)

// edgeKind is why one transaction must come before another; kinds are bits of a
// mask.
type edgeKind uint8

const (
	ww edgeKind = 1 << iota
	wr
	rw
	rt
)

// edge of the graph; list and element say what it rests on.
type edge struct {
	to      int32
	kind    edgeKind
	list    int32
	element int32
}

// graph holds the edges by the transaction that comes first.
type graph [][]edge

func (g graph) add(from int32, e edge) {
	if from != e.to {
		g[from] = append(g[from], e)
	}
}

// components are the sets of transactions of which each must come before each
// other (Tarjan), without those of one.
func (g graph) components() [][]int32 {
	t := &tarjan{graph: g, index: make([]int32, len(g)), low: make([]int32, len(g)), open: make([]bool, len(g)), at: make([]int32, len(g))}
	for v := range g {
		if t.index[v] == 0 {
			t.visit(int32(v))
		}
	}
	return t.out
}

type tarjan struct {
	graph
	index, low []int32 // from 1, 0 before a visit
	open       []bool
	at         []int32 // the next edge to follow
	stack      []int32
	count      int32
	out        [][]int32
}

// visit follows edges from a root with a stack of its own: paths are as long as
// histories.
func (t *tarjan) visit(root int32) {
	path := []int32{root}
	t.enter(root)
	for len(path) > 0 {
		v := path[len(path)-1]
		if int(t.at[v]) < len(t.graph[v]) {
			w := t.graph[v][t.at[v]].to
			t.at[v]++
			switch {
			case t.index[w] == 0:
				t.enter(w)
				path = append(path, w)
			case t.open[w]:
				t.low[v] = min(t.low[v], t.index[w])
			}
			continue
		}
		path = path[:len(path)-1]
		if len(path) > 0 {
			up := path[len(path)-1]
			t.low[up] = min(t.low[up], t.low[v])
		}
		if t.low[v] == t.index[v] {
			t.leave(v)
		}
	}
}

func (t *tarjan) enter(v int32) {
	t.count++
	t.index[v], t.low[v], t.open[v] = t.count, t.count, true
	t.stack = append(t.stack, v)
}

// leave takes the component of v off the stack.
func (t *tarjan) leave(v int32) {
	from := len(t.stack) - 1
	for t.stack[from] != v {
		from--
	}
	component := slices.Clone(t.stack[from:])
	t.stack = t.stack[:from]
	for _, w := range component {
		t.open[w] = false
	}
	if len(component) > 1 {
		t.out = append(t.out, component)
	}
}

// among is the graph of some transactions and edges of some kinds.
func (g graph) among(txns []int32, mask edgeKind) graph {
	in := make([]bool, len(g))
	for _, v := range txns {
		in[v] = true
	}
	out := make(graph, len(g))
	for _, v := range txns {
		for _, e := range g[v] {
			if in[e.to] && e.kind&mask != 0 {
				out[v] = append(out[v], e)
			}
		}
	}
	return out
}

// anomaly is a class of cycles: of which edges, and with how many rw.
type anomaly struct {
	name  string
	mask  edgeKind
	oneRW bool
}

// anomalies from the plainest to the most involved; a cycle is named by the first
// that has it.
var anomalies = []anomaly{
	{WriteCycle, ww, false},
	{CircularFlow, ww | wr, false},
	{SingleAntiCycle, ww | wr, true},
	{AntiCycle, ww | wr | rw, false},
	{WriteCycle + realtimeSuffix, ww | rt, false},
	{CircularFlow + realtimeSuffix, ww | wr | rt, false},
	{SingleAntiCycle + realtimeSuffix, ww | wr | rt, true},
	{AntiCycle + realtimeSuffix, ww | wr | rw | rt, false},
}

// mostComponents are looked at: one is enough.
const mostComponents = 10

// longCycle is beyond what a reader follows: in place of such a cycle of the class
// that names the anomaly a shorter one, by real time, is shown.
const longCycle = 3

// findCycles reports one cycle of each component.
func (l *lists) findCycles() {
	all := l.graph.components()
	for _, component := range all[:min(len(all), mostComponents)] {
		slices.Sort(component)
		for _, a := range anomalies {
			cycle := l.graph.cycle(component, a)
			if cycle == nil {
				continue
			}
			note := ""
			if plain := l.shortcut(l.graph.cycle(component, anomalies[len(anomalies)-1])); len(cycle) > longCycle && len(plain) < len(cycle) {
				note = fmt.Sprintf(" (a cycle of this class has %d; this shorter one uses other dependencies)", len(cycle))
				cycle = plain
			}
			l.add(a.name, "%s%s", l.explain(cycle), note)
			break
		}
	}
}

// shortcut leaves out what lies between one that had ended and one that began
// later; the graph has no edge there that follows from others.
func (l *lists) shortcut(cycle []step) []step {
	for i := 0; i < len(cycle); i++ {
		n := len(cycle)
		for skip := n - 1; skip > 1; skip-- {
			j := (i + skip) % n
			a, b := cycle[i].from, cycle[j].from
			if l.txns[a].Outcome != Committed || !l.txns[a].Before(l.txns[b].Span) {
				continue
			}
			var kept []step
			for at := j; at != i; at = (at + 1) % n {
				kept = append(kept, cycle[at])
			}
			cycle, i = append(kept, step{a, edge{to: b, kind: rt}}), -1
			break
		}
	}
	return cycle
}

// cycle is a short cycle of a class among transactions, nil without any.
func (g graph) cycle(txns []int32, a anomaly) []step {
	if a.oneRW {
		return (&search{graph: g.among(txns, a.mask), left: searchLimit}).shortest(g.among(txns, rw), txns)
	}
	within := g.among(txns, a.mask)
	parts := within.components()
	if len(parts) == 0 {
		return nil
	}
	part := slices.MinFunc(parts, func(a, b []int32) int { return len(a) - len(b) })
	within = within.among(part, a.mask)
	return (&search{graph: within, left: searchLimit}).shortest(within, part)
}

// searchLimit bounds, in edges, the search for a short cycle. When it is over, what
// was found is taken; a class of which nothing was found leaves it to a later one.
const searchLimit = 20_000_000

// search looks for ways back.
type search struct {
	graph
	left int
}

// step is an edge with its begin.
type step struct {
	from int32
	edge
}

// shortest returns the shortest cycle whose first edge is one of firsts and whose
// others are of the search's graph.
func (s *search) shortest(firsts graph, txns []int32) (best []step) {
	for _, v := range txns {
		for _, e := range firsts[v] {
			if s.left <= 0 || len(best) == 2 {
				return best
			}
			back := s.path(e.to, v, len(best))
			if back != nil {
				best = append([]step{{v, e}}, back...)
			}
		}
	}
	return best
}

// path is the shortest way from one to another, nil without any or when the cycle
// would not be shorter than most (0: any is).
func (s *search) path(from, to int32, most int) []step {
	came := map[int32]step{from: {from: -1}}
	level := []int32{from}
	for depth := 1; len(level) > 0 && (most == 0 || depth+1 < most); depth++ {
		var next []int32
		for _, v := range level {
			for _, e := range s.graph[v] {
				s.left--
				if _, seen := came[e.to]; seen {
					continue
				}
				came[e.to] = step{v, e}
				if e.to == to {
					return unwind(came, from, to)
				}
				next = append(next, e.to)
			}
		}
		level = next
	}
	return nil
}

func unwind(came map[int32]step, from, to int32) (path []step) {
	for v := to; v != from; v = came[v].from {
		path = append(path, came[v])
	}
	slices.Reverse(path)
	return path
}

// explain is a cycle in words: its transactions, then why each comes before the
// next.
func (l *lists) explain(cycle []step) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d transactions, each of which must come before the next, and the last before the first", len(cycle))
	for _, s := range cycle {
		fmt.Fprintf(&b, "\n  %s", l.describe(int(s.from)))
	}
	for _, s := range cycle {
		fmt.Fprintf(&b, "\n  T%d before T%d: %s", s.from, s.to, l.reason(s))
	}
	return b.String()
}

func (l *lists) reason(s step) string {
	if s.kind == rt {
		return fmt.Sprintf("T%d had ended when T%d began", s.from, s.to)
	}
	k := l.sorted[s.list]
	at := slices.Index(k.order, s.element)
	switch {
	case s.kind == wr:
		return fmt.Sprintf("T%d read %s up to T%d's %d", s.to, k.name, s.from, s.element)
	case s.kind == rw && at < 0:
		return fmt.Sprintf("T%d read %s without T%d's %d", s.from, k.name, s.to, s.element)
	case s.kind == rw:
		return fmt.Sprintf("T%d read %s up to the element before T%d's %d", s.from, k.name, s.to, s.element)
	case at < 0:
		return fmt.Sprintf("T%d's %d of %s was never read, T%d's was", s.to, s.element, k.name, s.from)
	}
	return fmt.Sprintf("T%d appended %d to %s behind T%d's %d", s.to, s.element, k.name, s.from, k.order[at-1])
}
