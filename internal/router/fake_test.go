package router

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// bubbleClock follows the (synthetic) time of the test.
type bubbleClock struct{ start time.Time }

func newClock() bubbleClock               { return bubbleClock{time.Now().Add(-time.Hour)} }
func (c bubbleClock) Wall() int64         { return time.Now().UnixMilli() }
func (c bubbleClock) Mono() time.Duration { return time.Since(c.start) }

// countRand counts, which is random enough for pauses.
type countRand struct {
	mu sync.Mutex
	n  uint64
}

func (r *countRand) Uint64() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.n += 0x9e3779b97f4a7c15
	return r.n
}

// fakeHost keeps records in memory; every function field replaces a part.
type fakeHost struct {
	self    keyspace.NodeID
	leaders func(g keyspace.GroupID) (keyspace.NodeID, bool)
	hosted  func(g keyspace.GroupID) bool
	submit  func(rs []*replica.Request) (handled bool)
	read    func(g keyspace.GroupID, done func(host.ReadPoint, error)) (handled bool)
	stale   func(g keyspace.GroupID, maxAge time.Duration) (host.ReadPoint, error)
	digest  func(keyspace.GroupID) (keyspace.Index, error)
	// readable says what a list may read here; together makes that fail.
	readable func(keyspace.GroupID) bool
	together error
	gate     chan struct{} // holds Clocks until it is closed

	mu      sync.Mutex
	rev     keyspace.Revision
	data    map[string]*format.Record
	floor   keyspace.Revision
	submits [][]*replica.Request
	reads   []keyspace.GroupID
	scans   []host.ScanRequest
	clocks  []keyspace.Revision
	digests map[keyspace.GroupID]host.Digest
}

func newHost(self keyspace.NodeID) *fakeHost {
	return &fakeHost{
		self: self, rev: 1 << 16, data: make(map[string]*format.Record), digests: make(map[keyspace.GroupID]host.Digest),
		leaders: func(keyspace.GroupID) (keyspace.NodeID, bool) { return self, true },
		hosted:  func(keyspace.GroupID) bool { return true },
	}
}

func dataKey(ns keyspace.NamespaceID, key string) string { return fmt.Sprintf("%d/%s", ns, key) }

func (h *fakeHost) SubmitAll(_ context.Context, rs []*replica.Request) {
	h.mu.Lock()
	h.submits = append(h.submits, rs)
	h.mu.Unlock()
	if h.submit != nil && h.submit(rs) {
		return
	}
	for _, q := range rs {
		if _, local, _ := h.Leader(q.Group); !local {
			q.Err = fault.New(fault.WrongLeader, "not the leader")
		} else {
			h.apply(q)
		}
		q.Done(q)
	}
}

// apply judges must_not_exist only; the rest is the replica's business.
func (h *fakeHost) apply(q *replica.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range q.Ops {
		if o := &q.Ops[i]; o.Condition.MustNotExist && h.data[dataKey(o.Namespace, o.Key)] != nil {
			for j := range q.Ops {
				q.Ops[j].Result.Err = fault.New(fault.BatchAborted, "another item failed")
			}
			o.Result.Err = fault.New(fault.ConditionFailed, "key exists", "key", o.Key)
			return
		}
	}
	h.rev++
	for i := range q.Ops {
		o := &q.Ops[i]
		k := dataKey(o.Namespace, o.Key)
		old := h.data[k]
		o.Result = replica.OpResult{Existed: old != nil, Version: 1, Revision: h.rev, Created: h.rev}
		if o.Delete {
			delete(h.data, k)
			continue
		}
		if old != nil {
			o.Result.Version, o.Result.Created = old.Version+1, old.Created
		}
		h.data[k] = &format.Record{
			Header: format.Header{Version: o.Result.Version, Revision: h.rev, Created: o.Result.Created,
				Size: uint64(len(o.Value)), Checksum: o.Checksum},
			Tags: o.Tags, Value: o.Value,
		}
	}
}

func (h *fakeHost) ReadIndexAll(reads []host.Read) {
	for _, r := range reads {
		h.readIndex(r.Group, r.Done)
	}
}

func (h *fakeHost) readIndex(g keyspace.GroupID, done func(host.ReadPoint, error)) {
	h.mu.Lock()
	h.reads = append(h.reads, g)
	point := host.ReadPoint{Group: g, Rev: h.rev, Clock: h.rev}
	h.mu.Unlock()
	if h.read != nil && h.read(g, done) {
		return
	}
	done(point, nil)
}

func (h *fakeHost) StaleRead(g keyspace.GroupID, maxAge time.Duration) (host.ReadPoint, error) {
	if h.stale == nil {
		return host.ReadPoint{}, fault.New(fault.Unavailable, "too far behind")
	}
	return h.stale(g, maxAge)
}

func (h *fakeHost) PointAt(g keyspace.GroupID, rev keyspace.Revision) (host.ReadPoint, error) {
	if rev < h.floor {
		return host.ReadPoint{}, fault.New(fault.OutOfRange, "below the floor", "floor", uint64(h.floor))
	}
	return host.ReadPoint{}, fault.New(fault.FailedPrecondition, "not closed")
}

