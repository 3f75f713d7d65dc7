package router_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/router"
	"kvstore/internal/server/peer"
	"kvstore/internal/watch/watchtest"
)

// cluster is a node whose replicas lead all groups, and routers: that of the node,
// and some of nodes without replicas, which forward to it.
type cluster struct {
	t      *testing.T
	node   *watchtest.Node
	here   *router.Router
	served atomic.Pointer[router.Router] // answers the others
	conn   *grpc.ClientConn
	// routers are all that were started.
	routers []*router.Router
	keys    map[keyspace.GroupID][]string

	mu   sync.Mutex
	gone []string // what detached heard; guarded by mu
}

const clusterGroups = 3

func newTxnCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t}
	c.node = watchtest.Growing(t, clusterGroups, 1, func(o *host.Options) {
		o.Hooks.Blocked = func(_ keyspace.GroupID, p *format.Prepared) {
			if r := c.served.Load(); r != nil {
				r.FinishTransaction(p)
			}
		}
		o.Hooks.Locked = o.Hooks.Blocked
	})
	c.serve()
	c.here = c.router("n1", c.node.Host)
	c.served.Store(c.here)
	c.eventually("all groups are led", func() bool {
		return c.node.Host.Clocks(t.Context(), []keyspace.GroupID{4}, 0)[0].Err == nil
	})
	c.keys = map[keyspace.GroupID][]string{}
	for i := 0; len(c.keys[1]) < 60 || len(c.keys[2]) < 60 || len(c.keys[3]) < 60; i++ {
		key := fmt.Sprint("k", i)
		g, _ := c.node.GroupOf(keyspace.SlotOf(keyspace.DefaultNamespace, key))
		c.keys[g] = append(c.keys[g], key)
	}
	return c
}

// key is the i-th key of a group.
func (c *cluster) key(g keyspace.GroupID, i int) string { return c.keys[g][i] }

// serve starts the peer server of the node.
func (c *cluster) serve() {
	s, err := peer.New(peer.Options{Streams: nobody{}, Prober: nobody{}})
	if err != nil {
		c.t.Fatal(err)
	}
	s.Serve(forwarder{c: c}, nil)
	listener := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	api.RegisterPeerServer(g, s)
	var wg sync.WaitGroup
	wg.Go(func() { _ = g.Serve(listener) })
	c.conn, err = grpc.NewClient("passthrough:///peer", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return listener.Dial() }))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = c.conn.Close()
		g.Stop()
		wg.Wait()
	})
}

// forwarder is the node's router for its peers.
type forwarder struct {
	peer.Router
	c *cluster
}

func (f forwarder) Execute(ctx context.Context, calls []*router.Call, done func(*router.Call)) {
	f.c.served.Load().Execute(ctx, calls, done)
}

func (f forwarder) ServeClock(ctx context.Context, q *api.GroupClockRequest) (*api.GroupClockResponse, error) {
	return f.c.served.Load().ServeClock(ctx, q)
}

func (f forwarder) ServeScan(ctx context.Context, q *api.GroupScanRequest) (*api.GroupScanResponse, error) {
	return f.c.served.Load().ServeScan(ctx, q)
}

func (f forwarder) ServeTxnLowWater(ctx context.Context, q *api.TxnLowWaterRequest) (*api.TxnLowWaterResponse, error) {
	return f.c.served.Load().ServeTxnLowWater(ctx, q)
}

type nobody struct{ peer.Streams }

func (nobody) Probe(context.Context, *api.ProbeRequest) (*api.ProbeResponse, error) {
	return &api.ProbeResponse{}, nil
}

// router starts a router; elsewhere its host is bare.
func (c *cluster) router(id keyspace.NodeID, h router.Host) *router.Router {
	c.t.Helper()
	r, err := router.New(router.Options{Node: id, Host: h, Peers: c, Directory: directory{c}, Clock: system.Clock(), Rand: system.Rand(), Detached: c.detached})
	if err != nil {
		c.t.Fatal(err)
	}
	r.SetGrace(100 * time.Millisecond)
	if err := r.Start(context.Background()); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = r.Close() })
	c.routers = append(c.routers, r)
	return r
}

