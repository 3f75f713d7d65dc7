package client

import (
	"context"
	"errors"
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
// A home that fails a read, lets one wait for long, or a few in a row for longer than
// their deadlines is left: for a while reads go to leaders, then another node is
// chosen. What failed at a home, or waits there, goes on at the leader.
type home struct {
	node atomic.Pointer[node] // nil for none
	// strikes counts reads in a row that ended with their deadline.
	strikes atomic.Int32
	// left is the node that was left last, since is when, in nanoseconds of Client.now.
	left  atomic.Pointer[node]
	since atomic.Int64
}

const (
	// homeCalls is the number of calls under way at the home from which on reads go to
	// leaders, as more than gatherKeys keys of a batch do.
	homeCalls = gatherKeys
	// homeStrikes is how many deadlines in a row may pass at the home.
	homeStrikes = 3
	// homePatience is how long a read at the home may wait.
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
	h.strikes.Store(0)
	h.node.CompareAndSwap(n, nil)
}

// worked notes that a read at n ended well.
func (h *home) worked(n *node) {
	if h.strikes.Load() != 0 && h.node.Load() == n {
		h.strikes.Store(0)
	}
}

// failed notes how a read at n ended. Errors of the read itself say nothing of n.
func (h *home) failed(n *node, now time.Duration, err error) {
	var lost *lostError
	switch code := CodeOf(err); {
	case errors.Is(err, context.Canceled):
	case errors.Is(err, context.DeadlineExceeded), code == CodeDeadlineExceeded:
		if n != nil && h.node.Load() == n && h.strikes.Add(1) >= homeStrikes {
			h.leave(n, now)
		}
	case errors.As(err, &lost), notExecuted(code), code == CodeOverloaded, code == CodeUnknownOutcome:
		h.leave(n, now)
	}
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
// in zone if there is one, another than but if there is one; nil for none.
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

// homeRank compares nodes: by not having been left, by zone, by replicas.
type homeRank struct {
	fresh, near bool
	replicas    int
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
	case r.fresh != other.fresh:
		return other.fresh
	case r.near != other.near:
		return other.near
	default:
		return r.replicas < other.replicas
	}
}
