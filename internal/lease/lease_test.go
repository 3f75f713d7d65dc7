package lease_test

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/node/nodetest"
	"kvstore/internal/server/status"
)

// cluster is a node and its clients.
type cluster struct {
	*nodetest.Node
	t      *testing.T
	conn   *grpc.ClientConn
	kv     api.KVStoreClient
	leases api.LeasesClient
}

func newCluster(t *testing.T, groups int) *cluster {
	t.Helper()
	c := &cluster{Node: nodetest.Start(t, groups), t: t}
	conn, err := grpc.NewClient(c.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	c.conn, c.kv, c.leases = conn, api.NewKVStoreClient(conn), api.NewLeasesClient(conn)
	return c
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	c.t.Cleanup(cancel)
	return ctx
}

func (c *cluster) grant(id string, seconds int64) *api.Lease {
	c.t.Helper()
	l, err := c.leases.Grant(c.ctx(), &api.LeaseGrantRequest{Id: id, TtlSeconds: seconds})
	if err != nil {
		c.t.Fatal(err)
	}
	return l
}

func (c *cluster) put(q *api.PutRequest) *api.PutResponse {
	c.t.Helper()
	r, err := c.kv.Put(c.ctx(), q)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c *cluster) get(key string) *api.Record {
	r, err := c.kv.Get(c.ctx(), &api.GetRequest{Key: key})
	if status.CodeOf(err) == fault.NotFound {
		return nil
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Record
}

// gone waits until a key is not there.
func (c *cluster) gone(key string) {
	c.t.Helper()
	nodetest.Eventually(c.t, func() error {
		if r := c.get(key); r != nil {
			return fmt.Errorf("%s is still there, attached to %q", key, r.Lease)
		}
		return nil
	})
}

// free waits until an id can be granted again.
func (c *cluster) free(id string) {
	c.t.Helper()
	nodetest.Eventually(c.t, func() error {
		_, err := c.leases.Grant(c.ctx(), &api.LeaseGrantRequest{Id: id, TtlSeconds: 60})
		return err
	})
}

func (c *cluster) expect(code fault.Code, err error) {
	c.t.Helper()
	if status.CodeOf(err) != code {
		c.t.Fatalf("want %s, got %v", code, err)
	}
}

func (c *cluster) keysOf(id string) (keys []string) {
	c.t.Helper()
	l, err := c.leases.Describe(c.ctx(), &api.LeaseDescribeRequest{Id: id, Keys: true})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, k := range l.Keys {
		keys = append(keys, k.Namespace+"/"+k.Key)
	}
	return keys
}

// watch returns the events of the namespace from now on.
func (c *cluster) watch(prefix string) func() *api.WatchEvent {
	c.t.Helper()
	st, err := c.kv.Watch(c.ctx())
	if err != nil {
		c.t.Fatal(err)
	}
	create := &api.WatchRequest{Request: &api.WatchRequest_Create{Create: &api.WatchCreate{WatchId: 1, Prefix: prefix}}}
	if err := st.Send(create); err != nil {
		c.t.Fatal(err)
	}
	var events []*api.WatchEvent
	read := func() bool {
		m, err := st.Recv()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, b := range m.Batches {
			events = append(events, b.Events...)
		}
		return len(m.Created) > 0
	}
	for !read() {
		continue
	}
	return func() *api.WatchEvent {
		for len(events) == 0 {
			read()
		}
		ev := events[0]
		events = events[1:]
		return ev
	}
}

// All tests share one node: starting one takes longer than they do.
func TestLeases(t *testing.T) {
	c := newCluster(t, 1)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"Expiry", testExpiry}, {"KeepAlive", testKeepAlive}, {"Revoke", testRevoke}, {"Attach", testAttach},
		{"LastLeaseWins", testLastLeaseWins}, {"Writes", testWrites}, {"Fence", testFence}, {"Reserved", testReserved},
		{"Many", testMany}, {"Restart", testRestart},
	} {
		t.Run(test.name, func(t *testing.T) {
			of := *c
			of.t = t
			test.run(t, &of)
		})
	}
}

