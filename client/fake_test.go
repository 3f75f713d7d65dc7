package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/freeports"
	"kvstore/internal/keyspace"
	"kvstore/internal/pipelink"
	"kvstore/internal/server/listen"
)

// fakeCluster is a store over one map behind several real gRPC servers, with
// faults to order. Group g of fakeGroups is led by node leaders[g-1].
type fakeCluster struct {
	t     *testing.T
	mu    sync.Mutex
	data  map[string]*api.Record // by namespace, NUL, key
	clock uint64
	// namespaces by name.
	namespaces map[string]*api.Namespace
	// kept are the answers by request id; nil for servers that know none.
	kept    map[string]*api.PipelineResult
	nodes   []*fakeNode
	leaders []int
	epoch   uint64
	// executed counts executed writes by key.
	executed map[string]int
	limits   limits
	// alone: a group has no replica beside its leader.
	alone bool
	// moved are the slots of group 1 that group 2 owns by now, known to the nodes
	// that said contains; nodes then refuse what their groups do not own. at is the
	// node that executes.
	moved map[int]bool
	said  map[*fakeNode]bool
	at    *fakeNode
}

const fakeGroups = 6

// fakeNode is one server. Its fields are set before a test sends to it or
// with atomics.
type fakeNode struct {
	api.UnimplementedKVStoreServer
	cluster *fakeCluster
	name    string
	addr    string
	zone    string
	srv     *grpc.Server
	served  chan error
	// links: it takes links beside gRPC; endLinks ends them.
	links    bool
	endLinks func()
	// fault, if set, is asked about every operation of a pipeline.
	fault atomic.Pointer[func(*api.PipelineOp) opFault]
	// refuse, if set, is asked about every other request and every stream.
	refuse atomic.Pointer[func(ctx context.Context, method string) error]
	// watch serves Watch.
	watch atomic.Pointer[func(watchServer) error]
	// frozen holds everything back until it is closed.
	frozen atomic.Pointer[chan struct{}]
	// ops counts operations, frames messages, topologies requests and linked links.
	ops, frames, topologies, linked atomic.Int64
}

// opFault is what happens to one operation instead of an answer.
type opFault struct {
	// status is answered, nothing is executed.
	status *api.Status
	// items is answered for each item of a batch of reads.
	items *api.Status
	// hold delays the execution until it is closed.
	hold chan struct{}
	// dropBefore and dropAfter end the stream before or after the execution.
	dropBefore, dropAfter bool
	// drain ends the stream before the execution as a node that stops does: it
	// says that nothing else was executed.
	drain bool
	// mute executes nothing and answers nothing.
	mute bool
}

func newFakeCluster(t *testing.T, nodes int) *fakeCluster {
	t.Helper()
	f := &fakeCluster{
		t: t, data: make(map[string]*api.Record), executed: make(map[string]int), epoch: 1, clock: 1_800_000_000_000 << 16, limits: defaultLimits,
		namespaces: map[string]*api.Namespace{"default": {Name: "default", Id: 1, State: "active"}},
	}
	for i := range nodes {
		n := &fakeNode{cluster: f, links: i%2 == 0, name: "node-" + nodeName(i), zone: "zone-" + nodeName(i)}
		n.start("")
		t.Cleanup(n.stop)
		f.nodes = append(f.nodes, n)
	}
	for g := range fakeGroups {
		f.leaders = append(f.leaders, g%nodes)
	}
	return f
}

// start serves on addr, on a free port without one; after stop a node starts again on its own address.
func (n *fakeNode) start(addr string) {
	n.cluster.t.Helper()
	listenAt := func() (net.Listener, error) { return net.Listen("tcp", addr) }
	if addr == "" {
		listenAt = freeports.Listen
	}
	l, err := listenAt()
	if err != nil {
		n.cluster.t.Fatal(err)
	}
	if n.addr == "" { // others read it while a node starts again
		n.addr = l.Addr().String()
	}
	creds, endLinks := insecure.NewCredentials(), func() {}
	if n.links {
		creds, endLinks = listen.WithLinks(nil, n.serveLink)
	}
	n.endLinks = endLinks
	n.srv = grpc.NewServer(grpc.Creds(creds), grpc.ChainUnaryInterceptor(n.unaryFault), grpc.ChainStreamInterceptor(n.streamFault),
		grpc.MaxRecvMsgSize(defaultLimits.messageBytes), grpc.MaxSendMsgSize(defaultLimits.messageBytes), grpc.WaitForHandlers(true))
	api.RegisterKVStoreServer(n.srv, n)
	n.served = make(chan error, 1)
	go func(srv *grpc.Server, served chan error) { served <- srv.Serve(l) }(n.srv, n.served)
}

// stop closes all connections at once, as a killed process does.
func (n *fakeNode) stop() {
	n.unfreeze()
	n.endLinks()
	n.srv.Stop()
	err := <-n.served
	n.served <- err // a second stop
}

func (n *fakeNode) freeze() {
	gate := make(chan struct{})
	n.frozen.Store(&gate)
}

func (n *fakeNode) unfreeze() {
	if gate := n.frozen.Swap(nil); gate != nil {
		close(*gate)
	}
}

// wait blocks while the node is frozen.
func (n *fakeNode) wait() {
	if gate := n.frozen.Load(); gate != nil {
		<-*gate
	}
}

func (n *fakeNode) setFault(f func(*api.PipelineOp) opFault) {
	if f == nil {
		n.fault.Store(nil)
		return
	}
	n.fault.Store(&f)
}

func (n *fakeNode) setRefuse(f func(ctx context.Context, method string) error) { n.refuse.Store(&f) }

