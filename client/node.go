package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

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
	// ctx is the life of the node's pipes.
	ctx    context.Context // as Client.ctx
	cancel context.CancelFunc
	// next spreads operations over conns.
	next atomic.Uint32
	// outstanding counts the calls of all pipes and other requests.
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

	// watching is held while the shared stream of watches is opened.
	// grpcUntil is until when the node's pipes use gRPC, since it knows no links; in
	// nanoseconds of Client.now.
	grpcUntil atomic.Int64

	watching sync.Mutex
	watches  *watchStream // guarded by watching; nil for none
}

// nodeConn is one connection with its two pipes.
type nodeConn struct {
	node  *node
	cc    *grpc.ClientConn
	small pipe
	bulk  pipe
	// heard is when something last came from the server, since the client's
	// start.
	heard atomic.Int64
	rpcMu sync.Mutex
	// rpcs are the requests outside of the pipes. rpcMu guards it.
	rpcs map[*rpc]struct{}
	// raw is the socket, kept so that a silent one can be cut.
	raw atomic.Pointer[net.Conn]
}

// newNode connects to nothing yet; connections open with their first request.
func newNode(c *Client, addr string) (*node, error) {
	n := &node{client: c, addr: addr}
	n.ctx, n.cancel = context.WithCancel(c.ctx)
	for range c.cfg.ConnsPerNode {
		nc := &nodeConn{node: n}
		nc.small.init(nc)
		nc.bulk.init(nc)
		var err error
		if nc.cc, err = c.dial(addr, nc.connect); err != nil {
			n.close()
			return nil, wrapError(CodeInvalidArgument, err, "bad address", "address", addr)
		}
		n.conns = append(n.conns, nc)
	}
	return n, nil
}

// close ends all streams and requests. The pipes' goroutines end soon after;
// the client waits for them.
func (n *node) close() {
	n.cancel()
	for _, nc := range n.conns {
		_ = nc.cc.Close() // ErrClientConnClosing is the only error
	}
}

// closeIfIdle closes a node that owes no answer and takes no more calls.
func (n *node) closeIfIdle() bool {
	for _, nc := range n.conns {
		if !nc.small.closeIfIdle() || !nc.bulk.closeIfIdle() {
			return false
		}
	}
	if n.outstanding.Load() > 0 {
		return false
	}
	n.close()
	return true
}

// connect dials the node for gRPC.
func (nc *nodeConn) connect(ctx context.Context, addr string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	nc.hear()
	nc.raw.Store(&raw)
	return raw, nil
}

// cut closes the sockets, so that streams end and connect again.
func (nc *nodeConn) cut() {
	for _, at := range [...]*atomic.Pointer[net.Conn]{&nc.raw, &nc.small.raw, &nc.bulk.raw} {
		if raw := at.Swap(nil); raw != nil {
			_ = (*raw).Close() // whatever it says, the socket is gone
		}
	}
}

func (nc *nodeConn) hear() { nc.heard.Store(int64(nc.node.client.now())) }

// errNotConnected means that nothing was sent.
var errNotConnected = errors.New("not connected")

// ready waits for the connection, so that what fails after it may have been
// sent and what fails in it was not.
func (nc *nodeConn) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, nc.node.client.cfg.ConnectTimeout)
	defer cancel()
	for {
		state := nc.cc.GetState()
		switch state {
		case connectivity.Ready:
			return nil
		case connectivity.TransientFailure, connectivity.Shutdown:
			return errNotConnected
		case connectivity.Idle:
			nc.cc.Connect()
		case connectivity.Connecting:
		}
		if !nc.cc.WaitForStateChange(ctx, state) {
			return errNotConnected
		}
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

func (n *node) zone() string { return n.info.Load().GetZone() }

// Bounds of the backoff between probes of a node that is down.
const (
	probeBackoffFirst = 50 * time.Millisecond
	probeBackoffMost  = time.Second
	// redialMost is gRPC's own longest pause between attempts to connect:
	// short, so that a probe meets one. ClientConn.ResetConnectBackoff is no
	// way to hasten them: it reads a map while others write it.
	redialMost = 200 * time.Millisecond
)

// failed takes the node out of service until a probe succeeds.
func (n *node) failed(cause error) {
	if n.ctx.Err() != nil {
		return
	}
	now := n.client.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.down.Load() && now < n.retryAt {
		return
	}
	n.failures++
	n.retryAt = now + jitter(probeBackoffFirst, probeBackoffMost, n.failures)
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
