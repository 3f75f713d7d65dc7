package meta

import (
	"context"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

type bubbleClock struct{ start time.Time }

func (c bubbleClock) Wall() int64         { return time.Now().UnixMilli() }
func (c bubbleClock) Mono() time.Duration { return time.Since(c.start) }

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

// fakeStore is a linearizable store of all namespaces in one map.
type fakeStore struct {
	mu   sync.Mutex
	rev  uint64
	data map[string]*api.Record // namespace/key
	// before runs ahead of each write, with mu held.
	before func(key string) error
	// deleting runs ahead of each batch of deletions, with mu held.
	deleting func()
	// deleted may lose the answer to a batch of deletions, with mu held.
	deleted func(*api.BatchDeleteResponse) (*api.BatchDeleteResponse, error)
	lists   int
}

func newStore() *fakeStore { return &fakeStore{data: make(map[string]*api.Record)} }

func (s *fakeStore) Get(_ context.Context, q *api.GetRequest) (*api.GetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.data[q.Namespace+"/"+q.Key]
	if r == nil {
		return nil, fault.New(fault.NotFound, "no key", "key", q.Key)
	}
	return &api.GetResponse{Record: r}, nil
}

func (s *fakeStore) check(key string, c *api.Condition) error {
	if s.before != nil {
		if err := s.before(key); err != nil {
			return err
		}
	}
	old := s.data[key]
	switch {
	case c == nil:
	case c.MustNotExist && old != nil, c.VersionMatch != nil && *c.VersionMatch != old.GetVersion(),
		c.RevisionMatch != nil && *c.RevisionMatch != old.GetRevision():
		return fault.New(fault.ConditionFailed, "condition failed", "key", key)
	}
	return nil
}

func (s *fakeStore) write(key string, q *api.PutRequest) {
	s.rev++
	s.data[key] = &api.Record{Key: q.Key, Value: q.Value, Version: s.data[key].GetVersion() + 1, Revision: s.rev}
}

func (s *fakeStore) Put(_ context.Context, q *api.PutRequest) (*api.PutResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := q.Namespace + "/" + q.Key
	if err := s.check(key, q.Condition); err != nil {
		return nil, err
	}
	s.write(key, q)
	return &api.PutResponse{}, nil
}

func (s *fakeStore) Delete(_ context.Context, q *api.DeleteRequest) (*api.DeleteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := q.Namespace + "/" + q.Key
	if err := s.check(key, q.Condition); err != nil {
		return nil, err
	}
	delete(s.data, key)
	return &api.DeleteResponse{Existed: true}, nil
}

func (s *fakeStore) BatchPut(_ context.Context, q *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.BatchPutResponse{Results: make([]*api.BatchPutResult, len(q.Items))}
	failed := false
	for i, item := range q.Items {
		err := s.check(q.Namespace+"/"+item.Key, item.Condition)
		failed = failed || err != nil
		out.Results[i] = &api.BatchPutResult{Status: router.ErrorStatus(err)}
	}
	for i, item := range q.Items {
		if !failed {
			s.write(q.Namespace+"/"+item.Key, item)
		} else if out.Results[i].Status == nil {
			out.Results[i].Status = router.ErrorStatus(fault.New(fault.BatchAborted, "another item failed"))
		}
	}
	return out, nil
}

func (s *fakeStore) BatchDelete(_ context.Context, q *api.BatchDeleteRequest) (*api.BatchDeleteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deleting != nil {
		s.deleting()
	}
	out := &api.BatchDeleteResponse{Results: make([]*api.BatchDeleteResult, len(q.Items))}
	failed := false
	for i, item := range q.Items {
		err := s.check(q.Namespace+"/"+item.Key, item.Condition)
		if err != nil && fault.CodeOf(err) != fault.ConditionFailed {
			return nil, err
		}
		failed = failed || err != nil
		out.Results[i] = &api.BatchDeleteResult{Status: router.ErrorStatus(err)}
	}
	for i, item := range q.Items {
		switch res := out.Results[i]; {
		case !failed:
			delete(s.data, q.Namespace+"/"+item.Key)
			res.Delete = &api.DeleteResponse{Existed: true}
		case res.Status == nil:
			res.Status = router.ErrorStatus(fault.New(fault.BatchAborted, "another item failed"))
		}
	}
	if s.deleted != nil {
		return s.deleted(out)
	}
	return out, nil
}

// List returns pages of at most 100 keys; the token is the last key.
func (s *fakeStore) List(_ context.Context, q *api.ListRequest) (*api.ListResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	var keys []string
	for k := range s.data {
		if ns, key, _ := strings.Cut(k, "/"); ns == q.Namespace && key > q.ContinuationToken && within(key, q) {
			keys = append(keys, k)
		}
	}
	if q.CountOnly {
		return &api.ListResponse{Count: uint64(len(keys)), Revision: s.rev}, nil
	}
	sort.Strings(keys)
	out := &api.ListResponse{Revision: s.rev}
	for i, k := range keys {
		if i == 100 {
			out.ContinuationToken = out.Records[i-1].Key
			break
		}
		out.Records = append(out.Records, s.data[k])
	}
	return out, nil
}

func within(key string, q *api.ListRequest) bool {
	return strings.HasPrefix(key, q.Prefix) && key >= q.Start && (q.End == "" || key < q.End)
}

func (s *fakeStore) count(ns string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for k := range s.data {
		if strings.HasPrefix(k, ns+"/") {
			n++
		}
	}
	return n
}

// fakeHost hosts no replica, so that everything goes through the store.
type fakeHost struct {
	mu      sync.Mutex
	leading bool
}

func (h *fakeHost) lead(b bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leading = b
}

func (h *fakeHost) Hosts(keyspace.GroupID) bool { return false }
func (h *fakeHost) Leader(keyspace.GroupID) (keyspace.NodeID, bool, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return "", h.leading, h.leading
}
func (h *fakeHost) ReadIndex(context.Context, keyspace.GroupID, func(host.ReadPoint, error)) {
	panic("unused")
}
func (h *fakeHost) PointAt(keyspace.GroupID, keyspace.Revision) (host.ReadPoint, error) {
	panic("unused")
}
func (h *fakeHost) Scan(context.Context, keyspace.GroupID, host.ScanRequest) (host.ScanPage, error) {
	panic("unused")
}

type fakePeers struct {
	mu    sync.Mutex
	addrs map[keyspace.NodeID]string
	gone  map[keyspace.NodeID]string
}

func (p *fakePeers) SetGone(gone map[keyspace.NodeID]string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = gone
}

func (p *fakePeers) SetPeer(id keyspace.NodeID, addr string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.addrs[id] = addr
	return nil
}

func (p *fakePeers) RemovePeer(id keyspace.NodeID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.addrs, id)
}

