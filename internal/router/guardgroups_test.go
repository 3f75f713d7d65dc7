package router_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

func (c *cluster) detached(namespace, key, lease string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = append(c.gone, fmt.Sprint(namespace, "/", key, " of ", lease))
}

// heard takes what was detached so far.
func (c *cluster) heard() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(slices.Values(c.gone))
}

// do executes an operation as somebody.
func (c *cluster) do(r *router.Router, identity string, op *api.PipelineOp) (*api.PipelineResult, error) {
	c.t.Helper()
	call := &router.Call{Op: proto.CloneOf(op), Identity: identity}
	r.Do(within(c.t, 20*time.Second), call)
	return call.Result, call.Err
}

func putOf(q *api.PutRequest) *api.PipelineOp {
	return &api.PipelineOp{Op: &api.PipelineOp_Put{Put: q}}
}

// lease makes the record of a lease whose slot is in a group.
func (c *cluster) lease(g keyspace.GroupID, i int) (id string) {
	c.t.Helper()
	id = c.key(g, i) // lies where a key of its name does
	if _, err := c.do(c.here, router.SystemIdentity, putOf(&api.PutRequest{Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseKey(id)})); err != nil {
		c.t.Fatal(err)
	}
	return id
}

// attached are the records beside a lease.
func (c *cluster) attached(id string) (n int) {
	c.t.Helper()
	out, err := c.here.List(router.WithIdentity(within(c.t, 20*time.Second), router.SystemIdentity),
		&api.ListRequest{Namespace: keyspace.LeaseNamespaceName, Prefix: keyspace.LeaseKeysPrefix(id)})
	if err != nil {
		c.t.Fatal(err)
	}
	return len(out.Records)
}

// D1: keys are attached to a lease of another group, by whichever node is asked, and
// never to one that is not there; whoever takes a key from it is heard of.
func TestLeaseOfAnotherGroup(t *testing.T) {
	c := newTxnCluster(t)
	for n, r := range []*router.Router{c.here, c.elsewhere("n2")} {
		id, other := c.lease(1, 10+n), c.lease(3, 10+n)
		key, more := c.key(2, 20+n), c.key(3, 20+n)
		for _, q := range []*api.PipelineOp{
			putOf(&api.PutRequest{Key: key, Value: []byte("v"), Lease: id}),
			{Op: &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{Items: []*api.PutRequest{{Key: more, Lease: id}, {Key: key, Value: []byte("v"), Lease: id}}}}},
		} {
			if _, err := c.do(r, "", q); err != nil {
				t.Fatal(err)
			}
		}
		got, err := r.Get(within(t, 20*time.Second), &api.GetRequest{Key: key})
		if err != nil || got.Record.Lease != id || got.Record.Version != 2 || c.attached(id) != 2 {
			t.Fatalf("%v, %v: %d attached", got, err, c.attached(id))
		}
		_, err = c.do(r, "", putOf(&api.PutRequest{Key: key, Lease: c.key(1, 30)}))
		if fault.CodeOf(err) != fault.LeaseNotFound || c.read(r, key) != "v" {
			t.Fatalf("attached to no lease: %v", err)
		}
		c.mu.Lock()
		c.gone = nil
		c.mu.Unlock()
		if _, err := c.do(r, "", putOf(&api.PutRequest{Key: key, Lease: other})); err != nil {
			t.Fatal(err)
		}
		c.txn(r, &api.TransactionRequest{Then: []*api.TransactionOp{del(more), put(c.key(1, 20), "x"), {Op: &api.TransactionOp_Touch{Touch: &api.TouchRequest{Key: key, Persist: true}}}}})
		if want := slices.Sorted(slices.Values([]string{"default/" + key + " of " + id, "default/" + more + " of " + id})); !slices.Equal(c.heard(), want) {
			t.Fatalf("heard %v, want %v", c.heard(), want)
		}
	}
	c.settled()
}

