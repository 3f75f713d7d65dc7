package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

// errSuspect ends reads on a node that does not answer.
var errSuspect = errors.New("the node does not answer")

// watchHealth ends overdue calls and probes nodes that are silent or down,
// until ctx ends.
func (c *Client) watchHealth(ctx context.Context) {
	tick := time.NewTicker(max(c.cfg.ProbeAfter/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, n := range c.allNodes() {
			n.check(ctx)
		}
		c.closeRetired()
	}
}

// check is one look at a node.
func (n *node) check(ctx context.Context) {
	now := n.client.now()
	silent := false
	for _, nc := range n.conns {
		for _, p := range []*pipe{&nc.small, &nc.bulk} {
			waited := min(p.sweep(now, nil), now-time.Duration(p.lastReceived.Load()))
			silent = silent || waited > n.client.cfg.ProbeAfter
		}
	}
	if n.probeDue(now, silent) {
		n.client.spawn(func(context.Context) { n.probe(ctx) })
	}
}

// probeDue claims the one probe a node has at a time.
func (n *node) probeDue(now time.Duration, silent bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	due := silent
	if n.down.Load() {
		due = now >= n.retryAt
	}
	if !due || n.probing {
		return false
	}
	n.probing = true
	return true
}

// probe asks the node for the topology. A node that does not answer is down:
// its reads and what was not sent go elsewhere; writes that were sent wait on,
// because only an answer or the end of the stream tells more about them.
func (n *node) probe(ctx context.Context) {
	defer func() {
		n.mu.Lock()
		n.probing = false
		n.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(ctx, n.client.cfg.ProbeTimeout)
	defer cancel()
	n.resetConnectBackoff()
	resp, err := n.rpc().Topology(ctx, &api.TopologyRequest{KnownEpoch: n.client.topology().epoch}, grpc.WaitForReady(true))
	if err == nil || servedError(err) {
		n.alive()
		if resp.GetEpoch() > n.client.topology().epoch {
			n.client.wantRefresh()
		}
		return
	}
	n.failed(err)
	for _, nc := range n.conns {
		nc.small.sweep(n.client.now(), errSuspect)
		nc.bulk.sweep(n.client.now(), errSuspect)
	}
}

// servedError says whether an error shows that the node works: it answered,
// and not that it cannot serve.
func servedError(err error) bool {
	e, answered := errorFromGRPC(err)
	switch e.Code {
	case CodeUnavailable, CodeDeadlineExceeded, CodeCanceled:
		return false
	default:
		return answered || e.Code == CodeUnauthenticated || e.Code == CodePermissionDenied || e.Code == CodeUnsupported
	}
}
