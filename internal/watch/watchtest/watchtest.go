// Package watchtest is one node's groups for tests of watches: real replicas, each
// its group's only one, over simulated disks, and a cluster of hubs around them.
package watchtest

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/engine/mem"
	"kvstore/internal/env/simfs"
	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/raftlog"
	"kvstore/internal/replica"
	"kvstore/internal/sstable"
	"kvstore/internal/watch"
)

// Node is a node that leads all groups.
type Node struct {
	t      testing.TB
	Groups int // founded with slots
	more   int // founded without
	mu     sync.Mutex
	owner  [keyspace.SlotCount]keyspace.GroupID // the map; guarded by mu
	Host   *host.Host
	disk   *simfs.FS
	engine *mem.Mem
	change func(*host.Options)
}

// New starts a node with groups 1 to n; change may be nil.
func New(t testing.TB, groups int, change func(*host.Options)) *Node {
	t.Helper()
	return Growing(t, groups, 0, change)
}

// Growing is New with more groups behind, which own nothing.
func Growing(t testing.TB, groups, more int, change func(*host.Options)) *Node {
	t.Helper()
	n := &Node{t: t, Groups: groups, more: more, disk: simfs.New(), engine: mem.Open(), change: change}
	for g := range groups {
		n.Record(format.FoundingSlots(keyspace.GroupID(g+1), groups), keyspace.GroupID(g+1))
	}
	n.open(true)
	t.Cleanup(func() { _ = n.Host.Close() })
	return n
}

// Restart stops the node and starts it again on the same disk.
func (n *Node) Restart() {
	n.t.Helper()
	if err := n.Host.Close(); err != nil {
		n.t.Fatal(err)
	}
	n.open(false)
}

func (n *Node) open(first bool) {
	n.t.Helper()
	must := func(err error) {
		n.t.Helper()
		if err != nil {
			n.t.Fatal(err)
		}
	}
	log, err := raftlog.Open(n.disk, "log", raftlog.Options{SegmentBytes: 1 << 20, Inline: true, Clock: system.Clock(), Rand: rand.New(rand.NewPCG(1, 2))})
	must(err)
	past, err := sstable.OpenHistory(n.disk, "history", sstable.Options{})
	must(err)
	runs, err := sstable.OpenRuns(n.disk, "runs", sstable.Options{})
	must(err)
	o := host.Options{Node: "n1", ClusterID: "test", Log: log, Engine: n.engine, Out: nowhere{}, Clock: system.Clock(), Rand: system.Rand(),
		Store:        mvcc.New(n.engine, mvcc.Options{SealBytes: 256 << 10, History: past, Runs: runs}),
		TickInterval: 5 * time.Millisecond}
	if n.change != nil {
		n.change(&o)
	}
	n.Host, err = host.New(o)
	must(err)
	if first {
		var seeds []host.GroupSeed
		for g := range n.Groups + n.more {
			seeds = append(seeds, host.GroupSeed{Group: keyspace.GroupID(g + 1), Members: []format.Member{{Replica: 1, Node: "n1"}}, Self: 1,
				Slots: format.FoundingSlots(keyspace.GroupID(g+1), n.Groups)})
		}
		must(n.Host.Bootstrap(seeds))
	}
	n.Host.Start(context.Background())
}

type nowhere struct{}

func (nowhere) Send(keyspace.NodeID, *api.GroupMessage) {}
func (nowhere) Flush()                                  {}

// Write executes operations of one group atomically and returns them with their
// results.
func (n *Node) Write(ops ...replica.Op) []replica.Op {
	n.t.Helper()
	for {
		g, _ := n.GroupOf(keyspace.SlotOf(ops[0].Namespace, ops[0].Key))
		done := make(chan struct{})
		r := &replica.Request{Group: g, Ops: slices.Clone(ops), Done: func(*replica.Request) { close(done) }}
		n.Host.Submit(context.Background(), r)
		<-done
		switch fault.CodeOf(r.Err) {
		case "":
			return r.Ops
		case fault.WrongLeader, fault.WrongGroup, fault.Unavailable, fault.Overloaded:
			n.pause()
		default:
			n.t.Fatal(r.Err)
		}
	}
}

func (n *Node) pause() {
	n.t.Helper()
	if err := system.Pause(n.t.Context(), time.Millisecond); err != nil {
		n.t.Fatal(err)
	}
}

// Put writes one key.
func (n *Node) Put(key, value string) keyspace.Revision {
	n.t.Helper()
	return n.Write(PutOp(key, value))[0].Result.Revision
}

// PutOp is an operation on a key of the default namespace.
func PutOp(key, value string) replica.Op {
	return replica.Op{Namespace: keyspace.DefaultNamespace, Key: key, Value: []byte(value), Checksum: format.CRC32C([]byte(value))}
}

