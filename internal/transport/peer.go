package transport

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// snapshotIdle closes the snapshot connection to a peer when it is not used.
const snapshotIdle = time.Minute

// peer is one other node at one address: its queue, its sender and three
// connections, so that neither snapshots nor forwarded requests share a
// connection's flow control with frames.
type peer struct {
	t     *Transport
	id    keyspace.NodeID
	addr  string
	queue *queue

	frames, calls, snapshots *grpc.ClientConn
	client                   api.PeerClient

	ctx  context.Context
	stop context.CancelFunc
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
	}{{&p.frames, 0}, {&p.calls, 0}, {&p.snapshots, snapshotIdle}} {
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