// D1, D2: a lease ends at its deadline on the group's clock, and takes its keys with
// it, with the reason; it does not come back.
func testExpiry(t *testing.T, c *cluster) {
	next := c.watch("expiry/")
	l := c.grant("expiry", 60)
	c.put(&api.PutRequest{Key: "expiry/a", Lease: l.Id})
	c.put(&api.PutRequest{Key: "expiry/plain"})
	if r := c.get("expiry/a"); r.GetLease() != l.Id {
		t.Fatalf("%v", r)
	}
	c.Clock.Pass(30 * time.Second)
	if _, err := c.leases.Describe(c.ctx(), &api.LeaseDescribeRequest{Id: l.Id}); err != nil {
		t.Fatalf("before its end: %v", err)
	}
	c.Clock.Pass(31 * time.Second)
	_, err := c.leases.KeepAlive(c.ctx(), &api.LeaseKeepAliveRequest{Id: l.Id})
	c.expect(fault.LeaseNotFound, err)
	_, err = c.kv.Put(c.ctx(), &api.PutRequest{Key: "expiry/late", Lease: l.Id})
	c.expect(fault.LeaseNotFound, err)
	for {
		if ev := next(); ev.Type == api.WatchEvent_DELETE {
			if ev.Record.Key != "expiry/a" || ev.Reason != "lease_expired" || ev.Record.Lease != l.Id {
				t.Fatalf("%v", ev)
			}
			break
		}
	}
	c.free(l.Id)
	if c.get("expiry/plain") == nil || c.get("expiry/late") != nil {
		t.Fatal("other keys are not as they were")
	}
	if keys := c.keysOf(l.Id); len(keys) != 0 {
		t.Fatalf("the new lease has keys of the old one: %v", keys)
	}
}

func testKeepAlive(t *testing.T, c *cluster) {
	l := c.grant("alive", 60)
	c.put(&api.PutRequest{Key: "alive/a", Lease: l.Id})
	for range 4 {
		c.Clock.Pass(40 * time.Second)
		got, err := c.leases.KeepAlive(c.ctx(), &api.LeaseKeepAliveRequest{Id: l.Id})
		if err != nil || got.TtlSeconds != 60 || got.Revision != l.Revision || got.ExpiresAtMs <= l.ExpiresAtMs {
			t.Fatalf("%v, %v", got, err)
		}
	}
	got, err := c.leases.Describe(c.ctx(), &api.LeaseDescribeRequest{Id: l.Id})
	if err != nil || got.RemainingMs <= 0 || got.RemainingMs > 60_000 || got.Revision != l.Revision {
		t.Fatalf("%v, %v", got, err)
	}
	if c.get("alive/a") == nil {
		t.Fatal("the key is gone")
	}
}

func testRevoke(t *testing.T, c *cluster) {
	next := c.watch("revoke/")
	l := c.grant("", 60)
	c.put(&api.PutRequest{Key: "revoke/a", Lease: l.Id})
	c.put(&api.PutRequest{Key: "revoke/b", Lease: l.Id})
	c.put(&api.PutRequest{Key: "revoke/b"}) // detached
	r, err := c.leases.Revoke(c.ctx(), &api.LeaseRevokeRequest{Id: l.Id})
	if err != nil || r.Deleted != 1 {
		t.Fatalf("%v, %v", r, err)
	}
	if c.get("revoke/a") != nil || c.get("revoke/b") == nil {
		t.Fatal("not the keys of the lease are gone")
	}
	for {
		if ev := next(); ev.Type == api.WatchEvent_DELETE {
			if ev.Record.Key != "revoke/a" || ev.Reason != "lease_revoked" {
				t.Fatalf("%v", ev)
			}
			break
		}
	}
	for _, id := range []string{l.Id, "never"} {
		_, err = c.leases.Revoke(c.ctx(), &api.LeaseRevokeRequest{Id: id})
		c.expect(fault.LeaseNotFound, err)
	}
	c.grant(l.Id, 60)
}