func (n *fakeNode) check(ctx context.Context, method string) error {
	n.wait()
	if f := n.refuse.Load(); f != nil {
		return (*f)(ctx, method)
	}
	return nil
}

func (n *fakeNode) unaryFault(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := n.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (n *fakeNode) streamFault(srv any, s grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := n.check(s.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, s)
}

// serveLink is the Pipeline of a node on a link.
func (n *fakeNode) serveLink(ctx context.Context, conn net.Conn, info credentials.AuthInfo, maxBytes int) {
	l, err := pipelink.Accept(ctx, conn, info, maxBytes)
	if err != nil {
		return
	}
	n.linked.Add(1)
	l.Close(n.streamFault(n, l, &grpc.StreamServerInfo{FullMethod: api.KVStore_Pipeline_FullMethodName}, func(any, grpc.ServerStream) error {
		if err := l.Greet(); err != nil {
			return err
		}
		return n.Pipeline(&grpc.GenericServerStream[api.PipelineRequest, api.PipelineResponse]{ServerStream: l})
	}))
}

func (f *fakeCluster) endpoints() (out []string) {
	for _, n := range f.nodes {
		out = append(out, n.addr)
	}
	return out
}

// leaderOf returns the node that leads a key of the default namespace.
func (f *fakeCluster) leaderOf(key string) *fakeNode {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.nodes[f.leaders[groupOfSlot(int(keyspace.SlotOf(keyspace.DefaultNamespace, key)))-1]]
}

// groupOf is the owner of a slot as a node knows; nil knows the truth. mu must be held.
func (f *fakeCluster) groupOf(slot int, n *fakeNode) int {
	if f.moved[slot] && (n == nil || f.said[n]) {
		return 2
	}
	return groupOfSlot(slot)
}

// epochOf is the epoch of a node's map. mu must be held.
func (f *fakeCluster) epochOf(n *fakeNode) uint64 {
	if f.said[n] {
		return f.epoch + 1
	}
	return f.epoch
}

// moveSlots gives every second slot of group 1 to group 2; the nodes that know
// say so with a new epoch.
func (f *fakeCluster) moveSlots(know ...*fakeNode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.moved, f.said = map[int]bool{}, map[*fakeNode]bool{}
	for slot := 0; groupOfSlot(slot) == 1; slot += 2 {
		f.moved[slot] = true
	}
	for _, n := range know {
		f.said[n] = true
	}
}

// keysOf are keys of slots that moved, or stayed with group 1.
func (f *fakeCluster) keysOf(moved bool, n int) (keys []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := 0; len(keys) < n; i++ {
		key := "m" + strconv.Itoa(i)
		if slot := int(keyspace.SlotOf(keyspace.DefaultNamespace, key)); groupOfSlot(slot) == 1 && f.moved[slot] == moved {
			keys = append(keys, key)
		}
	}
	return keys
}

func groupOfSlot(slot int) int { return 1 + slot*fakeGroups/keyspace.SlotCount }

// keyLedBy finds a key that a node leads.
func (f *fakeCluster) keyLedBy(n *fakeNode, prefix string) string {
	for i := 0; ; i++ {
		if key := prefix + string(rune('a'+i%26)) + strings.Repeat("x", i/26); f.leaderOf(key) == n {
			return key
		}
	}
}

// move gives all groups of one node to another.
func (f *fakeCluster) move(from, to *fakeNode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for g, i := range f.leaders {
		if f.nodes[i] == from {
			f.leaders[g] = f.indexOf(to)
		}
	}
}

func (f *fakeCluster) indexOf(n *fakeNode) int {
	for i, m := range f.nodes {
		if m == n {
			return i
		}
	}
	panic("no such node: " + n.name)
}

func (f *fakeCluster) executions(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.executed[key]
}

// client connects with short times, and reads from leaders, so that tests know where;
// change adjusts the configuration.
func (f *fakeCluster) client(change func(*Config)) *Client {
	f.t.Helper()
	cfg := Config{
		Endpoints: f.endpoints(), Timeout: 20 * time.Second, ProbeAfter: 20 * time.Millisecond, ProbeTimeout: 100 * time.Millisecond,
		RetryBase: time.Millisecond, RetryMax: 20 * time.Millisecond, Read: Leader,
	}
	if change != nil {
		change(&cfg)
	}
	c, err := New(f.t.Context(), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	return c
}

// events is a log handler that passes messages on.
type events struct {
	slog.Handler
	ch chan string
}

func newEvents() *events {
	return &events{Handler: slog.DiscardHandler, ch: make(chan string, 1024)}
}

func (e *events) Enabled(context.Context, slog.Level) bool { return true }

func (e *events) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "address" {
			text += " " + a.Value.String()
		}
		return true
	})
	e.ch <- text
	return nil
}

// await returns when text was logged.
func (e *events) await(t *testing.T, text string) {
	t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	for {
		select {
		case got := <-e.ch:
			if got == text {
				return
			}
		case <-limit.C:
			t.Fatalf("%q was not logged within 10 s", text)
		}
	}
}

// Small assertions.

func mustPut(t *testing.T, c *Client, key, value string, opts ...PutOption) PutResult {
	t.Helper()
	r, err := c.Put(t.Context(), key, []byte(value), opts...)
	if err != nil {
		t.Fatalf("Put %q: %v", key, err)
	}
	return r
}

func wantValue(t *testing.T, c *Client, key, value string, opts ...GetOption) Record {
	t.Helper()
	r, err := c.Get(t.Context(), key, opts...)
	if err != nil {
		t.Fatalf("Get %q: %v", key, err)
	}
	if string(r.Value) != value {
		t.Fatalf("Get %q: value %q, want %q", key, r.Value, value)
	}
	return r
}

func wantError(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}