// DeleteOp deletes a key of the default namespace.
func DeleteOp(key string) replica.Op {
	return replica.Op{Namespace: keyspace.DefaultNamespace, Key: key, Delete: true}
}

// WatchedNamespace implements watch.Router.
func (n *Node) WatchedNamespace(_ context.Context, name string) (keyspace.NamespaceID, error) {
	if name != "" && name != keyspace.DefaultNamespaceName {
		return 0, fault.New(fault.NamespaceNotFound, "there is no such namespace", "namespace", name)
	}
	return keyspace.DefaultNamespace, nil
}

// GroupOf implements watch.Router.
func (n *Node) GroupOf(slot keyspace.SlotID) (keyspace.GroupID, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.owner[slot], true
}

// DataGroups implements watch.Router.
func (n *Node) DataGroups() (all []keyspace.GroupID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, g := range n.owner {
		if !slices.Contains(all, g) {
			all = append(all, g)
		}
	}
	slices.Sort(all)
	return all
}

// Owned implements watch.Router.
func (n *Node) Owned(g keyspace.GroupID) (s format.SlotSet) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for slot, owner := range n.owner {
		if owner == g {
			s.Add(keyspace.SlotID(slot))
		}
	}
	return s
}

// Refresh implements watch.Router.
func (n *Node) Refresh(context.Context) error { return nil }

// Holders implements watch.Router.
func (n *Node) Holders(keyspace.GroupID) []keyspace.NodeID { return []keyspace.NodeID{"n1"} }

// ReadClocks implements watch.Router.
func (n *Node) ReadClocks(ctx context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision) (out []host.ClockReading) {
	for _, c := range n.Host.Clocks(ctx, groups, atLeast) {
		if c.Err == nil {
			out = append(out, c)
		}
	}
	return out
}

// Client implements watch.Peers: nobody else is there.
func (n *Node) Client(keyspace.NodeID) (api.PeerClient, error) {
	return nil, fault.New(fault.Unavailable, "there is no other node")
}

// Hub starts a hub on the node; change may be nil.
func (n *Node) Hub(change func(*watch.Options)) *watch.Hub {
	n.t.Helper()
	return n.start(watch.Options{Host: watch.FromHost(n.Host), Router: n, Peers: n, Clock: system.Clock()}, change)
}

// Elsewhere starts the hub of a node without replicas, which asks at's node.
func (n *Node) Elsewhere(at *watch.Hub, change func(*watch.Options)) *watch.Hub {
	n.t.Helper()
	return n.start(watch.Options{Host: bare{}, Router: n, Peers: peers{at}, Clock: system.Clock()}, change)
}

func (n *Node) start(o watch.Options, change func(*watch.Options)) *watch.Hub {
	n.t.Helper()
	if change != nil {
		change(&o)
	}
	h, err := watch.New(o)
	if err != nil {
		n.t.Fatal(err)
	}
	h.Start()
	n.t.Cleanup(func() { _ = h.Close() })
	return h
}

// bare is a host without replicas.
type bare struct{}

func errBare() error { return fault.New(fault.WrongLeader, "there is no replica here") }

func (bare) Follow(context.Context, keyspace.GroupID, func()) (watch.Feed, host.FeedPage, error) {
	return nil, host.FeedPage{}, errBare()
}

func (bare) Past(context.Context, host.PastRequest) (host.PastPage, error) {
	return host.PastPage{}, errBare()
}

func (bare) VersionAt(keyspace.GroupID, []byte, keyspace.Revision, bool) (*format.Record, error) {
	return nil, errBare()
}

func (bare) Hosts(keyspace.GroupID) bool { return false }

// peers is a client of one hub.
type peers struct{ hub *watch.Hub }

func (p peers) Client(keyspace.NodeID) (api.PeerClient, error) { return peer{hub: p.hub}, nil }

type peer struct {
	api.PeerClient
	hub *watch.Hub
}

func (p peer) GroupEvents(ctx context.Context, q *api.GroupEventsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[api.GroupEventsResponse], error) {
	s := &events{messages: make(chan *api.GroupEventsResponse), ended: make(chan error, 1)}
	go func() {
		s.ended <- p.hub.ServeEvents(ctx, q, func(m *api.GroupEventsResponse) error {
			select {
			case s.messages <- m:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return s, nil
}

func (p peer) GroupVersion(_ context.Context, q *api.GroupVersionRequest, _ ...grpc.CallOption) (*api.GroupVersionResponse, error) {
	return p.hub.ServeVersion(q)
}

type events struct {
	grpc.ClientStream
	messages chan *api.GroupEventsResponse
	ended    chan error
}

func (s *events) Recv() (*api.GroupEventsResponse, error) {
	select {
	case m := <-s.messages:
		return m, nil
	case err := <-s.ended:
		if err == nil {
			err = io.EOF
		}
		return nil, err
	}
}