func testAttach(t *testing.T, c *cluster) {
	c.grant("attach", 60)
	for _, id := range []string{"none", "attach2"} {
		_, err := c.kv.Put(c.ctx(), &api.PutRequest{Key: "attach/a", Lease: id})
		c.expect(fault.LeaseNotFound, err)
	}
	_, err := c.kv.Put(c.ctx(), &api.PutRequest{Key: "attach/a", Lease: "a b"})
	c.expect(fault.InvalidArgument, err)
	_, err = c.leases.Grant(c.ctx(), &api.LeaseGrantRequest{Id: "attach", TtlSeconds: 60})
	c.expect(fault.LeaseExists, err)
	// A condition of the put counts as ever.
	c.put(&api.PutRequest{Key: "attach/a", Lease: "attach"})
	_, err = c.kv.Put(c.ctx(), &api.PutRequest{Key: "attach/a", Lease: "attach", Condition: &api.Condition{MustNotExist: true}})
	c.expect(fault.ConditionFailed, err)
	if r := c.put(&api.PutRequest{Key: "attach/a", Value: []byte("2"), Lease: "attach"}); r.Version != 2 {
		t.Fatalf("%v", r)
	}
	list, err := c.kv.List(c.ctx(), &api.ListRequest{Prefix: "attach/"})
	if err != nil || len(list.Records) != 1 || list.Records[0].Lease != "attach" || list.Records[0].CreatedRevision == 0 ||
		list.Records[0].CreatedRevision >= list.Records[0].Revision {
		t.Fatalf("%v, %v", list, err)
	}
	if keys := c.keysOf("attach"); len(keys) != 1 || keys[0] != "default/attach/a" {
		t.Fatalf("%v", keys)
	}
	all, err := c.leases.List(c.ctx(), &api.LeaseListRequest{Limit: 1})
	if err != nil || len(all.Leases) != 1 || all.ContinuationToken == "" {
		t.Fatalf("%v, %v", all, err)
	}
	_, err = c.leases.Grant(c.ctx(), &api.LeaseGrantRequest{TtlSeconds: 0})
	c.expect(fault.InvalidArgument, err)
}

// A key is attached to the lease of its last put, or to none.
func testLastLeaseWins(t *testing.T, c *cluster) {
	c.grant("first", 600)
	c.grant("second", 600)
	for _, key := range []string{"last/a", "last/b", "last/c"} {
		c.put(&api.PutRequest{Key: key, Lease: "first"})
	}
	c.put(&api.PutRequest{Key: "last/a", Lease: "second"})
	c.put(&api.PutRequest{Key: "last/b"})
	if _, err := c.kv.Delete(c.ctx(), &api.DeleteRequest{Key: "last/c"}); err != nil {
		t.Fatal(err)
	}
	if keys := c.keysOf("first"); len(keys) != 0 {
		t.Fatalf("%v", keys)
	}
	if keys := c.keysOf("second"); len(keys) != 1 {
		t.Fatalf("%v", keys)
	}
	if r, err := c.leases.Revoke(c.ctx(), &api.LeaseRevokeRequest{Id: "first"}); err != nil || r.Deleted != 0 {
		t.Fatalf("%v, %v", r, err)
	}
	if c.get("last/a").GetLease() != "second" || c.get("last/b") == nil {
		t.Fatal("keys that were taken from a lease went with it")
	}
}

