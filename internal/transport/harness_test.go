package transport

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/freeports"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const (
	testCluster = "cluster-1"
	// patience bounds every wait of a test; it is reached only on failure.
	patience = 20 * time.Second
)

type fixedClock int64

func (c fixedClock) Wall() int64         { return int64(c) }
func (c fixedClock) Mono() time.Duration { return 0 }

// delivery is one call of Deliver.
type delivery struct {
	from    keyspace.NodeID
	clockMS int64
	msgs    []*api.GroupMessage
}

// inbox is an Inbound that passes on what it gets.
type inbox struct {
	frames chan delivery
	sink   func(*api.SnapshotHeader) (SnapshotSink, error)
}

func (i *inbox) Deliver(from keyspace.NodeID, clockMS int64, msgs []*api.GroupMessage) {
	i.frames <- delivery{from, clockMS, msgs}
}

func (i *inbox) SnapshotSink(h *api.SnapshotHeader) (SnapshotSink, error) {
	if i.sink == nil {
		return nil, fault.New(fault.FailedPrecondition, "no snapshot is wanted")
	}
	return i.sink(h)
}

// service is the part of the Peer service this package serves.
type service struct {
	api.UnimplementedPeerServer
	t       *Transport
	forward ServeForward
}

func (s service) Forward(stream api.Peer_ForwardServer) error {
	if s.forward == nil {
		return s.UnimplementedPeerServer.Forward(stream)
	}
	return s.forward(stream)
}

func (s service) Hello(ctx context.Context, r *api.HelloRequest) (*api.HelloResponse, error) {
	return s.t.HandleHello(ctx, r)
}
func (s service) Frames(stream api.Peer_FramesServer) error     { return s.t.HandleFrames(stream) }
func (s service) Snapshot(stream api.Peer_SnapshotServer) error { return s.t.HandleSnapshot(stream) }

// node is a transport behind a real listener.
type node struct {
	*Transport
	id     keyspace.NodeID
	addr   string
	in     *inbox
	server *grpc.Server
	served chan struct{}
	once   sync.Once

	up     chan keyspace.NodeID
	down   chan error
	logged chan string
}

type nodeOptions struct {
	addr        string
	cluster     string
	transport   func(*Options)
	serverCreds credentials.TransportCredentials
	notStarted  bool
	streams     bool // takes frames by gRPC only, as previous versions
	forward     ServeForward
	// forwardStreams: forwarded operations by gRPC only, as previous versions.
	forwardStreams bool
}

// overCarriers runs a test whose nodes take links, then one whose nodes take
// streams.
func overCarriers(t *testing.T, test func(t *testing.T, streams bool)) {
	t.Run("links", func(t *testing.T) { test(t, false) })
	t.Run("streams", func(t *testing.T) { test(t, true) })
}

// mustNode opens a node on loopback, on a free port unless one is given.
func mustNode(t testing.TB, id keyspace.NodeID, o nodeOptions) *node {
	t.Helper()
	n := &node{
		id:     id,
		in:     &inbox{frames: make(chan delivery, 1<<16)},
		served: make(chan struct{}),
		up:     make(chan keyspace.NodeID, 1024),
		down:   make(chan error, 1024),
		logged: make(chan string, 1024),
	}
	opts := Options{
		Node: id, Version: "test", Clock: fixedClock(1234), Logger: slog.New(logTo(n.logged)),
		OnUp:   func(p keyspace.NodeID) { n.up <- p },
		OnDown: func(_ keyspace.NodeID, err error) { n.down <- err },
	}
	if o.transport != nil {
		o.transport(&opts)
	}
	tr, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	n.Transport = tr
	if o.cluster == "" {
		o.cluster = testCluster
	}
	tr.SetCluster(o.cluster)
	n.listen(t, o)
	if !o.notStarted {
		n.start(t)
	}
	t.Cleanup(n.shut)
	return n
}

func (n *node) start(t testing.TB) {
	t.Helper()
	if err := n.Start(context.Background(), n.in); err != nil {
		t.Fatal(err)
	}
}

func (n *node) listen(t testing.TB, o nodeOptions) {
	t.Helper()
	listen := freeports.Listen
	if o.addr != "" {
		listen = func() (net.Listener, error) { return net.Listen("tcp", o.addr) }
	}
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	n.addr = l.Addr().String()
	opts, creds := n.ServerOptions(), o.serverCreds
	if !o.streams {
		creds = n.ServerCredentials(creds)
	}
	if creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	if o.forward != nil && !o.forwardStreams {
		n.TakeForwards(o.forward)
	}
	n.server = grpc.NewServer(opts...)
	api.RegisterPeerServer(n.server, service{t: n.Transport, forward: o.forward})
	go func() {
		defer close(n.served)
		_ = n.server.Serve(l)
	}()
}

// shut ends a node as a process would: all connections break.
func (n *node) shut() {
	n.once.Do(func() {
		n.server.Stop()
		<-n.served
		_ = n.Close()
	})
}

// logTo passes on the message and error of each record.
type logTo chan string

func (l logTo) Enabled(context.Context, slog.Level) bool { return true }
func (l logTo) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l logTo) WithGroup(string) slog.Handler            { return l }
func (l logTo) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.Key + "=" + a.Value.String()
		return true
	})
	select {
	case l <- line:
	default:
	}
	return nil
}

// await receives from c.
func await[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		t.Fatalf("waited %v for %s", patience, what)
		panic("unreachable")
	}
}

func link(t testing.TB, from, to *node) {
	t.Helper()
	if err := from.SetPeer(to.id, to.addr); err != nil {
		t.Fatal(err)
	}
}

func raftMessage(group uint32, body []byte) *api.GroupMessage {
	return &api.GroupMessage{Group: group, Body: &api.GroupMessage_Raft{Raft: body}}
}

// collect returns the next n messages a node gets.
func (n *node) collect(t *testing.T, count int) []*api.GroupMessage {
	t.Helper()
	var all []*api.GroupMessage
	for len(all) < count {
		all = append(all, await(t, n.in.frames, "a frame").msgs...)
	}
	if len(all) > count {
		t.Fatalf("got %d messages, expected %d", len(all), count)
	}
	return all
}

func hello() *api.HelloRequest {
	return &api.HelloRequest{ClusterId: testCluster, NodeId: "a", FormatVersion: 1}
}
