package transport

import (
	"context"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Inbound receives what other nodes send. The host implements it.
type Inbound interface {
	// Deliver takes the messages of one frame, which it owns. clockMS is the
	// sender's wall clock when it sent the frame. Frames of one sender come in
	// order, one at a time; different senders come concurrently. It must not
	// block for long.
	Deliver(from keyspace.NodeID, clockMS int64, msgs []*api.GroupMessage)
	// SnapshotSink opens the receiving side of a snapshot, or refuses it.
	SnapshotSink(h *api.SnapshotHeader) (SnapshotSink, error)
}

// SnapshotSink takes one snapshot. After Write fails only Abort follows; each
// sink ends with exactly one of Finish and Abort.
type SnapshotSink interface {
	// Write takes encoded records, which it may keep.
	Write(records []byte) error
	// Finish returns once the snapshot is durable and the replica runs on it.
	Finish() error
	Abort()
}

// Transport is one node's side of all peer streams.
type Transport struct {
	o       Options
	cluster atomic.Pointer[string]
	inbound atomic.Pointer[Inbound]
	// recovery is nil before SetRecovery.
	recovery atomic.Pointer[Recovery]

	// gone is nil before SetGone.
	gone atomic.Pointer[map[keyspace.NodeID]string]

	// peers is replaced as a whole under mu, so that Send reads it without.
	peers atomic.Pointer[map[keyspace.NodeID]*peer]

	mu      sync.Mutex
	started bool
	// startedAt is on Clock.Mono.
	startedAt atomic.Int64
	closed    bool
	direct    map[string]*directConn
	// wg counts sender goroutines and the handlers of incoming streams.
	wg   sync.WaitGroup
	ctx  context.Context
	stop context.CancelFunc

	streams streams
	// takesLinks: the peer port tells links from gRPC.
	takesLinks atomic.Bool
	links      chan struct{} // incoming
	// gossip takes incoming streams of gossip; nil where none runs.
	gossip    atomic.Pointer[func(net.Conn)]
	unnamed   chan struct{} // connections of the peer port
	forwards  forwards
	refusals  refusals
	unknown   atomic.Int64
	snapSend  chan struct{}
	snapRecv  chan struct{}
	snapPace  *pacer
	snapStats snapshotCounters
}

// New returns a transport that is not connected to anything yet. Client and
// ClientAt work at once; Send and the handlers need SetCluster and Start.
func New(o Options) (*Transport, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	t := &Transport{
		o:        o,
		direct:   make(map[string]*directConn),
		links:    make(chan struct{}, maxLinks),
		unnamed:  make(chan struct{}, maxUnnamed),
		forwards: forwards{slots: make(chan struct{}, maxForwards)},
		snapSend: make(chan struct{}, o.SendSnapshots),
		snapRecv: make(chan struct{}, o.ReceiveSnapshots),
		snapPace: newPacer(o.SnapshotBytesPerSecond),
	}
	t.peers.Store(&map[keyspace.NodeID]*peer{})
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t, nil
}

// SetCluster names the cluster this node belongs to. It is called once, before
// Start; a second, different name is a broken invariant and panics.
func (t *Transport) SetCluster(id string) {
	if id == "" {
		panic("transport: empty cluster id")
	}
	if !t.cluster.CompareAndSwap(nil, &id) && *t.cluster.Load() != id {
		panic(fmt.Sprintf("transport: cluster id changes from %q to %q", *t.cluster.Load(), id))
	}
}

// Cluster returns the cluster id, "" before SetCluster.
func (t *Transport) Cluster() string {
	if id := t.cluster.Load(); id != nil {
		return *id
	}
	return ""
}

// Start begins sending to the peers set so far and later, and delivers what
// comes in to in. It returns at once; everything ends with ctx or Close.
func (t *Transport) Start(ctx context.Context, in Inbound) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.closed:
		return errClosed()
	case t.started:
		return fault.New(fault.Internal, "transport is started twice")
	case t.Cluster() == "":
		return fault.New(fault.FailedPrecondition, "transport starts before its cluster is known")
	}
	t.started = true
	t.startedAt.Store(int64(t.o.Clock.Mono()))
	t.inbound.Store(&in)
	context.AfterFunc(ctx, t.stop)
	for _, p := range *t.peers.Load() {
		t.startPeer(p)
	}
	return nil
}

// startPeer is called with mu held.
func (t *Transport) startPeer(p *peer) {
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		p.run()
	}()
}

// hold adds one to wg unless the transport is closed.
func (t *Transport) hold() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	return true
}

func errClosed() error { return fault.New(fault.Unavailable, "transport is closed") }

// Close ends all streams, waits for their goroutines and closes every
// connection. Handlers that still run return; new ones are refused. The gRPC
// server that calls the handlers may be stopped before or after.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	peers := *t.peers.Load()
	direct := t.direct
	t.direct = nil
	t.mu.Unlock()

	t.stop()
	t.wg.Wait()
	for _, p := range peers {
		p.closeConns()
	}
	for _, d := range direct {
		d.close()
	}
	return nil
}

// SetPeer makes a node reachable at addr (host:port of its peer listener), or
// moves it there. The same address again changes nothing. This node itself is
// ignored.
func (t *Transport) SetPeer(id keyspace.NodeID, addr string) error {
	if id == t.o.Node {
		return nil
	}
	if old := (*t.peers.Load())[id]; old != nil && old.addr == addr {
		return nil
	}
	p, err := newPeer(t, id, addr)
	if err != nil {
		return err
	}
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		p.closeConns()
		return errClosed()
	}
	old := t.replacePeer(id, p)
	if t.started {
		t.startPeer(p)
	}
	t.mu.Unlock()
	t.retire(old)
	return nil
}

// RemovePeer ends the streams to a node and forgets it.
func (t *Transport) RemovePeer(id keyspace.NodeID) {
	t.mu.Lock()
	old := t.replacePeer(id, nil)
	t.mu.Unlock()
	t.retire(old)
}

// replacePeer is called with mu held. It returns the peer that was there.
func (t *Transport) replacePeer(id keyspace.NodeID, p *peer) *peer {
	next := maps.Clone(*t.peers.Load())
	old := next[id]
	if p == nil {
		delete(next, id)
	} else {
		next[id] = p
	}
	t.peers.Store(&next)
	return old
}

// retire ends a replaced peer. Its goroutine is waited for by Close.
func (t *Transport) retire(p *peer) {
	if p != nil {
		p.stop()
		p.closeConns()
	}
}

// Send queues m for a node; Flush hands it over. It never blocks and keeps
// nothing of m. A message for an unknown node, or for one whose queue is full,
// is dropped and counted.
func (t *Transport) Send(to keyspace.NodeID, m *api.GroupMessage) {
	p := (*t.peers.Load())[to]
	if p == nil {
		t.unknown.Add(1)
		return
	}
	p.queue.push(m)
}

// Flush hands everything queued to the senders.
func (t *Transport) Flush() {
	for _, p := range *t.peers.Load() {
		p.queue.flush()
	}
}