type fixture struct {
	*Service
	store *fakeStore
	host  *fakeHost
	peers *fakePeers
	dir   *Directory
}

func record(name string) format.NodeRecord {
	return format.NodeRecord{ID: keyspace.NodeID("id-" + name), Name: name, Peer: name + ":7946"}
}

func seed() Seed {
	return Seed{
		Cluster: format.ClusterRecord{ID: "cluster", Name: "test", Groups: 4, ReplicationFactor: 3},
		Nodes:   []format.NodeRecord{record("a"), record("b"), record("c")},
	}
}

// newFixture starts the service of node a over store.
func newFixture(t *testing.T, store *fakeStore, change ...func(*Options)) *fixture {
	t.Helper()
	f := &fixture{store: store, host: &fakeHost{leading: true}, dir: NewDirectory(seed()),
		peers: &fakePeers{addrs: make(map[keyspace.NodeID]string)}}
	o := Options{Self: record("a"), Directory: f.dir, Store: store, Host: f.host, Peers: f.peers,
		Clock: bubbleClock{time.Now().Add(-time.Hour)}, Rand: &countRand{}}
	for _, c := range change {
		c(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.Service = s
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func wantCode(t *testing.T, err error, code fault.Code) {
	t.Helper()
	if got := fault.CodeOf(err); got != code {
		t.Fatalf("got %q (%v), want %q", got, err, code)
	}
}
