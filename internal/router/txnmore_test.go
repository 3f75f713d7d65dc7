package router_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// Transactions that cross on the same keys, in both directions and from two nodes, all
// come to an end, and each is executed once.
func TestCrossingTransactions(t *testing.T) {
	c := newTxnCluster(t)
	n2 := c.elsewhere("n2")
	a, b := c.key(1, 0), c.key(3, 0)
	const each = 15
	var wg sync.WaitGroup
	for n := range 4 {
		r, first, second := c.here, a, b
		if n%2 == 1 {
			r, first, second = n2, b, a
		}
		wg.Go(func() {
			for range each {
				ctx := within(t, 20*time.Second)
				for {
					_, err := r.Transaction(ctx, &api.TransactionRequest{Then: []*api.TransactionOp{put(first, "v"), put(second, "v")}})
					if fault.CodeOf(err) == fault.Unavailable {
						continue // nothing was executed
					}
					if err != nil {
						t.Error(err)
					}
					break
				}
			}
		})
	}
	wg.Wait()
	c.settled()
	for _, key := range []string{a, b} {
		if got, err := c.here.Get(t.Context(), &api.GetRequest{Key: key}); err != nil || got.Record.Version != 4*each {
			t.Fatalf("%s: %v %v", key, got, err)
		}
	}
}

// Deadlines over several groups: a touch leaves the value and answers what it came
// to; one that has passed keeps all of it from happening and is named, also to who
// asks again.
func TestDeadlinesOverGroups(t *testing.T) {
	c := newTxnCluster(t)
	n2 := c.elsewhere("n2")
	a, b := c.key(1, 0), c.key(2, 0)
	first := c.txn(n2, &api.TransactionRequest{Then: []*api.TransactionOp{put(a, "v"), put(b, "w")}})
	touch := &api.TransactionOp{Op: &api.TransactionOp_Touch{Touch: &api.TouchRequest{Key: a, TtlSeconds: 1000}}}
	out := c.txn(n2, &api.TransactionRequest{Then: []*api.TransactionOp{touch, put(b, "x")}})
	got := out.Results[0].GetPut()
	if got.GetVersion() != 2 || got.GetRevision() != out.Revision || got.GetExpiresAtMs() != keyspace.Revision(out.Revision).UnixMilli()+1_000_000 ||
		got.GetChecksum() != first.Results[0].GetPut().GetChecksum() || got.GetChecksum() == 0 || out.Results[1].GetPut().GetChecksum() == 0 {
		t.Fatalf("%v", out)
	}
	c.settled()
	if v := c.read(n2, a); v != "v" {
		t.Fatalf("after a touch it is %q", v)
	}
	late := &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: a, Value: []byte("late"), ExpiresAtMs: 1}}}
	id := c.newID()
	for range 2 {
		out = c.txn(n2, &api.TransactionRequest{RequestId: id, Then: []*api.TransactionOp{put(b, "no"), late}})
		if out.Results[0].GetStatus().GetCode() != "batch_aborted" || out.Results[1].GetStatus().GetCode() != "invalid_argument" {
			t.Fatalf("%v", out)
		}
	}
	if o := c.describe(n2, id); o.GetError().GetCode() != "invalid_argument" {
		t.Fatalf("%v", o)
	}
	alone := c.newID() // in one group
	for range 2 {
		_, err := n2.Put(t.Context(), &api.PutRequest{Key: a, RequestId: alone, ExpiresAtMs: 1, Condition: &api.Condition{MustExist: true}})
		if fault.CodeOf(err) != fault.InvalidArgument {
			t.Fatal(err)
		}
	}
	if v := c.read(n2, b); v != "x" {
		t.Fatalf("after what was refused it is %q", v)
	}
}

