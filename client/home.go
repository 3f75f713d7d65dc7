package client

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// home is the one node to which a client sends its reads while they are few (Auto).
//
// Every replica serves linearizable reads, with a message to the leader and back, so
// what a read costs is mostly messages and wake-ups, which reads that travel together
// share. Few reads sent to the leaders of many groups travel alone; at one node they
// share frames, and that node's questions to each leader. Many fill the frames to all
// leaders anyway, and then the work of several nodes is worth more. Each client
// chooses at random, so that clients are spread.
//
// A home that fails a read, or lets a call wait for long, is left: for a while reads
// go to leaders, then another node is chosen.
type home struct {
	node atomic.Pointer[node] // nil for none
	// left is the node that was left last, since is when, in nanoseconds of Client.now.
	left  atomic.Pointer[node]
	since atomic.Int64
}

const (
	// homeCalls is the number of calls under way at the home from which on reads go to
	// leaders, as more than gatherKeys keys of a batch do.
	homeCalls = gatherKeys
	// homePatience is how long a call at the home may wait.
	homePatience = 250 * time.Millisecond
	// homeRest is how long reads go to leaders after a home was left.
	homeRest = 5 * time.Second
)

// take returns the home if one more read of a group may go there, else nil.
func (h *home) take(g *group, ok func(*node) bool) *node {
	n := h.node.Load()
	if n == nil || !ok(n) || n.outstanding.Load() >= homeCalls || !slices.Contains(g.replicas, n) {
		return nil
	}
	return n
}

// leave gives n up, if it is the home.
func (h *home) leave(n *node, now time.Duration) {
	if n == nil || h.node.Load() != n {
		return
	}
	h.left.Store(n)
	h.since.Store(int64(now))
	h.node.CompareAndSwap(n, nil)
}

// tendHome leaves a home that is down or not in the topology any more, and chooses one
// where there is none and none was left just now.
func (c *Client) tendHome(now time.Duration) {
	h, t := &c.home, c.topology()
	if n := h.node.Load(); n != nil {
		if n.down.Load() || !slices.Contains(t.nodes, n) {
			h.leave(n, now)
		}
		return
	}
	if h.left.Load() != nil && now-time.Duration(h.since.Load()) < homeRest {
		return
	}
	h.node.Store(t.chooseHome(c.cfg.Zone, h.left.Load()))
}

// chooseHome returns one of the nodes that are up and have replicas of the most groups,
// in zone if there is one, and not but if there is another; nil for none.
func (t *topology) chooseHome(zone string, but *node) *node {
	var best []*node
	var most homeRank
	for _, n := range t.nodes {
		switch rank := t.rankHome(n, zone, but); {
		case n.down.Load() || rank.replicas == 0:
		case rank == most:
			best = append(best, n)
		case most.less(rank):
			best, most = append(best[:0], n), rank
		}
	}
	if len(best) == 0 {
		return nil
	}
	return best[rand.IntN(len(best))]
}

// homeRank compares nodes: by zone, by replicas, by not having been left.
type homeRank struct {
	near     bool
	replicas int
	fresh    bool
}

func (t *topology) rankHome(n *node, zone string, but *node) homeRank {
	r := homeRank{near: n.zone() == zone, fresh: n != but}
	for _, g := range t.groups {
		if slices.Contains(g.replicas, n) {
			r.replicas++
		}
	}
	return r
}

func (r homeRank) less(other homeRank) bool {
	switch {
	case r.near != other.near:
		return other.near
	case r.replicas != other.replicas:
		return r.replicas < other.replicas
	default:
		return !r.fresh && other.fresh
	}
}