// Batches and transactions attach as single puts do, whole or not at all.
func testWrites(t *testing.T, c *cluster) {
	l := c.grant("writes", 600)
	puts, err := c.kv.BatchPut(c.ctx(), &api.BatchPutRequest{Items: []*api.PutRequest{{Key: "writes/a", Lease: l.Id}, {Key: "writes/b"}}})
	if err != nil || len(puts.Results) != 2 || puts.Results[0].Put.GetVersion() != 1 || puts.Results[1].Put.GetVersion() != 1 {
		t.Fatalf("%v, %v", puts, err)
	}
	puts, err = c.kv.BatchPut(c.ctx(), &api.BatchPutRequest{Items: []*api.PutRequest{
		{Key: "writes/c", Lease: l.Id}, {Key: "writes/b", Condition: &api.Condition{MustNotExist: true}}}})
	if err != nil || puts.Results[0].Status.GetCode() != "batch_aborted" || puts.Results[1].Status.GetCode() != "condition_failed" || c.get("writes/c") != nil {
		t.Fatalf("%v, %v", puts, err)
	}
	_, err = c.kv.BatchPut(c.ctx(), &api.BatchPutRequest{Items: []*api.PutRequest{{Key: "writes/d"}, {Key: "writes/e", Lease: "none"}}})
	c.expect(fault.LeaseNotFound, err)
	put := func(key, lease string) *api.TransactionOp {
		return &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: key, Lease: lease}}}
	}
	get := &api.TransactionOp{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Key: "writes/a"}}}
	for _, exists := range []bool{true, false} {
		q := &api.TransactionRequest{
			Checks: []*api.TransactionCheck{{Key: "writes/a", Condition: &api.Condition{MustExist: exists, MustNotExist: !exists}}},
			Then:   []*api.TransactionOp{get, put("writes/then", l.Id)}, Otherwise: []*api.TransactionOp{put("writes/otherwise", l.Id), get},
		}
		r, err := c.kv.Transaction(c.ctx(), q)
		if err != nil || r.Succeeded != exists || len(r.Results) != 2 {
			t.Fatalf("%v, %v", r, err)
		}
		read, written := r.Results[0], r.Results[1]
		if !exists {
			read, written = written, read
		}
		if read.GetGet().GetKey() != "writes/a" || written.GetPut().GetVersion() != 1 {
			t.Fatalf("%v", r)
		}
	}
	_, err = c.kv.Transaction(c.ctx(), &api.TransactionRequest{Then: []*api.TransactionOp{put("writes/x", "none")}})
	c.expect(fault.LeaseNotFound, err)
	r, err := c.leases.Revoke(c.ctx(), &api.LeaseRevokeRequest{Id: l.Id})
	if err != nil || r.Deleted != 3 || c.get("writes/b") == nil || c.get("writes/then") != nil {
		t.Fatalf("%v, %v", r, err)
	}
}

// A write with a fence happens only while the lock's key is the one that it names.
func testFence(t *testing.T, c *cluster) {
	first := c.put(&api.PutRequest{Key: "fence/lock"})
	fence := &api.Fence{Key: "fence/lock", Revision: first.Revision}
	attempt := func() (errs []error) {
		_, err := c.kv.Put(c.ctx(), &api.PutRequest{Key: "fence/put", Fence: fence})
		errs = append(errs, err)
		_, err = c.kv.Delete(c.ctx(), &api.DeleteRequest{Key: "fence/del", Fence: fence})
		errs = append(errs, err)
		_, err = c.kv.BatchPut(c.ctx(), &api.BatchPutRequest{Items: []*api.PutRequest{{Key: "fence/b"}}, Fence: fence})
		errs = append(errs, err)
		_, err = c.kv.BatchDelete(c.ctx(), &api.BatchDeleteRequest{Items: []*api.DeleteRequest{{Key: "fence/b"}}, Fence: fence})
		errs = append(errs, err)
		_, err = c.kv.Transaction(c.ctx(), &api.TransactionRequest{
			Checks:    []*api.TransactionCheck{{Key: "fence/none", Condition: &api.Condition{MustExist: true}}},
			Otherwise: []*api.TransactionOp{{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: "fence/txn"}}}}, Fence: fence,
		})
		return append(errs, err)
	}
	// A new value is the same lock, a new key is not.
	c.put(&api.PutRequest{Key: "fence/lock", Value: []byte("more")})
	for i, err := range attempt() {
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	before := c.get("fence/txn")
	if _, err := c.kv.Delete(c.ctx(), &api.DeleteRequest{Key: "fence/lock"}); err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{false, true} {
		if again {
			c.put(&api.PutRequest{Key: "fence/lock"})
		}
		for i, err := range attempt() {
			f := status.Fault(err)
			if f == nil || f.Code != fault.ConditionFailed || f.Details["condition"] != "fence" || f.Details["fence_key"] != "fence/lock" {
				t.Fatalf("%d: %v", i, err)
			}
		}
	}
	if !proto.Equal(c.get("fence/txn"), before) {
		t.Fatal("the transaction was executed")
	}
	for _, q := range []*api.PutRequest{
		{Key: "fence/put", Fence: &api.Fence{Key: "fence/lock"}}, {Key: "fence/put", Fence: &api.Fence{Revision: 1}},
		{Key: "fence/put", Condition: &api.Condition{CreatedMatch: proto.Uint64(0)}}, {Key: "fence/put", Condition: &api.Condition{LeaseMatch: proto.String("")}},
	} {
		_, err := c.kv.Put(c.ctx(), q)
		if code := status.CodeOf(err); code != fault.InvalidArgument && code != fault.InvalidKey {
			t.Fatalf("%v: %v", q, err)
		}
	}
	_, err := c.kv.BatchPut(c.ctx(), &api.BatchPutRequest{Items: []*api.PutRequest{{Key: "fence/b", Fence: fence}}})
	c.expect(fault.InvalidArgument, err)
}

