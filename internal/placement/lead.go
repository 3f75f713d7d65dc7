package placement

import "slices"

// lead chooses leaders. Those that lead and may go on are kept; then leadership
// is levelled as replicas are, by load and weight, among the members that may
// lead their groups.
func (l *layout) lead() {
	leads := make([]int64, len(l.nodes))
	for _, g := range l.groups {
		l.eligible(g)
		if g.leader >= 0 && !slices.Contains(g.fit, g.leader) {
			g.leader = -1
		}
		if g.leader >= 0 {
			leads[g.leader] += g.load
		}
	}
	for _, g := range l.heavy {
		if g.leader >= 0 {
			continue
		}
		g.leader = g.fit[0]
		for _, n := range g.fit[1:] {
			if heavier(leads, l.caps, g.leader, n, g.load) {
				g.leader = n
			}
		}
		leads[g.leader] += g.load
	}
	v := newLevel(l, leads, leadership{l, leads})
	for i, g := range l.groups {
		v.put(i, g.leader)
	}
	v.run()
}

// eligible notes the members of the highest priority.
func (l *layout) eligible(g *group) {
	g.fit = g.fit[:0]
	for _, n := range g.members {
		if len(g.fit) > 0 && l.nodes[n].Priority != l.nodes[g.fit[0]].Priority {
			if l.nodes[n].Priority < l.nodes[g.fit[0]].Priority {
				continue
			}
			g.fit = g.fit[:0]
		}
		g.fit = append(g.fit, n)
	}
}

// leadership is the rule by which it passes: among those that may lead.
type leadership struct {
	*layout
	leads []int64
}

func (r leadership) may(g, from, to int) bool {
	r.work++
	return from != to && slices.Contains(r.groups[g].fit, to)
}

func (r leadership) can(g, n int) bool { return r.groups[g].leader == n }

func (r leadership) home(g, n int) bool { return r.groups[g].led == n }

func (r leadership) pass(g, from, to int) {
	group := r.groups[g]
	group.leader = to
	r.leads[from] -= group.load
	r.leads[to] += group.load
}

func (r leadership) closed(_, _ int) bool { return false }
