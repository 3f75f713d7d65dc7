package placement

import "slices"

// mostChoices bounds among how many groups of unequal load one is chosen.
const mostChoices = 32

// passing says what may pass from node to node: replicas or leadership.
type passing interface {
	// can reports whether node n has what group g passes on.
	can(g, n int) bool
	// may reports whether g may pass it from one node to another; can holds.
	may(g, from, to int) bool
	pass(g, from, to int)
	// closed reports whether it is known that nothing on a node may pass.
	closed(from, to int) bool
	// home reports whether g had it on n before the round.
	home(g, n int) bool
}

// level makes nodes equally full, by steps that each make the sum of
// load²/capacity smaller: a full node gives something to an empty one.
//
// A step is a path. Where no group may pass straight from a full node to an
// empty one, as one of its replicas is there or in the zone, one goes to a
// third node and another from there on. Steps are looked for in the order of
// their price, from the fullest nodes first: paths of what was placed in this
// round, which is on its way anyway; straight ones; all others, the shortest
// first. Along a shortest path no passes of one group get into each other's way,
// in theory; each is checked as it is taken.
//
// With unequal loads a step must gain more than half of an average group, or
// a small change of a load would move it there and back.
//
// Bounds: a search asks for each replica and node at most once whether it may
// pass. One that fails rules out all nodes that it saw, so proving that nothing
// is left to do costs about one search. A straight step is found at once, as
// shelves are looked through from where the last was found, and zones that are
// closed are known. In all, that is less than groups x replicas x nodes where
// loads are equal, and some times that where they are not and zones are many; a
// test counts it.
type level struct {
	*layout
	load  []int64
	rules passing
	// fresh and settled are what nodes hold: groups placed in this round, and
	// those that were there before it.
	fresh, settled []shelf
	stuck          []bool // nodes for which a search found nothing
	least          int64  // load of the lightest group
}

func newLevel(l *layout, load []int64, rules passing) *level {
	v := &level{layout: l, load: load, rules: rules, stuck: make([]bool, len(l.nodes)),
		fresh: make([]shelf, len(l.nodes)), settled: make([]shelf, len(l.nodes))}
	if len(l.heavy) > 0 {
		v.least = l.heavy[len(l.heavy)-1].load
	}
	return v
}

// shelf is groups in no order. Next is where to look first: those before it
// were found to be of no use lately.
type shelf struct {
	groups []int
	next   int
}

func (s *shelf) take(g int) {
	at := s.next
	if s.groups[at] != g {
		at = slices.Index(s.groups, g)
	}
	last := len(s.groups) - 1
	s.groups[at] = s.groups[last]
	s.groups = s.groups[:last]
	if s.next >= last {
		s.next = 0
	}
}

func (v *level) shelf(g, n int) *shelf {
	if v.rules.home(g, n) {
		return &v.settled[n]
	}
	return &v.fresh[n]
}

func (v *level) put(g, n int) {
	s := v.shelf(g, n)
	s.groups = append(s.groups, g)
}

func (v *level) move(g, from, to int) {
	v.shelf(g, from).take(g)
	v.rules.pass(g, from, to)
	v.put(g, to)
}

// run takes steps until a whole look at all nodes finds none.
func (v *level) run() {
	for found := true; found; {
		found = false
		clear(v.stuck)
		for v.step() {
			found = true
		}
	}
}

// step takes a step from the fullest node that is not stuck, or from one that is
// as full and has a cheaper one; false when all nodes are stuck.
func (v *level) step() bool {
	full, empty := v.fullest(), v.emptiest()
	for len(full) > 0 {
		alike := 1
		for alike < len(full) && !heavier(v.load, v.caps, full[0], full[alike], -averageLoad) {
			alike++
		}
		for _, fresh := range []bool{true, false} {
			for _, from := range full[:alike] {
				if !v.stuck[from] && v.relieve(from, empty, fresh) {
					return true
				}
			}
		}
		full = full[alike:]
	}
	return false
}

// relieve takes a step from one node, by what was placed in this round or by
// anything.
func (v *level) relieve(from int, empty []int, fresh bool) bool {
	near := v.targets(from, empty)
	switch {
	case len(near) == 0 || fresh && len(v.fresh[from].groups) == 0:
		return false
	case fresh:
		return v.straight(v.fresh, from, near) || v.search(from, empty, near, true)
	}
	return v.straight(v.settled, from, near) || v.search(from, empty, near, false)
}

// targets returns the first nodes of empty that a node gains by giving to.
func (v *level) targets(from int, empty []int) []int {
	count := 0
	for count < len(empty) && v.gains(from, empty[count], v.least) {
		count++
	}
	return empty[:count]
}

// fullest returns all nodes, those that gain most by giving first.
func (v *level) fullest() []int { return v.order(-averageLoad, 1) }

// emptiest returns all nodes, those that gain most by the lightest group first.
func (v *level) emptiest() []int { return v.order(v.least, -1) }