// D3: a write with a fence of another group happens only while its key is there and
// was created at the token, whatever the write is.
func TestFenceOfAnotherGroup(t *testing.T) {
	c := newTxnCluster(t)
	lock := c.key(1, 10)
	take := func() *api.Fence {
		t.Helper()
		out := c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: lock, Condition: &api.Condition{MustNotExist: true}}}}}})
		return &api.Fence{Key: lock, Revision: out.Revision}
	}
	old := take()
	c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(lock, "written by its owner")}})
	ops := func(r int, f *api.Fence) []*api.PipelineOp {
		a, b := c.key(2, 10+r), c.key(3, 10+r)
		return []*api.PipelineOp{
			putOf(&api.PutRequest{Key: a, Value: []byte("1"), Fence: f}),
			{Op: &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{Items: []*api.PutRequest{{Key: a, Value: []byte("2")}, {Key: b, Value: []byte("2")}}, Fence: f}}},
			{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{Then: []*api.TransactionOp{put(a, "3"), get(b)}, Fence: f}}},
			{Op: &api.PipelineOp_Delete{Delete: &api.DeleteRequest{Key: a, Fence: f}}},
			{Op: &api.PipelineOp_BatchDelete{BatchDelete: &api.BatchDeleteRequest{Items: []*api.DeleteRequest{{Key: a}, {Key: b}}, Fence: f}}},
		}
	}
	routers := []*router.Router{c.here, c.elsewhere("n2")}
	for n, r := range routers {
		for i, op := range ops(n, old) {
			if res, err := c.do(r, "", op); err != nil || i == 2 && string(res.GetTransaction().Results[1].GetGet().GetValue()) != "2" {
				t.Fatalf("operation %d: %v, %v", i, res, err)
			}
		}
	}
	c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{del(lock)}})
	take()
	for n, r := range routers {
		c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(c.key(2, 10+n), "kept"), put(c.key(3, 10+n), "kept")}})
		for i, op := range ops(n, old) {
			_, err := c.do(r, "", op)
			if fault.CodeOf(err) != fault.ConditionFailed || router.ErrorStatus(err).Details["condition"] != "fence" {
				t.Fatalf("operation %d with an old token: %v", i, err)
			}
		}
		if c.read(r, c.key(2, 10+n)) != "kept" || c.read(r, c.key(3, 10+n)) != "kept" {
			t.Fatal("an old token has written")
		}
	}
	c.settled()
}

// F2, D3: a request with a fence or a lease is executed once under its id, and says
// the same also when the lock is not held any more by then.
func TestGuardedRequestsAreExecutedOnce(t *testing.T) {
	c := newTxnCluster(t)
	n2 := c.elsewhere("n2")
	for name, groups := range map[string][2]keyspace.GroupID{"one group": {1, 1}, "several groups": {1, 2}} {
		t.Run(name, func(t *testing.T) {
			lock, key, id := c.key(groups[0], 40), c.key(groups[1], 41), c.lease(groups[0], 42)
			c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{del(lock)}})
			token := c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(lock, "")}}).Revision
			f := &api.Fence{Key: lock, Revision: token}
			ops := []*api.PipelineOp{
				putOf(&api.PutRequest{Key: key, Value: []byte("1"), Fence: f, RequestId: c.newID()}),
				putOf(&api.PutRequest{Key: key, Value: []byte("2"), Lease: id, RequestId: c.newID()}),
				{Op: &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{Items: []*api.PutRequest{{Key: key, Value: []byte("3")}}, Fence: f, RequestId: c.newID()}}},
				{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{Then: []*api.TransactionOp{get(key), put(key, "4")}, Fence: f, RequestId: c.newID()}}},
				{Op: &api.PipelineOp_Delete{Delete: &api.DeleteRequest{Key: key, Fence: f, RequestId: c.newID()}}},
			}
			var first []*api.PipelineResult
			for i, op := range ops {
				res, err := c.do(c.here, "", op)
				if err != nil {
					t.Fatalf("operation %d: %v", i, err)
				}
				first = append(first, res)
			}
			late := putOf(&api.PutRequest{Key: key, Value: []byte("late"), Fence: f, RequestId: c.newID()})
			c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{del(lock)}})
			for _, r := range []*router.Router{n2, c.here} {
				for i, op := range ops {
					if again, err := c.do(r, "", op); err != nil || !proto.Equal(again, first[i]) {
						t.Fatalf("operation %d again: %v, %v\nfirst %v", i, again, err, first[i])
					}
				}
				if _, err := c.do(r, "", late); fault.CodeOf(err) != fault.ConditionFailed {
					t.Fatalf("without the lock: %v", err)
				}
				if c.read(r, key) != "" {
					t.Fatal("something was executed again")
				}
			}
			reused := proto.CloneOf(ops[0])
			reused.GetPut().Fence.Revision++
			if _, err := c.do(c.here, "", reused); fault.CodeOf(err) != fault.InvalidArgument {
				t.Fatalf("the id under another fence: %v", err)
			}
		})
	}
}

// Users do not reach the records of leases by a transaction that is guarded.
func TestGuardedWritesDoNotNameLeases(t *testing.T) {
	c := newTxnCluster(t)
	id := c.lease(2, 10)
	f := &api.Fence{Key: c.key(1, 10), Revision: 1}
	for i, op := range []*api.PipelineOp{
		{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{Fence: f,
			Then: []*api.TransactionOp{{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseKey(id)}}}}}}},
		{Op: &api.PipelineOp_Delete{Delete: &api.DeleteRequest{Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseKey(id), Fence: f}}},
		putOf(&api.PutRequest{Namespace: keyspace.LeaseNamespaceName, Key: "x", Lease: id}),
		putOf(&api.PutRequest{Key: "x", Fence: &api.Fence{Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseKey(id), Revision: 1}}),
	} {
		if _, err := c.do(c.here, "", op); fault.CodeOf(err) != fault.PermissionDenied {
			t.Fatalf("operation %d: %v", i, err)
		}
	}
}