// Conditions of operations forbid; values of any size are written and read; batches
// are transactions; namespaces may differ, and must be there.
func TestFormsOfTransactionsOverGroups(t *testing.T) {
	c := newTxnCluster(t)
	n2 := c.elsewhere("n2")
	a, b, d := c.key(1, 0), c.key(2, 0), c.key(3, 0)
	large := strings.Repeat("large ", 100_000)
	out := c.txn(n2, &api.TransactionRequest{Then: []*api.TransactionOp{put(a, large), put(b, "b")}})
	if c.read(n2, a) != large || out.Results[0].GetPut().GetVersion() != 1 {
		t.Fatal("a large value is not there")
	}
	absent := &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: a, Condition: &api.Condition{MustNotExist: true}}}}
	out = c.txn(n2, &api.TransactionRequest{Then: []*api.TransactionOp{put(b, "no"), absent, get(d)}})
	if !out.Succeeded || out.Revision != 0 || out.Results[1].GetStatus().GetCode() != "condition_failed" ||
		out.Results[0].GetStatus().GetCode() != "batch_aborted" || out.Results[2].GetStatus().GetCode() != "batch_aborted" {
		t.Fatalf("%v", out)
	}
	ttl := &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: d, TtlSeconds: 1000}}}
	out = c.txn(n2, &api.TransactionRequest{Then: []*api.TransactionOp{get(a), ttl, del(b)}})
	rev := keyspace.Revision(out.Revision)
	if string(out.Results[0].GetGet().GetValue()) != large || !out.Results[2].GetDelete().GetExisted() ||
		out.Results[1].GetPut().GetExpiresAtMs() != rev.UnixMilli()+1_000_000 {
		t.Fatalf("%v", out.Results[1:])
	}
	if got, err := c.here.Get(t.Context(), &api.GetRequest{Key: d}); err != nil || got.Record.ExpiresAtMs != rev.UnixMilli()+1_000_000 || c.read(n2, b) != "" {
		t.Fatalf("%v %v", got, err)
	}
	puts, err := n2.BatchPut(within(t, 20*time.Second), &api.BatchPutRequest{Atomic: true, Items: []*api.PutRequest{
		{Key: c.key(1, 7)}, {Key: c.key(2, 7)}, {Key: a, Condition: &api.Condition{MustNotExist: true}}}})
	if err != nil || puts.Results[2].GetStatus().GetCode() != "condition_failed" || puts.Results[0].GetStatus().GetCode() != "batch_aborted" {
		t.Fatalf("%v %v", puts, err)
	}
	dels, err := c.here.BatchDelete(within(t, 20*time.Second), &api.BatchDeleteRequest{Atomic: true, Items: []*api.DeleteRequest{{Key: a}, {Key: d}, {Key: b}}})
	if err != nil || !dels.Results[0].GetDelete().GetExisted() || dels.Results[0].GetDelete().Revision != dels.Results[1].GetDelete().Revision || dels.Results[2].GetDelete().GetExisted() {
		t.Fatalf("%v %v", dels, err)
	}
	c.touchesOverGroups(n2, c.key(1, 8), c.key(2, 8))
	other := &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Namespace: "app", Key: a, Value: []byte("app")}}}
	c.txn(n2, &api.TransactionRequest{Then: []*api.TransactionOp{other, put(a, "1"), put(b, "2")}})
	for name, q := range map[string]struct {
		q    *api.TransactionRequest
		code fault.Code
	}{
		"deleted namespace": {&api.TransactionRequest{Then: []*api.TransactionOp{put(a, "x"), put(b, "x"), {Op: &api.TransactionOp_Put{Put: &api.PutRequest{Namespace: "dying", Key: a}}}}}, fault.NamespaceDeleting},
		"bad id":            {&api.TransactionRequest{RequestId: "none", Then: []*api.TransactionOp{put(a, "x"), put(b, "x")}}, fault.InvalidArgument},
		"id of an item": {&api.TransactionRequest{Then: []*api.TransactionOp{put(b, "x"), {Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: a, RequestId: c.newID()}}}}},
			fault.InvalidArgument},
		"future id": {&api.TransactionRequest{RequestId: keyspace.TxnID{Created: keyspace.RevisionAt(time.Now().Add(time.Hour).UnixMilli()), Random: 1}.String(),
			Then: []*api.TransactionOp{put(a, "x"), put(b, "x")}}, fault.InvalidArgument},
		"old id": {&api.TransactionRequest{RequestId: keyspace.TxnID{Created: keyspace.RevisionAt(time.Now().Add(-time.Hour).UnixMilli()), Random: 1}.String(),
			Then: []*api.TransactionOp{put(a, "x"), put(b, "x")}}, fault.OutOfRange},
	} {
		if _, err := n2.Transaction(within(t, 20*time.Second), q.q); fault.CodeOf(err) != q.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	c.settled()
	if c.read(n2, a) != "1" {
		t.Error("a refused transaction was executed")
	}
	one := &router.Call{Op: &api.PipelineOp{Op: &api.PipelineOp_Order{Order: &api.TxnOrder{Kind: api.TxnOrder_KIND_ABORT}}}}
	if c.here.Do(t.Context(), one); fault.CodeOf(one.Err) != fault.InvalidArgument {
		t.Errorf("an order of a client: %v", one.Err)
	}
}

// touchesOverGroups: a deadline counts from the commit, the value stays, also a large
// one, and what becomes of it is answered the same under a request id.
func (c *cluster) touchesOverGroups(r *router.Router, a, b string) {
	c.t.Helper()
	large := strings.Repeat("touched ", 50_000)
	c.txn(r, &api.TransactionRequest{Then: []*api.TransactionOp{put(a, large), put(b, "b")}})
	touch := func(key string, ttl int64) *api.TransactionOp {
		return &api.TransactionOp{Op: &api.TransactionOp_Touch{Touch: &api.TouchRequest{Key: key, TtlSeconds: ttl, Persist: ttl == 0}}}
	}
	q := &api.TransactionRequest{RequestId: c.newID(), Then: []*api.TransactionOp{touch(a, 1000), touch(b, 0)}}
	out := c.txn(r, q)
	want := keyspace.Revision(out.Revision).UnixMilli() + 1_000_000
	first, second := out.Results[0].GetPut(), out.Results[1].GetPut()
	if first.GetExpiresAtMs() != want || first.GetVersion() != 2 || second.GetExpiresAtMs() != 0 || second.GetVersion() != 2 || second.GetRevision() != out.Revision {
		c.t.Fatalf("touched: %v", out)
	}
	got, err := c.here.Get(c.t.Context(), &api.GetRequest{Key: a})
	if err != nil || got.Record.ExpiresAtMs != want || string(got.Record.Value) != large || got.Record.Checksum != first.GetChecksum() {
		c.t.Fatalf("touched: %v, deadline %d, want %d", err, got.GetRecord().GetExpiresAtMs(), want)
	}
	if again := c.txn(c.here, q); !proto.Equal(again, out) {
		c.t.Fatalf("again: %v, before %v", again, out)
	}
	past := &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: b, ExpiresAtMs: 5}}}
	out = c.txn(r, &api.TransactionRequest{Then: []*api.TransactionOp{touch(a, 5), past}})
	if out.Revision != 0 || out.Results[1].GetStatus().GetCode() != "invalid_argument" || out.Results[0].GetStatus().GetCode() != "batch_aborted" {
		c.t.Fatalf("expired before it was written: %v", out)
	}
}

