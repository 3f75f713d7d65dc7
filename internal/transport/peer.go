package transport

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// connIdle closes the connections of streams and snapshots to a peer when they
// are not used.
const connIdle = time.Minute

// peer is one other node at one address: its queue, its sender, which opens a
// link, and three gRPC connections, so that neither snapshots nor forwarded requests share a
// connection's flow control with frames.
type peer struct {
	t     *Transport
	id    keyspace.NodeID
	addr  string
	queue *queue

	// frames is for Hello, and for frames where the peer takes no links.
	frames, calls, snapshots *grpc.ClientConn
	client                   api.PeerClient

	ctx  context.Context
	stop context.CancelFunc
	// forwards is how the peer takes forwarded operations, forwardsUnknown while it
	// is not connected.
	forwards atomic.Int32
	// kick ends the pause before the next attempt; capacity one.
	kick chan struct{}

	mu sync.Mutex
	// mu must be held for these.
	status PeerStatus
	logged time.Time // when a failure was last logged
}

func newPeer(t *Transport, id keyspace.NodeID, addr string) (*peer, error) {
	p := &peer{t: t, id: id, addr: addr, queue: newQueue(&t.o), kick: make(chan struct{}, 1)}
	p.ctx, p.stop = context.WithCancel(t.ctx)
	var err error
	for _, c := range []struct {
		conn **grpc.ClientConn
		idle time.Duration
	}{{&p.frames, connIdle}, {&p.calls, 0}, {&p.snapshots, connIdle}} {
		if *c.conn, err = t.dial(addr, c.idle); err != nil {
			p.stop()
			p.closeConns()
			return nil, badAddress(addr, err)
		}
	}
	p.client = api.NewPeerClient(p.calls)
	return p, nil
}

func (p *peer) closeConns() {
	for _, c := range []*grpc.ClientConn{p.frames, p.calls, p.snapshots} {
		if c != nil {
			_ = c.Close() // only ErrClientConnClosing, when closed twice
		}
	}
	p.queue.discard()
}

// wakeUp ends the sender's pause: the peer has just been heard of. The pauses
// of the connection itself are short (dial).
func (p *peer) wakeUp() {
	select {
	case p.kick <- struct{}{}:
	default:
	}
}
