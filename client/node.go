package client

import (
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
)

// bulkBytes is the size of an encoded operation from which it takes the second
// stream of its connection, so that small ones do not queue behind it.
const bulkBytes = 64 << 10

// node is one server, known by its address. It keeps its health, which only
// this client's own observations decide, over changes of the topology.
type node struct {
	client *Client
	addr   string
	conns  []*nodeConn
	// next spreads operations over conns.
	next atomic.Uint32
	// outstanding counts the calls of all pipes.
	outstanding atomic.Int64
	// info is what the topology says; nil for an endpoint not found in it.
	info atomic.Pointer[api.NodeInfo]

	// down is read without mu on every choice of a node.
	down atomic.Bool
	mu   sync.Mutex
	// failures counts failed probes and connections in a row.
	failures int
	// retryAt is when the next probe of a node that is down is due.
	retryAt time.Duration
	probing bool
}

// nodeConn is one connection with its two pipes.
type nodeConn struct {
	cc    *grpc.ClientConn
	small pipe
	bulk  pipe
}

// newNode connects to nothing yet; connections open with their first request.
func newNode(c *Client, addr string) (*node, error) {
	n := &node{client: c, addr: addr}
	for range c.cfg.ConnsPerNode {
		cc, err := c.dial(addr)
		if err != nil {
			n.closeConns()
			return nil, wrapError(CodeInvalidArgument, err, "bad address", "address", addr)
		}
		nc := &nodeConn{cc: cc}
		for _, p := range []*pipe{&nc.small, &nc.bulk} {
			p.node, p.conn, p.wake = n, cc, make(chan struct{}, 1)
		}
		n.conns = append(n.conns, nc)
	}
	return n, nil
}

// closeConns ends all streams. Their pipes end with the client.
func (n *node) closeConns() {
	for _, nc := range n.conns {
		_ = nc.cc.Close() // ErrClientConnClosing is the only error
	}
}

func (n *node) resetConnectBackoff() {
	for _, nc := range n.conns {
		nc.cc.ResetConnectBackoff()
	}
}

func (n *node) conn() *nodeConn {
	if len(n.conns) == 1 {
		return n.conns[0]
	}
	return n.conns[int(n.next.Add(1))%len(n.conns)]
}

func (n *node) pipe(bodyBytes int) *pipe {
	if bodyBytes >= bulkBytes {
		return &n.conn().bulk
	}
	return &n.conn().small
}

// rpc is for everything that does not go through a pipe.
func (n *node) rpc() api.KVStoreClient { return api.NewKVStoreClient(n.conn().cc) }

func (n *node) zone() string { return n.info.Load().GetZone() }

// Bounds of the backoff between probes of a node that is down.
const (
	probeBackoffMin = 50 * time.Millisecond
	probeBackoffMax = time.Second
)

// failed takes the node out of service until a probe succeeds.
func (n *node) failed(cause error) {
	now := n.client.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down.Load() && now < n.retryAt {
		return
	}
	n.failures++
	n.retryAt = now + jitter(probeBackoffMin, probeBackoffMax, n.failures)
	if !n.down.Swap(true) {
		n.client.cfg.Logger.Warn("node left", "address", n.addr, "error", cause)
		n.client.wantRefresh()
	}
}

// alive puts the node back into service.
func (n *node) alive() {
	if !n.down.Load() {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failures, n.retryAt = 0, 0
	if n.down.Swap(false) {
		n.client.cfg.Logger.Info("node is back", "address", n.addr)
		n.client.wantRefresh()
	}
}