// Slots move to another group below transactions, which follow them.
func TestTransactionsWhileSlotsMove(t *testing.T) {
	c := newTxnCluster(t)
	n2 := c.elsewhere("n2")
	keys := []string{c.key(1, 0), c.key(1, 1), c.key(2, 0), c.key(3, 0)}
	var stop sync.WaitGroup
	done := make(chan struct{})
	var executed atomic.Int64
	stop.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			q, count := &api.TransactionRequest{}, executed.Load()
			for _, k := range keys {
				q.Then = append(q.Then, put(k, fmt.Sprint(count)))
			}
			r := c.here
			if count%2 == 1 {
				r = n2
			}
			if count%3 == 0 {
				q.RequestId = c.newID()
			}
			_, err := r.Transaction(within(t, 20*time.Second), q)
			if fault.CodeOf(err) == fault.Unavailable {
				continue
			}
			if err != nil {
				t.Error(err)
				return
			}
			executed.Add(1)
		}
	})
	for i, m := range []struct {
		key      string
		from, to keyspace.GroupID
	}{{keys[0], 1, 4}, {keys[2], 2, 3}} {
		c.eventually("transactions are executed", func() bool { return executed.Load() >= 5 })
		var slots format.SlotSet
		slots.Add(keyspace.SlotOf(keyspace.DefaultNamespace, m.key))
		c.node.Move(format.MoveID(i+1), m.from, m.to, slots, nil)
		c.node.Record(slots, m.to)
		before := executed.Load()
		c.eventually("transactions go on", func() bool { return executed.Load() >= before+5 })
	}
	close(done)
	stop.Wait()
	c.settled()
	count := executed.Load()
	for _, k := range keys {
		got, err := c.here.Get(within(t, 20*time.Second), &api.GetRequest{Key: k})
		if err != nil || got.Record.Version != uint64(count) || string(got.Record.Value) != fmt.Sprint(count-1) {
			t.Fatalf("%s after %d: %v %v", k, count, got, err)
		}
	}
	t.Logf("%d transactions", count)
}

// Records of what is long over are deleted, and nothing else.
func TestOldRecordsAreCollected(t *testing.T) {
	c := newTxnCluster(t)
	for i := range 10 {
		c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(c.key(1, i), "v"), put(c.key(2, i), "v")}})
	}
	c.settled()
	c.here.CollectTransactions(context.Background())
	if n := c.here.TransactionStats().Collected; n != 0 {
		t.Fatalf("%d records of a moment ago were deleted", n)
	}
	c.here.SetRememberFor(-time.Second)
	c.here.CollectTransactions(context.Background())
	if n := c.here.TransactionStats().Collected; n != 0 {
		t.Fatalf("%d records were deleted with a mark in the future", n)
	}
	c.eventually("records are a while old and deleted", func() bool {
		c.here.SetRememberFor(time.Millisecond)
		c.here.CollectTransactions(context.Background())
		return c.here.TransactionStats().Collected == 20
	})
}

// A group that nobody leads keeps a transaction from being executed, and the answer
// says that it was not: in time, and leaving no lock behind.
func TestAGroupThatIsAway(t *testing.T) {
	c := newTxnCluster(t)
	a, b := c.key(1, 0), c.key(2, 0)
	away := c.router("n1", &without{Host: c.node.Host, group: 2})
	begun := time.Now()
	_, err := away.Transaction(within(t, time.Second), &api.TransactionRequest{Then: []*api.TransactionOp{put(a, "v"), put(b, "v")}})
	if took := time.Since(begun); fault.CodeOf(err) != fault.Unavailable || took > 10*time.Second {
		t.Fatalf("after %v: %v", took, err)
	}
	c.settled()
	if c.read(c.here, a) != "" || c.read(c.here, b) != "" {
		t.Fatal("a part of it was executed")
	}
}

// without is a host on which one group has no leader.
type without struct {
	router.Host
	group keyspace.GroupID
}

func (w *without) Leader(g keyspace.GroupID) (keyspace.NodeID, bool, bool) {
	if g == w.group {
		return "", false, false
	}
	return w.Host.Leader(g)
}