// elsewhere is the router of another node.
func (c *cluster) elsewhere(id keyspace.NodeID) *router.Router {
	c.t.Helper()
	return c.router(id, bare{})
}

// Client implements router.Peers.
func (c *cluster) Client(keyspace.NodeID) (api.PeerClient, error) {
	return api.NewPeerClient(c.conn), nil
}

// Forward implements router.Peers.
func (c *cluster) Forward(ctx context.Context, _ keyspace.NodeID) (router.ForwardStream, error) {
	return api.NewPeerClient(c.conn).Forward(ctx)
}

// directory is the node's map of slots.
type directory struct{ c *cluster }

func (d directory) Refresh(context.Context) error { return nil }

func (d directory) Map() *router.Map {
	n := d.c.node
	record := format.SlotsRecord{Epoch: 1}
	members := map[keyspace.GroupID][]router.Member{}
	for g := range keyspace.GroupID(clusterGroups + 1) {
		record.Owners = append(record.Owners, format.SlotOwner{Group: g + 1, Slots: n.Owned(g + 1)})
		record.Epoch += uint64(record.Owners[g].Slots.Count()) * uint64(g) // differs after each change of these tests
		members[g+1] = []router.Member{{Replica: 1, Node: "n1"}}
	}
	return &router.Map{
		ClusterID: "test", Epoch: record.Epoch, Groups: clusterGroups + 1, Slots: router.NewSlotMap(&record, 1), Members: members,
		Nodes:      map[keyspace.NodeID]router.Node{"n1": {ID: "n1", Name: "n1"}},
		Namespaces: map[string]router.Namespace{"app": {ID: 16}, "dying": {ID: 17, Deleting: true}},
		ValidUntil: 1 << 62,
	}
}

// bare is a host without replicas.
type bare struct{ router.Host }

func (bare) Leader(keyspace.GroupID) (keyspace.NodeID, bool, bool) { return "n1", false, true }
func (bare) Hosts(keyspace.GroupID) bool                           { return false }
func (bare) Groups() []host.GroupStatus                            { return nil }
func (bare) SubmitAll(_ context.Context, rs []*replica.Request) {
	for _, r := range rs {
		r.Err = fault.New(fault.WrongLeader, "there is no replica here")
		r.Done(r)
	}
}
func (bare) Readable(context.Context, host.ScanPoint, keyspace.Revision) bool { return false }

func put(key, value string) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: key, Value: []byte(value)}}}
}

func get(key string) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Key: key}}}
}

func del(key string) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Key: key}}}
}

func version(key string, v uint64) *api.TransactionCheck {
	return &api.TransactionCheck{Key: key, Condition: &api.Condition{VersionMatch: &v}}
}

// within bounds a test's calls.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// txn executes a transaction that must not fail.
func (c *cluster) txn(r *router.Router, q *api.TransactionRequest) *api.TransactionResponse {
	c.t.Helper()
	out, err := r.Transaction(within(c.t, 20*time.Second), q)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// read reads a key linearizably; "" when it is not there.
func (c *cluster) read(r *router.Router, key string) string {
	c.t.Helper()
	out, err := r.Get(within(c.t, 20*time.Second), &api.GetRequest{Key: key})
	if fault.CodeOf(err) == fault.NotFound {
		return ""
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return string(out.GetRecord().GetValue())
}

// eventually waits for a condition.
func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	ctx := within(c.t, 20*time.Second)
	for !ok() {
		if err := system.Pause(ctx, 2*time.Millisecond); err != nil {
			c.t.Fatalf("not in time: %s", what)
		}
	}
}

// settled waits until no transaction is under way.
func (c *cluster) settled() {
	c.t.Helper()
	c.eventually("nothing is prepared", func() bool {
		for _, r := range c.routers {
			if r.TransactionStats().Active > 0 {
				return false
			}
		}
		for _, g := range c.node.Host.Groups() {
			if len(g.Prepared) > 0 {
				return false
			}
		}
		return true
	})
}
