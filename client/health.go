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

// cutAfterProbes is how many probe timeouts a node may be silent before its
// socket is closed, because a network that swallows packets never would.
const cutAfterProbes = 10

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
			n.check()
		}
		c.tendHome(c.now())
		c.closeRetired()
	}
}

// check is one look at a node.
func (n *node) check() {
	now := n.client.now()
	var silent *nodeConn
	for _, nc := range n.conns {
		if nc.small.sweepHome(now) {
			n.client.home.leave(n, now)
		}
		waited := nc.sweep(now, nil)
		if min(waited, nc.silence(now)) > n.client.cfg.ProbeAfter {
			silent = nc
		}
	}
	if !n.probeDue(now, silent != nil) {
		return
	}
	if silent == nil {
		silent = n.conn()
	}
	n.client.spawn(func(context.Context) {
		silent.probe()
		n.mu.Lock()
		n.probing = false
		n.mu.Unlock()
	})
}

// sweep is that of the pipes and of the requests beside them.
func (nc *nodeConn) sweep(now time.Duration, suspect error) (oldest time.Duration) {
	return max(nc.small.sweep(now, suspect), nc.bulk.sweep(now, suspect), nc.sweepRPCs(now, suspect))
}

func (nc *nodeConn) silence(now time.Duration) time.Duration {
	return now - time.Duration(nc.heard.Load())
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
func (nc *nodeConn) probe() {
	c := nc.node.client
	ctx, cancel := context.WithTimeout(nc.node.ctx, c.cfg.ProbeTimeout)
	defer cancel()
	resp, err := api.NewKVStoreClient(nc.cc).Topology(ctx, &api.TopologyRequest{KnownEpoch: c.topology().epoch}, grpc.WaitForReady(true))
	if err == nil || servedError(err) {
		nc.hear()
		nc.node.alive()
		if resp.GetEpoch() > c.topology().epoch {
			c.wantRefresh()
		}
		return
	}
	nc.node.failed(err)
	nc.sweep(c.now(), errSuspect)
	if nc.silence(c.now()) > cutAfterProbes*c.cfg.ProbeTimeout {
		nc.cut()
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