func (h *fakeHost) Get(_ context.Context, p host.ReadPoint, ns keyspace.NamespaceID, key string, keysOnly bool) (*format.Record, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rec := h.data[dataKey(ns, key)]
	if rec == nil || rec.Revision > p.Rev {
		return nil, fault.New(fault.NotFound, "key does not exist", "key", key)
	}
	return rec, nil
}

func (h *fakeHost) GetEach(ctx context.Context, p host.ReadPoint, ns keyspace.NamespaceID, n int, key func(int) string, keysOnly bool,
	each func(int, *format.Record, error) bool) error {
	for i := range n {
		if rec, err := h.Get(ctx, p, ns, key(i), keysOnly); !each(i, rec, err) {
			break
		}
	}
	return nil
}

func (h *fakeHost) Clocks(_ context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision) []host.ClockReading {
	if h.gate != nil {
		<-h.gate
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []host.ClockReading
	for _, g := range groups {
		h.clocks = append(h.clocks, atLeast)
		h.rev = max(h.rev, atLeast)
		out = append(out, host.ClockReading{Group: g, Clock: h.rev + keyspace.Revision(g), Index: 7})
	}
	return out
}

func (h *fakeHost) Readable(_ context.Context, p host.ScanPoint, _ keyspace.Revision) bool {
	return p.Index > 0 && (h.readable == nil || h.readable(p.Group))
}

func (h *fakeHost) ScanGroup(ctx context.Context, g keyspace.GroupID, r host.ScanRequest, each func([]byte, *format.Record)) (host.ScanPage, error) {
	return h.ScanTogether(ctx, []host.ScanPoint{{Group: g}}, r, each)
}

// ScanTogether serves the keys of groups in order.
func (h *fakeHost) ScanTogether(_ context.Context, at []host.ScanPoint, r host.ScanRequest, each func([]byte, *format.Record)) (host.ScanPage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scans = append(h.scans, r)
	if len(at) > 1 && h.together != nil {
		return host.ScanPage{}, h.together
	}
	m := testMap()
	var keys []string
	for k := range h.data {
		var ns keyspace.NamespaceID
		var key string
		_, _ = fmt.Sscanf(k, "%d/%s", &ns, &key)
		owner, _ := m.GroupOfKey(ns, key)
		asked := slices.ContainsFunc(at, func(p host.ScanPoint) bool { return p.Group == owner })
		if ns == r.Namespace && asked && key >= string(r.Start) && (len(r.End) == 0 || key < string(r.End)) {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	if r.Reverse {
		slices.Reverse(keys)
	}
	var page host.ScanPage
	given := 0
	for i, key := range keys {
		rec := h.data[dataKey(r.Namespace, key)]
		if !matches(rec.Tags, r.Tags) {
			continue
		}
		if r.CountOnly {
			page.Count++
			continue
		}
		if given == r.Limit {
			page.More = true
			if page.Next = []byte(keys[i-1]); !r.Reverse {
				page.Next = append(page.Next, 0)
			}
			break
		}
		given++
		each([]byte(key), rec)
	}
	return page, nil
}

func matches(tags, want map[string]string) bool {
	for k, v := range want {
		if tags[k] != v {
			return false
		}
	}
	return true
}

func (h *fakeHost) Groups() []host.GroupStatus { return nil }

func (h *fakeHost) Leader(g keyspace.GroupID) (keyspace.NodeID, bool, bool) {
	node, known := h.leaders(g)
	return node, known && node == h.self, known
}

func (h *fakeHost) Hosts(g keyspace.GroupID) bool { return h.hosted(g) }

func (h *fakeHost) RequestDigest(_ context.Context, g keyspace.GroupID) (keyspace.Index, error) {
	return h.digest(g)
}

func (h *fakeHost) DigestAt(g keyspace.GroupID, index keyspace.Index) (host.Digest, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.digests[g]
	return d, ok && d.Index == index
}

// fakeDirectory has a map that refresh may change.
type fakeDirectory struct {
	mu      sync.Mutex
	m       *Map
	refresh func(m *Map) error
	calls   int
}

func (d *fakeDirectory) Map() *Map {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.m
}

func (d *fakeDirectory) Refresh(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls++
	next := *d.m
	if d.refresh != nil {
		if err := d.refresh(&next); err != nil {
			return err
		}
	}
	d.m = &next
	return nil
}

const testGroups = 4

func testMap() *Map {
	m := &Map{
		ClusterID: "c", ClusterName: "test", Epoch: 7, Groups: testGroups, ReplicationFactor: 3,
		Members: make(map[keyspace.GroupID][]Member), Nodes: make(map[keyspace.NodeID]Node),
		Namespaces: map[string]Namespace{"app": {ID: 16}, "gone": {ID: 17, Deleting: true}},
		ValidUntil: 1 << 62,
	}
	for _, id := range []keyspace.NodeID{"a", "b", "c"} {
		m.Nodes[id] = Node{ID: id, Name: "node-" + string(id)}
	}
	for g := range keyspace.GroupID(testGroups + 1) {
		m.Members[g] = []Member{{1, "a", false}, {2, "b", false}, {3, "c", false}}
	}
	return m
}

// fakePeers serves Forward and the unary calls by functions.
type fakePeers struct {
	client func(id keyspace.NodeID) (api.PeerClient, error)
}

func (p *fakePeers) Client(id keyspace.NodeID) (api.PeerClient, error) {
	if p.client == nil {
		return nil, status.Error(codes.Unavailable, "no such peer")
	}
	return p.client(id)
}

type fakeClient struct {
	api.PeerClient
	forward func(ctx context.Context) (forwardStream, error)
	scan    func(*api.GroupScanRequest) (*api.GroupScanResponse, error)
	clock   func(*api.GroupClockRequest) (*api.GroupClockResponse, error)
	call    func(ctx context.Context, q *api.CallRequest) (*api.CallResponse, error)
}

func (c *fakeClient) Forward(ctx context.Context, _ ...grpc.CallOption) (grpc.BidiStreamingClient[api.ForwardFrame, api.PipelineResponse], error) {
	return c.forward(ctx)
}

func (c *fakeClient) GroupScan(_ context.Context, q *api.GroupScanRequest, _ ...grpc.CallOption) (*api.GroupScanResponse, error) {
	return c.scan(q)
}

func (c *fakeClient) GroupClock(_ context.Context, q *api.GroupClockRequest, _ ...grpc.CallOption) (*api.GroupClockResponse, error) {
	return c.clock(q)
}

func (c *fakeClient) Call(ctx context.Context, q *api.CallRequest, _ ...grpc.CallOption) (*api.CallResponse, error) {
	return c.call(ctx, q)
}

// fakeStream is the client's side of a Forward stream; the test is the server.
type fakeStream struct {
	ctx    context.Context
	frames chan *api.ForwardFrame
	answer chan *api.PipelineResponse
	broken chan error
}

func newStream(ctx context.Context) *fakeStream {
	return &fakeStream{ctx: ctx, frames: make(chan *api.ForwardFrame, 64),
		answer: make(chan *api.PipelineResponse, 64), broken: make(chan error, 1)}
}

func (s *fakeStream) Send(f *api.ForwardFrame) error {
	select {
	case s.frames <- f:
		return nil
	case <-s.ctx.Done():
		return io.EOF
	}
}

func (s *fakeStream) Recv() (*api.PipelineResponse, error) {
	select {
	case m := <-s.answer:
		return m, nil
	case err := <-s.broken:
		return nil, err
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func (s *fakeStream) Header() (metadata.MD, error) { return nil, nil }
func (s *fakeStream) Trailer() metadata.MD         { return nil }
func (s *fakeStream) CloseSend() error             { return nil }
func (s *fakeStream) Context() context.Context     { return s.ctx }
func (s *fakeStream) SendMsg(any) error            { panic("unused") }
func (s *fakeStream) RecvMsg(any) error            { panic("unused") }

// serve answers every operation of a stream with f.
func (s *fakeStream) serve(f func(identity string, op *api.PipelineOp) *api.PipelineResult) {
	for {
		select {
		case frame := <-s.frames:
			resp := &api.PipelineResponse{}
			for _, op := range frame.Ops {
				if res := f(frame.Identity, op); res != nil {
					res.Id = op.Id
					resp.Results = append(resp.Results, res)
				}
			}
			if len(resp.Results) > 0 {
				s.answer <- resp
			}
		case <-s.ctx.Done():
			return
		}
	}
}

// fixture is a router on node "a" with fakes around it.
type fixture struct {
	*Router
	host  *fakeHost
	dir   *fakeDirectory
	peers *fakePeers
}

func newFixture(t *testing.T, change ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{host: newHost("a"), dir: &fakeDirectory{m: testMap()}, peers: &fakePeers{}}
	o := Options{Node: "a", Host: f.host, Peers: f.peers, Directory: f.dir, Clock: newClock(), Rand: &countRand{}}
	for _, c := range change {
		c(&o)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Router = r
	if err := r.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// remote makes node the only leader, not hosted here, served by serve.
func (f *fixture) remote(node keyspace.NodeID, serve func(identity string, op *api.PipelineOp) *api.PipelineResult) {
	f.host.hosted = func(keyspace.GroupID) bool { return false }
	f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "", false }
	for g := range keyspace.GroupID(testGroups + 1) {
		f.hints.set(g, node)
	}
	f.peers.client = func(id keyspace.NodeID) (api.PeerClient, error) {
		return &fakeClient{forward: func(ctx context.Context) (forwardStream, error) {
			s := newStream(ctx)
			go s.serve(func(identity string, op *api.PipelineOp) *api.PipelineResult { return serve(identity, op) })
			return s, nil
		}}, nil
	}
}

func putCall(ns, key, value string) *Call {
	return &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_Put{Put: &api.PutRequest{Namespace: ns, Key: key, Value: []byte(value)}}}}
}

func getCall(ns, key string) *Call {
	return &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{Namespace: ns, Key: key}}}}
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != code {
		t.Fatalf("got %q (%v), want %q", got, err, code)
	}
}
