package placement

import "slices"

// layWitness takes a node without data in.
func (l *layout) layWitness(n Node) place {
	p := place{usable: -1, witness: true, vote: -1, draining: n.Draining}
	if !n.Dead && !n.Draining {
		p.vote = len(l.witnesses)
		l.witnesses, l.votes = append(l.witnesses, n), append(l.votes, 0)
	}
	return p
}

// layVote notes a witness of the present map.
func (g *group) layVote(p place, name string) {
	switch {
	case p.vote >= 0:
		g.votes = append(g.votes, p.vote)
	case !p.draining:
		g.lost = name
	}
}

// placeWitnesses gives groups with an even number of replicas their witness: the
// one they have, if no other is farther from the replicas, else the one that is,
// and votes in the fewest groups. Then votes are levelled.
func (l *layout) placeWitnesses() {
	var without []*group
	for _, g := range l.groups {
		if !l.wantsWitness(g) {
			continue
		}
		for _, w := range g.votes {
			if g.witness < 0 && l.near(g, w) == l.nearest(g) {
				l.vote(g, w)
			}
		}
		if g.witness < 0 {
			without = append(without, g)
		}
	}
	for _, g := range without {
		best := -1
		for w := range l.witnesses {
			if l.near(g, w) == l.nearest(g) && (best < 0 || l.votes[w] < l.votes[best]) {
				best = w
			}
		}
		if best >= 0 {
			l.vote(g, best)
		}
	}
	for l.levelVotes() {
	}
}

// wantsWitness reports whether a group's replicas, dead ones included, could
// split in halves. Without a usable node everything stays.
func (l *layout) wantsWitness(g *group) bool {
	draining, dead := l.kept(g)
	data := len(g.members) + len(draining) + len(dead)
	return l.size > 0 && data > 0 && data%2 == 0
}

func (l *layout) vote(g *group, w int) {
	if g.witness >= 0 {
		l.votes[g.witness]--
	}
	g.witness = w
	l.votes[w]++
}

// near counts a group's replicas in the zone of a witness.
func (l *layout) near(g *group, w int) (count int) {
	zone := l.witnesses[w].Zone
	for _, n := range g.members {
		if zone != "" && l.nodes[n].Zone == zone {
			count++
		}
	}
	return count
}

// nearest is the least of near that can be.
func (l *layout) nearest(g *group) int {
	least := len(g.members)
	for w := range l.witnesses {
		least = min(least, l.near(g, w))
	}
	return least
}

// levelVotes moves one vote to a witness that has two fewer; false when there is
// none to move.
func (l *layout) levelVotes() bool {
	for _, g := range l.groups {
		if g.witness < 0 {
			continue
		}
		for w := range l.witnesses {
			if l.votes[w]+1 < l.votes[g.witness] && l.near(g, w) == l.nearest(g) {
				l.vote(g, w)
				return true
			}
		}
	}
	return false
}

// votesFor returns the witness that a group should have, as a list of names.
func (l *layout) votesFor(g *group) []string {
	switch {
	case l.size == 0: // everything stays
		var names []string
		for _, w := range g.votes {
			names = append(names, l.witnesses[w].Name)
		}
		if g.lost != "" {
			names = append(names, g.lost)
		}
		slices.Sort(names)
		return names
	case g.witness >= 0:
		return []string{l.witnesses[g.witness].Name}
	case g.lost != "" && l.wantsWitness(g):
		return []string{g.lost}
	}
	return nil
}
