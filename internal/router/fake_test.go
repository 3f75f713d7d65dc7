package router

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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
	locked   bool          // something is prepared
	each     int           // calls of GetEach
	calls    int           // that reads were confirmed for
	// scanning runs before each scan.
	scanning func(at []host.ScanPoint, r host.ScanRequest)
	reading  func() // runs before each Get

	mu      sync.Mutex
	rev     keyspace.Revision
	data    map[string]*format.Record
	old     map[string]*format.Record // the versions before; nil keeps none
	lost    error                     // of the next Get
	floor   keyspace.Revision
	submits [][]*replica.Request
	reads   []keyspace.GroupID
	scans   []host.ScanRequest
	clocks  []keyspace.Revision
	digests map[keyspace.GroupID]host.Digest
	// slots are what groups own; a group without owns what testMap gives it. Writes
	// of frozen ones are refused.
	slots  map[keyspace.GroupID]format.SlotSet
	frozen format.SlotSet
	// visits bounds the keys that a page looks at, 0 for all.
	visits int
	// records are those of transactions over several groups.
	records map[keyspace.TxnKey]fakeRecord
}

func newHost(self keyspace.NodeID) *fakeHost {
	return &fakeHost{
		self: self, rev: 1 << 16, data: make(map[string]*format.Record), old: make(map[string]*format.Record), digests: make(map[keyspace.GroupID]host.Digest),
		records: make(map[keyspace.TxnKey]fakeRecord),
		slots:   make(map[keyspace.GroupID]format.SlotSet),
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
		} else if !h.refuse(q) && q.Order == nil {
			h.apply(q)
		} else if q.Err == nil && q.Order != nil {
			h.order(q)
		}
		q.Done(q)
	}
}

// founded is the layout of groups that say nothing of slots.
var founded = testMap()

// set is what a group owns.
func (h *fakeHost) set(g keyspace.GroupID) format.SlotSet {
	if s, ok := h.slots[g]; ok {
		return s
	}
	return founded.Owned(g)
}

func (h *fakeHost) owns(g keyspace.GroupID, ns keyspace.NamespaceID, key string) error {
	slot := keyspace.SlotOf(ns, key)
	if s := h.set(g); ns != keyspace.SystemNamespace && !s.Has(slot) {
		return fault.New(fault.WrongGroup, "the group does not own the slot", "slot", slot, "group", g)
	}
	return nil
}

// refuse judges slots: one operation refuses all.
func (h *fakeHost) refuse(q *replica.Request) (refused bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q.Txn != nil {
		return h.refuseTxn(q)
	}
	for i := range q.Ops {
		o := &q.Ops[i]
		o.Result.Err = h.owns(q.Group, o.Namespace, o.Key)
		if o.Result.Err == nil && h.frozen.Has(keyspace.SlotOf(o.Namespace, o.Key)) {
			o.Result.Err = fault.New(fault.Unavailable, "the slot changes its owner").WithRetry(5 * time.Millisecond)
		}
		refused = refused || o.Result.Err != nil
	}
	for i := range q.Ops {
		if o := &q.Ops[i]; refused && o.Result.Err == nil {
			o.Result.Err = fault.New(fault.BatchAborted, "another item failed")
		}
	}
	return refused
}

// refuseTxn refuses the whole request, as the replica does.
func (h *fakeHost) refuseTxn(q *replica.Request) (refused bool) {
	for _, ops := range q.Sets() {
		for i := range ops {
			switch err := h.owns(q.Group, ops[i].Namespace, ops[i].Key); {
			case err != nil:
				q.Err = err
			case h.frozen.Has(keyspace.SlotOf(ops[i].Namespace, ops[i].Key)):
				q.Err = fault.New(fault.Unavailable, "the slot changes its owner").WithRetry(5 * time.Millisecond)
			}
		}
	}
	return q.Err != nil
}

// choose takes a list by checks of versions.
func (h *fakeHost) choose(t *replica.TxnOp) []replica.Op {
	for i := range t.Checks {
		var version uint64
		if rec := h.data[dataKey(t.Checks[i].Namespace, t.Checks[i].Key)]; rec != nil {
			version = rec.Version
		}
		if version != *t.Checks[i].Condition.Version {
			return t.Otherwise
		}
	}
	t.Succeeded = true
	return t.Then
}

