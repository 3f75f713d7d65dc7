package client

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	api "kvstore/api/kvstore/v1"
)

// askNextAfter is how long nodes that were asked for the topology may be silent before
// the next is asked beside them: one that is stopped takes connections and says
// nothing, and whoever waits for the topology has a deadline.
const askNextAfter = 50 * time.Millisecond

// topologyAsk asks one node after the other for the topology until one answers.
type topologyAsk struct {
	c       *Client
	rest    []*node // not asked yet
	waiting int
	answers chan topologyAnswer
	wg      sync.WaitGroup
}

type topologyAnswer struct {
	node     *node
	topology *api.TopologyResponse
	err      error
}

// loadTopology asks nodes, healthy ones first, until one answers.
func (c *Client) loadTopology(ctx context.Context) error {
	nodes := c.candidates()
	a := &topologyAsk{c: c, rest: nodes, answers: make(chan topologyAnswer, len(nodes))}
	defer a.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return a.run(ctx)
}

func (a *topologyAsk) run(ctx context.Context) error {
	next := time.NewTicker(askNextAfter)
	defer next.Stop()
	last := error(newError(CodeUnavailable, "no node is known"))
	for a.askNext(ctx); a.waiting > 0; {
		select {
		case <-ctx.Done():
			return contextError(ctx.Err())
		case <-next.C:
			a.askNext(ctx)
		case got := <-a.answers:
			a.waiting--
			if got.err == nil {
				got.node.alive()
				a.c.applyTopology(got.topology)
				return nil
			}
			last = got.err
			a.askNext(ctx)
		}
	}
	return last
}

// askNext asks one more node, if there is one.
func (a *topologyAsk) askNext(ctx context.Context) {
	if len(a.rest) == 0 {
		return
	}
	n := a.rest[0]
	a.rest = a.rest[1:]
	a.waiting++
	a.wg.Go(func() {
		r, err := a.c.fetchTopology(ctx, n)
		a.answers <- topologyAnswer{n, r, err}
	})
}

func (c *Client) fetchTopology(ctx context.Context, n *node) (*api.TopologyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.ConnectTimeout+c.cfg.ProbeTimeout)
	defer cancel()
	r, err := api.NewKVStoreClient(n.conn().cc).Topology(ctx, &api.TopologyRequest{})
	if err != nil {
		e, _ := errorFromGRPC(err)
		return nil, e
	}
	return r, nil
}

// candidates returns all nodes in random order, healthy ones first.
func (c *Client) candidates() []*node {
	all := c.allNodes()
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	up := make([]*node, 0, len(all))
	var down []*node
	for _, n := range all {
		if n.down.Load() {
			down = append(down, n)
		} else {
			up = append(up, n)
		}
	}
	return append(up, down...)
}
