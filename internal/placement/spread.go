package placement

import "slices"

// join and leave change a group's members.
func (l *layout) join(g *group, n int) {
	at, _ := slices.BinarySearch(g.members, n)
	g.members = slices.Insert(g.members, at, n)
	l.load[n] += g.load
}

func (l *layout) leave(g *group, n int) {
	at, _ := slices.BinarySearch(g.members, n)
	g.members = slices.Delete(g.members, at, at+1)
	l.load[n] -= g.load
}

// crowd counts a group's replicas in the zone of node n.
func (l *layout) crowd(g *group, n int) int {
	count := 0
	for _, m := range g.members {
		if l.zones[m] == l.zones[n] {
			count++
		}
	}
	return count
}

// closer counts the pairs of a group's replicas that share a zone: how many
// more there are after one has moved between two nodes.
func (l *layout) closer(g *group, from, to int) int {
	if l.zones[from] == l.zones[to] {
		return 0
	}
	return l.crowd(g, to) - (l.crowd(g, from) - 1)
}

// fuller compares what nodes could give away, emptier what they could take: by
// the change of load²/capacity when they do.
func (l *layout) fuller(a, b int, load int64) bool { return heavier(l.load, l.caps, a, b, -load) }

func (l *layout) emptier(a, b int, load int64) bool { return heavier(l.load, l.caps, b, a, load) }

func heavier(load, caps []int64, a, b int, more int64) bool {
	return (2*load[a]+more)*caps[b] > (2*load[b]+more)*caps[a]
}

// trim takes replicas from groups that have too many.
func (l *layout) trim() {
	for _, g := range l.heavy {
		for len(g.members) > l.size {
			worst := g.members[0]
			for _, n := range g.members[1:] {
				cn, cw := l.crowd(g, n), l.crowd(g, worst)
				if cn > cw || cn == cw && l.fuller(n, worst, g.load) {
					worst = n
				}
			}
			l.leave(g, worst)
		}
	}
}

// fill gives replicas to groups that have too few, the heaviest first.
func (l *layout) fill() {
	for _, g := range l.heavy {
		for len(g.members) < l.size {
			best := -1
			for n := range l.nodes {
				if slices.Contains(g.members, n) {
					continue
				}
				if best < 0 {
					best = n
					continue
				}
				cn, cb := l.crowd(g, n), l.crowd(g, best)
				if cn < cb || cn == cb && l.emptier(n, best, g.load) {
					best = n
				}
			}
			l.join(g, best)
		}
	}
}

// uncrowd moves replicas out of zones that hold more of a group than they must.
// A group that no single move improves is spread as well as it can be.
func (l *layout) uncrowd() {
	for _, g := range l.heavy {
		for {
			from, to := l.crowded(g)
			if from < 0 {
				break
			}
			l.leave(g, from)
			l.join(g, to)
		}
	}
}

// crowded returns the move that takes most replicas of a group apart, -1 when
// there is none.
func (l *layout) crowded(g *group) (from, to int) {
	from, to = -1, -1
	best := 0
	for _, a := range g.members {
		for b := range l.nodes {
			c := l.closer(g, a, b)
			if c > best || c >= 0 || slices.Contains(g.members, b) {
				continue
			}
			if c < best || l.emptier(b, to, g.load) || b == to && l.fuller(a, from, g.load) {
				from, to, best = a, b, c
			}
		}
	}
	return from, to
}

// comeHome takes replicas back to where their groups were, if nodes are as even
// then: the levelling does not know which of equal steps it can save.
func (l *layout) comeHome() {
	for _, g := range l.groups {
		for _, home := range g.home {
			if slices.Contains(g.members, home) {
				continue
			}
			for _, n := range g.members {
				worse := (2*l.load[home]+g.load)*l.caps[n] > (2*l.load[n]-g.load)*l.caps[home]
				if !worse && !slices.Contains(g.home, n) && l.closer(g, n, home) <= 0 {
					l.leave(g, n)
					l.join(g, home)
					break
				}
			}
		}
	}
}

// replicas are the rules by which members pass from node to node: no node gets
// two of a group, and none of the zones gets more crowded.
type replicas struct {
	*layout
	held []int   // replicas per node
	shut [][]int // per node and zone, how many of held its crowd keeps out
}

func (l *layout) levelReplicas() {
	r := replicas{l, make([]int, len(l.nodes)), make([][]int, len(l.nodes))}
	for n := range r.shut {
		r.shut[n] = make([]int, len(l.nodes))
	}
	v := newLevel(l, l.load, r)
	for i, g := range l.groups {
		r.count(g, 1)
		for _, n := range g.members {
			v.put(i, n)
		}
	}
	v.run()
}

// count adds a group to held and shut, or takes it out.
func (r replicas) count(g *group, sign int) {
	for _, n := range g.members {
		r.held[n] += sign
		for i, m := range g.members {
			again := slices.ContainsFunc(g.members[:i], func(o int) bool { return r.zones[o] == r.zones[m] })
			if !again && r.closer(g, n, m) > 0 {
				r.shut[n][r.zones[m]] += sign
			}
		}
	}
}

func (r replicas) can(g, n int) bool { return slices.Contains(r.groups[g].members, n) }

func (r replicas) may(g, from, to int) bool {
	r.work++
	group := r.groups[g]
	return !slices.Contains(group.members, to) && r.closer(group, from, to) <= 0
}

func (r replicas) pass(g, from, to int) {
	group := r.groups[g]
	r.count(group, -1)
	r.leave(group, from)
	r.join(group, to)
	r.count(group, 1)
}

func (r replicas) closed(from, to int) bool { return r.shut[from][r.zones[to]] == r.held[from] }

func (r replicas) home(g, n int) bool { return slices.Contains(r.groups[g].home, n) }