// apply judges must_not_exist only; the rest is the replica's business.
func (h *fakeHost) apply(q *replica.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if q.Txn != nil {
		q.Ops = h.choose(q.Txn)
		for i := range q.Ops {
			if o := &q.Ops[i]; o.Read && h.data[dataKey(o.Namespace, o.Key)] != nil {
				old := h.data[dataKey(o.Namespace, o.Key)]
				o.Result = replica.OpResult{Existed: true, Version: old.Version, Revision: old.Revision}
			}
		}
	}
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
		if o.Read {
			continue
		}
		o.Result = replica.OpResult{Existed: old != nil, Version: 1, Revision: h.rev, Created: h.rev, Checksum: o.Checksum}
		if o.Touch {
			rec := *old
			rec.Version, rec.Revision, rec.Expires = old.Version+1, h.rev, h.rev.UnixMilli()+o.TTL.Milliseconds()
			o.Result.Version, o.Result.Created, o.Result.Expires, o.Result.Checksum = rec.Version, rec.Created, rec.Expires, rec.Checksum
			h.keepOld(k, old)
			h.data[k] = &rec
			continue
		}
		if o.Delete {
			h.keepOld(k, old)
			delete(h.data, k)
			continue
		}
		h.keepOld(k, old)
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

// keepOld keeps the last version that was replaced, unless it keeps none.
func (h *fakeHost) keepOld(k string, old *format.Record) {
	if h.old != nil && old != nil {
		h.old[k] = old
	}
}

func (h *fakeHost) ReadIndexAll(reads []host.Read) {
	for _, r := range reads {
		h.calls += r.Calls
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
	if h.reading != nil {
		h.reading()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.lost; err != nil {
		h.lost = nil
		return nil, err
	}
	if err := h.owns(p.Group, ns, key); err != nil {
		return nil, err
	}
	rec := h.data[dataKey(ns, key)]
	if rec == nil || rec.Revision > p.Rev {
		if old := h.old[dataKey(ns, key)]; old != nil && old.Revision <= p.Rev {
			return old, nil
		}
		return nil, fault.New(fault.NotFound, "key does not exist", "key", key)
	}
	return rec, nil
}

func (h *fakeHost) Locked(host.ReadPoint) bool { return h.locked }

func (h *fakeHost) GetEach(ctx context.Context, p host.ReadPoint, ns keyspace.NamespaceID, n int, key func(int) string, keysOnly bool,
	each func(int, *format.Record, error) bool) error {
	h.each++
	for i := range n {
		if rec, err := h.Get(ctx, p, ns, key(i), keysOnly); !each(i, rec, err) {
			break
		}
	}
	return nil
}

func (h *fakeHost) Clocks(ctx context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision) []host.ClockReading {
	var asks []host.ClockAsk
	for _, g := range groups {
		asks = append(asks, host.ClockAsk{Group: g, AtLeast: atLeast})
	}
	return h.AskClocks(ctx, asks)
}

func (h *fakeHost) AskClocks(_ context.Context, asks []host.ClockAsk) []host.ClockReading {
	if h.gate != nil {
		<-h.gate
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []host.ClockReading
	for _, a := range asks {
		h.clocks = append(h.clocks, a.AtLeast)
		h.rev = max(h.rev, a.AtLeast)
		out = append(out, host.ClockReading{Group: a.Group, Clock: h.rev + keyspace.Revision(a.Group), Index: 7, Term: 1})
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
	if h.scanning != nil {
		h.scanning(at, r)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.scans = append(h.scans, r)
	if len(at) > 1 && h.together != nil {
		return host.ScanPage{}, h.together
	}
	var page host.ScanPage
	var owned format.SlotSet
	for _, p := range at {
		_, says := h.slots[p.Group]
		s := h.set(p.Group)
		page.Overlap = page.Overlap || owned.Meets(&s)
		owned = owned.With(&s)
		if says {
			page.Slots = page.Slots.With(&s)
		} else {
			page.AnySlots, page.Silent = true, append(page.Silent, p.Group)
		}
	}
	var keys []string
	for k := range h.data {
		id, key, _ := strings.Cut(k, "/")
		n, _ := strconv.Atoi(id)
		ns := keyspace.NamespaceID(n)
		if ns != r.Namespace || key < string(r.Start) || len(r.End) > 0 && key >= string(r.End) {
			continue
		}
		for _, p := range at { // as often as groups own it
			if s := h.set(p.Group); ns == keyspace.SystemNamespace || s.Has(keyspace.SlotOf(ns, key)) {
				keys = append(keys, key)
			}
		}
	}
	sort.Strings(keys)
	if r.Reverse {
		slices.Reverse(keys)
	}
	given := 0
	for i, key := range keys {
		if given == r.Limit && !r.CountOnly || h.visits > 0 && i == h.visits {
			page.More = true
			if page.Next = []byte(keys[i-1]); !r.Reverse {
				page.Next = append(page.Next, 0)
			}
			break
		}
		rec := h.data[dataKey(r.Namespace, key)]
		switch {
		case !matches(rec.Tags, r.Tags):
		case r.CountOnly:
			page.Count++
		default:
			given++
			each([]byte(key), rec)
		}
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

func (p *fakePeers) Forward(ctx context.Context, id keyspace.NodeID) (ForwardStream, error) {
	c, err := p.Client(id)
	if err != nil {
		return nil, err
	}
	return c.(*fakeClient).forward(ctx)
}

type fakeClient struct {
	api.PeerClient
	forward func(ctx context.Context) (ForwardStream, error)
	scan    func(*api.GroupScanRequest) (*api.GroupScanResponse, error)
	clock   func(*api.GroupClockRequest) (*api.GroupClockResponse, error)
	call    func(ctx context.Context, q *api.CallRequest) (*api.CallResponse, error)
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
	keys  []string // of filled
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
		return &fakeClient{forward: func(ctx context.Context) (ForwardStream, error) {
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

func (h *fakeHost) PointBehind(_ context.Context, at host.ScanPoint, rev keyspace.Revision) (host.ReadPoint, error) {
	if _, err := h.PointAt(at.Group, rev); at.Index == 0 || fault.CodeOf(err) == fault.OutOfRange {
		return host.ReadPoint{}, err
	}
	return host.ReadPoint{Group: at.Group, Index: at.Index, Rev: rev, Clock: rev}, nil
}

func (h *fakeHost) Versions(_ context.Context, p host.ReadPoint, q host.VersionsRequest) (host.VersionsPage, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.owns(p.Group, q.Namespace, q.Key); err != nil {
		return host.VersionsPage{}, err
	}
	page := host.VersionsPage{Floor: h.floor}
	for _, rec := range []*format.Record{h.data[dataKey(q.Namespace, q.Key)], h.old[dataKey(q.Namespace, q.Key)]} {
		if rec != nil && (q.Until == 0 || rec.Revision <= q.Until) {
			if page.More = len(page.Versions) == q.Limit; !page.More {
				page.Versions = append(page.Versions, *rec)
			}
		}
	}
	return page, nil
}
