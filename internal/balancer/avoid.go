package balancer

import (
	"cmp"
	"slices"

	"kvstore/internal/keyspace"
	"kvstore/internal/placement"
	"kvstore/internal/router"
)

// avoided are targets without the nodes that take no copy of their group for now
// and have none: a copy to them was given up (giveup.go), or they are not heard
// from. In the place of one comes, the first before the
// next: a node of the present map that the plan would leave, so that what was
// turned stays turned; any other node that is well, of the zone with the fewest
// replicas of the group, then the one that has the fewest replicas; a node that
// has a voter now; else nobody takes the place, and the node is tried again
// later. Evenness is not looked at: the plan sees to it once the note has ended.
func (b *Balancer) avoided(m *router.Map, nodes []placement.Node, present []placement.Present, targets []placement.Target) []placement.Target {
	c := avoidance{b: b, m: m, nodes: make(map[string]placement.Node, len(nodes)), load: map[string]int{}}
	silent := false
	for _, n := range nodes {
		c.nodes[n.Name] = n
		silent = silent || c.silent(n.Name)
	}
	if len(m.GivenUp) == 0 && !silent {
		return targets
	}
	for _, t := range targets {
		for _, name := range t.Replicas {
			c.load[name]++
		}
	}
	was := make(map[keyspace.GroupID][]string, len(present))
	for _, p := range present {
		was[p.Group] = p.Replicas
	}
	out := slices.Clone(targets)
	for i := range out {
		c.turn(&out[i], was[out[i].Group])
	}
	return out
}

// avoidance is one look at the targets.
type avoidance struct {
	b     *Balancer
	m     *router.Map
	nodes map[string]placement.Node
	load  map[string]int // replicas by node
}

func (c *avoidance) turn(t *placement.Target, was []string) {
	if c.m.Targets[t.Group].Held {
		return
	}
	for at, name := range t.Replicas {
		unheard := c.silent(name) && !slices.Contains(was, name)
		if !unheard && !c.m.GaveUpOn(t.Group, keyspace.NodeID(name)) || c.votes(t.Group, name) {
			continue
		}
		if to := c.instead(*t, was, c.nodes[name].Witness); to != "" {
			t.Replicas = slices.Clone(t.Replicas)
			t.Replicas[at] = to
			c.load[name]--
			c.load[to]++
		}
	}
}

// instead is who takes a place in a target, a witness's or another.
func (c *avoidance) instead(t placement.Target, was []string, witness bool) string {
	free := func(name string) bool {
		return !slices.Contains(t.Replicas, name) && !c.m.GaveUpOn(t.Group, keyspace.NodeID(name))
	}
	well := func(name string) bool {
		n, known := c.nodes[name]
		return known && n.Witness == witness && free(name) && !n.Draining && !n.Dead && !c.silent(name)
	}
	if at := slices.IndexFunc(was, well); at >= 0 {
		return was[at]
	}
	var others []string
	for name := range c.nodes {
		if well(name) {
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		return slices.MinFunc(others, func(x, y string) int {
			return cmp.Or(c.crowd(t, x)-c.crowd(t, y), cmp.Compare(c.fill(x), c.fill(y)), cmp.Compare(x, y))
		})
	}
	for _, member := range c.m.Members[t.Group] {
		name := string(member.Node)
		if n, known := c.nodes[name]; known && n.Witness == witness && !n.Dead && !member.Learner && free(name) {
			return name
		}
	}
	return ""
}

// silent reports whether a node is not heard from at the moment.
func (c *avoidance) silent(name string) bool { return c.b.o.Silent(keyspace.NodeID(name)) > 0 }

func (c *avoidance) votes(g keyspace.GroupID, name string) bool {
	return slices.ContainsFunc(c.m.Members[g], func(m router.Member) bool { return string(m.Node) == name && !m.Learner })
}

// crowd counts a target's other replicas in a node's zone; an unknown zone is
// nobody's.
func (c *avoidance) crowd(t placement.Target, name string) (n int) {
	zone := c.nodes[name].Zone
	for _, other := range t.Replicas {
		if zone != "" && c.nodes[other].Zone == zone && !c.m.GaveUpOn(t.Group, keyspace.NodeID(other)) {
			n++
		}
	}
	return n
}

func (c *avoidance) fill(name string) float64 {
	return float64(c.load[name]) / cmp.Or(c.nodes[name].Weight, 1)
}

// turned reports whether a change takes a place from a node that the group was
// not copied to.
func turned(m *router.Map, g keyspace.GroupID, old, next []string) bool {
	return slices.ContainsFunc(old, func(name string) bool {
		return m.GaveUpOn(g, keyspace.NodeID(name)) && !slices.Contains(next, name)
	})
}