func (v *level) order(more int64, sign int) []int {
	order := make([]int, len(v.nodes))
	for n := range order {
		order[n] = n
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case heavier(v.load, v.caps, a, b, more):
			return -sign
		case heavier(v.load, v.caps, b, a, more):
			return sign
		}
		return 0
	})
	return order
}

// gains reports whether a load is better on another node, by enough.
func (v *level) gains(from, to int, load int64) bool {
	return (2*v.load[from]-load-v.slack)*v.caps[to] > (2*v.load[to]+load+v.slack)*v.caps[from]
}

// straight passes one group of a node's shelf to the first target that can take
// one.
func (v *level) straight(shelves []shelf, from int, targets []int) bool {
	for _, to := range targets {
		ideal := (v.load[from]*v.caps[to] - v.load[to]*v.caps[from]) / (v.caps[from] + v.caps[to])
		g := v.pick(&shelves[from], from, to, ideal, true)
		if g >= 0 {
			v.move(g, from, to)
			return true
		}
	}
	return false
}

// pick returns a group of a shelf that may pass, -1 when none may: the first
// where all loads are equal, else of some the nearest to a load. Gain is whether
// it alone must be worth it.
func (v *level) pick(s *shelf, from, to int, ideal int64, gain bool) int {
	if v.rules.closed(from, to) {
		return -1
	}
	choices := 1
	if v.slack > 0 {
		choices = mostChoices
	}
	at, distance := -1, int64(0)
	for i := 0; i < len(s.groups) && choices > 0; i++ {
		j := (s.next + i) % len(s.groups)
		g := s.groups[j]
		load := v.groups[g].load
		if gain && !v.gains(from, to, load) || !v.rules.may(g, from, to) {
			continue
		}
		choices--
		if d := max(load-ideal, ideal-load); at < 0 || d < distance {
			at, distance = j, d
		}
	}
	if at < 0 {
		return -1
	}
	s.next = at
	return s.groups[at]
}

// hop is one pass of a path.
type hop struct{ group, from, to int }

// search takes the shortest path to one of the targets that is worth it. Fresh
// limits it to groups placed in this round. When an unlimited search fails the
// node is stuck; and when no target was within reach, so are all nodes on the
// way, as they are less full and reach no more.
func (v *level) search(from int, order, targets []int, fresh bool) bool {
	via := make([]hop, len(v.nodes)) // how a node was reached
	seen := make([]bool, len(v.nodes))
	wanted := make([]bool, len(v.nodes))
	for _, n := range targets {
		wanted[n] = true
	}
	seen[from] = true
	queue := []int{from}
	reached := false
	for i := 0; i < len(queue); i++ {
		n := queue[i]
		for _, to := range order {
			if seen[to] {
				continue
			}
			g := v.passable(n, to, fresh)
			if g < 0 {
				continue
			}
			seen[to], via[to] = true, hop{g, n, to}
			queue = append(queue, to)
			if wanted[to] {
				if reached = true; v.follow(from, to, via) {
					return true
				}
			}
		}
	}
	if reached {
		queue = queue[:1]
	}
	for _, n := range queue {
		v.stuck[n] = v.stuck[n] || !fresh
	}
	return false
}

// passable returns a group that may pass between two nodes, -1 when none may.
func (v *level) passable(from, to int, fresh bool) int {
	g := v.pick(&v.fresh[from], from, to, averageLoad, false)
	if g < 0 && !fresh {
		g = v.pick(&v.settled[from], from, to, averageLoad, false)
	}
	return g
}

// follow passes groups along the path to a node if that is worth it. It goes
// from the end, so that a group that passes twice makes room first.
func (v *level) follow(from, to int, via []hop) bool {
	var path []hop
	for n := to; n != from; n = via[n].from {
		path = append(path, via[n])
	}
	if v.slack > 0 && !v.worth(path) {
		return false
	}
	for i, h := range path {
		if !v.rules.can(h.group, h.from) || !v.rules.may(h.group, h.from, h.to) {
			v.undo(path[:i])
			return false
		}
		v.move(h.group, h.from, h.to)
	}
	return true
}

func (v *level) undo(path []hop) {
	for _, h := range slices.Backward(path) {
		v.move(h.group, h.to, h.from)
	}
}

// worth reports whether a path, from its end, gains enough. Only its ends gain
// when all loads are equal, and they were chosen for that.
func (v *level) worth(path []hop) bool {
	change := make(map[int]int64, len(path)+1)
	gain := 0.0
	for _, h := range path {
		load := v.groups[h.group].load
		before := quotient(2*(v.load[h.from]+change[h.from])-load, v.caps[h.from])
		after := quotient(2*(v.load[h.to]+change[h.to])+load, v.caps[h.to])
		gain += float64(float64(load) * float64(before-after)) // no fused operations, which differ by machine
		change[h.from] -= load
		change[h.to] += load
	}
	first := path[len(path)-1]
	needed := quotient(v.slack, v.caps[first.from]) + quotient(v.slack, v.caps[path[0].to])
	return gain > float64(float64(v.groups[first.group].load)*needed)
}

func quotient(a, b int64) float64 { return float64(a) / float64(b) }
