package client

import "math/rand/v2"

// pick chooses the node for an attempt. avoid, if not nil, failed the last
// one and is taken only when there is no other.
func (c *Client) pick(g *group, from ReadFrom, avoid *node) *node {
	t := c.topology()
	if g != nil {
		if n := c.pickReplica(g, from, avoid); n != nil {
			return n
		}
	}
	if n := leastLoaded(t.nodes, usable(avoid)); n != nil {
		return n
	}
	if n := leastLoaded(c.seeds, usable(avoid)); n != nil {
		return n
	}
	return c.lastResort(t)
}

// pickReplica returns nil when no replica of g is usable.
func (c *Client) pickReplica(g *group, from ReadFrom, avoid *node) *node {
	ok := usable(avoid)
	switch from {
	case Nearest:
		near := leastLoaded(g.replicas, func(n *node) bool { return ok(n) && n.zone() == c.cfg.Zone })
		if near != nil {
			return near
		}
	case Any:
	case Auto:
		if n := c.home.take(g, ok); n != nil {
			return n
		}
		fallthrough
	case readDefault, Leader:
		if n := g.leader.Load(); n != nil && ok(n) {
			return n
		}
	}
	return leastLoaded(g.replicas, ok)
}

func usable(avoid *node) func(*node) bool {
	return func(n *node) bool { return n != avoid && !n.down.Load() }
}

// leastLoaded returns the node with the fewest outstanding calls among those
// that are ok; equals take turns.
func leastLoaded(nodes []*node, ok func(*node) bool) *node {
	if len(nodes) == 0 {
		return nil
	}
	var best *node
	var bestLoad int64
	first := rand.IntN(len(nodes))
	for i := range nodes {
		n := nodes[(first+i)%len(nodes)]
		if !ok(n) {
			continue
		}
		if load := n.outstanding.Load(); best == nil || load < bestLoad {
			best, bestLoad = n, load
		}
	}
	return best
}

// lastResort is any node at all: the ones thought down may be back.
func (c *Client) lastResort(t *topology) *node {
	nodes := t.nodes
	if len(nodes) == 0 || rand.IntN(4) == 0 {
		nodes = c.seeds
	}
	return nodes[rand.IntN(len(nodes))]
}

// follow takes a wrong-leader answer's hint.
func (c *Client) follow(g *group, e *Error) (known bool) {
	c.wantRefresh()
	if g == nil || e.Leader == "" {
		return false
	}
	n := c.topology().byID[e.Leader]
	if n == nil {
		return false
	}
	g.leader.Store(n)
	return true
}
