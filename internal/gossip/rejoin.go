package gossip

import (
	"context"
	"slices"
	"time"

	"kvstore/internal/env/system"
	"kvstore/internal/keyspace"
)

// maxJoins bounds the nodes that are joined in one turn; a random part of more.
const maxJoins = 8

// rejoin joins the nodes that the address book knows and that this node does
// not hear, until ctx ends. Two halves of a partition would else stay apart for
// ever: each has forgotten the other. While it hears nobody at all it tries
// more often, at first once per interval.
func (g *Gossip) rejoin(ctx context.Context) {
	pause := g.o.Interval
	for {
		missing, heard := g.missing()
		joined := g.joinSome(ctx, missing)
		if joined > 0 {
			g.look()
		}
		next := g.o.Rejoin
		if len(missing) > 0 && joined == 0 && !heard {
			next, pause = min(pause, next), min(2*pause, g.o.Rejoin)
		} else {
			pause = g.o.Interval
		}
		if system.Pause(ctx, g.jittered(next)) != nil {
			return
		}
	}
}

// missing returns the nodes that should be members and are not, in random
// order, and whether any other member is heard.
func (g *Gossip) missing() (out []keyspace.NodeID, heard bool) {
	for _, m := range g.Members() {
		heard = heard || m.ID != g.o.Node && m.State == Alive
	}
	for id := range g.o.Peers() {
		if state := g.StateOf(id); id != g.o.Node && state != Alive && state != Suspect {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	for i := len(out) - 1; i > 0; i-- {
		j := int(g.o.Rand.Uint64() % uint64(i+1))
		out[i], out[j] = out[j], out[i]
	}
	return out[:min(len(out), maxJoins)], heard
}

// joinSome returns how many nodes answered.
func (g *Gossip) joinSome(ctx context.Context, nodes []keyspace.NodeID) int {
	joined := 0
	for _, id := range nodes {
		if ctx.Err() != nil || g.leaving.Load() {
			return joined
		}
		if n, err := g.list.Join([]string{joinAddress(string(id))}); err != nil {
			g.o.Logger.Debug("gossip did not reach a node", "node", id, "error", err)
		} else {
			joined += n
		}
	}
	return joined
}

// jittered spreads d by a quarter, so that nodes that started together do not
// stay together.
func (g *Gossip) jittered(d time.Duration) time.Duration {
	quarter := max(uint64(d/4), 1)
	return d - time.Duration(quarter) + time.Duration(g.o.Rand.Uint64()%(2*quarter))
}