// A touch beside writes of other groups changes the deadline and nothing else; checks
// among operations keep all from happening.
func TestTouchAndCheckOverGroups(t *testing.T) {
	c := newTxnCluster(t)
	a, b := c.key(1, 10), c.key(2, 10)
	large := string(make([]byte, 3<<20))
	touch := &api.TransactionOp{Op: &api.TransactionOp_Touch{Touch: &api.TouchRequest{Key: a, TtlSeconds: 100}}}
	for _, value := range []string{"small", large} {
		c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(a, value)}})
		out := c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{touch, put(b, "x")}})
		got, err := c.here.Get(within(t, 20*time.Second), &api.GetRequest{Key: a})
		if p := out.Results[0].GetPut(); err != nil || string(got.Record.Value) != value || got.Record.ExpiresAtMs != p.GetExpiresAtMs() ||
			p.GetExpiresAtMs() != p.GetUpdatedAtMs()+100_000 || got.Record.Version != p.GetVersion() || got.Record.CreatedRevision == out.Revision {
			t.Fatalf("%v, %v", out, err)
		}
		c.txn(c.here, &api.TransactionRequest{Checks: []*api.TransactionCheck{version(a, 0)}, Then: []*api.TransactionOp{touch}, Otherwise: []*api.TransactionOp{put(b, "y")}})
		if c.read(c.here, a) != value {
			t.Fatal("a touch that was not taken has changed the value")
		}
	}
	check := func(c *api.Condition) *api.TransactionOp {
		return &api.TransactionOp{Op: &api.TransactionOp_Check{Check: &api.TransactionCheck{Key: a, Condition: c}}}
	}
	out := c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(b, "z"), check(&api.Condition{MustNotExist: true})}})
	if out.Revision != 0 || out.Results[1].GetStatus().GetCode() != string(fault.ConditionFailed) || out.Results[0].GetStatus().GetCode() != string(fault.BatchAborted) {
		t.Fatalf("a check that does not hold: %v", out)
	}
	out = c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{check(&api.Condition{MustExist: true}), put(b, "z")}})
	if out.Revision == 0 || !proto.Equal(out.Results[0], &api.TransactionResult{}) || c.read(c.here, b) != "z" {
		t.Fatalf("a check that holds: %v", out)
	}
	c.settled()
}

// What the end of a lease that has expired relies on (internal/lease): whoever was
// told that it has sees all records beside it, also of a put that was prepared before
// its deadline and whose revision, by another group's clock, is later than the question.
func TestPutPreparedBeforeItsLeaseEnds(t *testing.T) {
	c := newTxnCluster(t)
	for n := range 20 {
		if c.putBeforeTheEnd(c.key(1, n), c.key(2, n)) {
			return
		}
	}
	t.Fatal("no put was prepared in time")
}

// putBeforeTheEnd reports whether a put was prepared before its lease expired.
func (c *cluster) putBeforeTheEnd(id, key string) bool {
	c.t.Helper()
	now := system.Clock().Wall()
	lease := &api.PutRequest{Namespace: keyspace.LeaseNamespaceName, Key: keyspace.LeaseKey(id), ExpiresAtMs: now + 200}
	if _, err := c.do(c.here, router.SystemIdentity, putOf(lease)); err != nil {
		return false
	}
	ahead := keyspace.RevisionAt(now + 450)
	if err := c.node.Host.Clocks(c.t.Context(), []keyspace.GroupID{2}, ahead)[0].Err; err != nil {
		c.t.Fatal(err)
	}
	dead := c.mortal("conclude")
	went := make(chan struct{})
	dead.OnStep(func(at string, _ keyspace.TxnID) bool {
		if at == "conclude" {
			close(went)
		}
		return at == "conclude"
	})
	go func() { _, _ = dead.Put(c.t.Context(), &api.PutRequest{Key: key, Lease: id}) }()
	<-went
	c.eventually("the lease has expired", func() bool {
		_, err := c.do(c.here, router.SystemIdentity, &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{Namespace: lease.Namespace, Key: lease.Key}}})
		return fault.CodeOf(err) == fault.NotFound
	})
	attached := c.attached(id)
	out, err := c.here.Get(within(c.t, 20*time.Second), &api.GetRequest{Key: key})
	if fault.CodeOf(err) == fault.NotFound && attached == 0 {
		return false // its lease had expired before it came
	}
	if err != nil || attached != 1 || out.Record.Revision < uint64(ahead) {
		c.t.Fatalf("%d records beside the lease, %v, %v", attached, out, err)
	}
	return true
}