// The store's own records are nobody's, and its reasons are not given by others.
func testReserved(_ *testing.T, c *cluster) {
	const space = "_lease"
	_, err := c.kv.Get(c.ctx(), &api.GetRequest{Namespace: space, Key: "a"})
	c.expect(fault.PermissionDenied, err)
	_, err = c.kv.Put(c.ctx(), &api.PutRequest{Namespace: space, Key: "a"})
	c.expect(fault.PermissionDenied, err)
	_, err = c.kv.List(c.ctx(), &api.ListRequest{Namespace: space})
	c.expect(fault.PermissionDenied, err)
	_, err = c.kv.Put(c.ctx(), &api.PutRequest{Key: "a", Fence: &api.Fence{Namespace: "_system", Key: "a", Revision: 1}})
	c.expect(fault.PermissionDenied, err)
	c.grant("reserved", 60)
	_, err = c.kv.Transaction(c.ctx(), &api.TransactionRequest{Then: []*api.TransactionOp{
		{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Namespace: space, Key: "reserved\x00"}}}}})
	c.expect(fault.PermissionDenied, err)
	_, err = c.kv.Delete(c.ctx(), &api.DeleteRequest{Key: "a", Reason: "lease_expired"})
	c.expect(fault.PermissionDenied, err)
	_, err = c.kv.CreateNamespace(c.ctx(), &api.CreateNamespaceRequest{Name: space})
	c.expect(fault.InvalidArgument, err)
}

// A lease with more keys than are deleted together, in several namespaces, one of
// which goes before it.
func testMany(t *testing.T, c *cluster) {
	l := c.grant("many", 600)
	for _, name := range []string{"many-a", "many-b"} {
		if _, err := c.kv.CreateNamespace(c.ctx(), &api.CreateNamespaceRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	const keys = 150
	for _, space := range []string{"", "many-a", "many-b"} {
		q := &api.BatchPutRequest{Namespace: space}
		for i := range keys {
			q.Items = append(q.Items, &api.PutRequest{Key: fmt.Sprintf("many/%d", i), Lease: l.Id})
		}
		if _, err := c.kv.BatchPut(c.ctx(), q); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.keysOf(l.Id); len(got) != 3*keys {
		t.Fatalf("%d keys", len(got))
	}
	r, err := c.leases.Revoke(c.ctx(), &api.LeaseRevokeRequest{Id: l.Id})
	if err != nil || r.Deleted != 3*keys {
		t.Fatalf("%v, %v", r, err)
	}
	list, err := c.kv.List(c.ctx(), &api.ListRequest{Prefix: "many/", CountOnly: true})
	if err != nil || list.Count != 0 {
		t.Fatalf("%v, %v", list, err)
	}
}

// What ended while no node ran is ended by the next.
func testRestart(t *testing.T, c *cluster) {
	c.grant("restart", 60)
	c.grant("restart2", 600)
	c.put(&api.PutRequest{Key: "restart/a", Lease: "restart"})
	c.put(&api.PutRequest{Key: "restart/b", Lease: "restart2"})
	c.Stop()
	c.Clock.Pass(2 * time.Minute)
	c.Run()
	c.gone("restart/a")
	c.free("restart")
	if c.get("restart/b").GetLease() != "restart2" {
		t.Fatal("a lease that has time left lost its key")
	}
}
