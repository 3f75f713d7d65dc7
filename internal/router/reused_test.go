package router_test

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// otherwiseNamed are requests with an id on the first keys of a group, of each kind.
func otherwiseNamed(id, key, second string) map[string]*api.PipelineOp {
	return map[string]*api.PipelineOp{
		"put":    {Op: &api.PipelineOp_Put{Put: &api.PutRequest{Key: key, Value: []byte("other"), RequestId: id}}},
		"delete": {Op: &api.PipelineOp_Delete{Delete: &api.DeleteRequest{Key: key, RequestId: id}}},
		"batch": {Op: &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{Atomic: true, RequestId: id,
			Items: []*api.PutRequest{{Key: key, Value: []byte("other")}, {Key: second, Value: []byte("other")}}}}},
		"transaction": {Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{RequestId: id,
			Then: []*api.TransactionOp{put(key, "other"), put(second, "other")}}}},
	}
}

// errOf executes an operation and returns the error of it or of its items.
func (c *cluster) errOf(r *router.Router, op *api.PipelineOp) error {
	c.t.Helper()
	call := &router.Call{Op: op, Result: &api.PipelineResult{}}
	r.Do(within(c.t, 5*time.Second), call)
	for _, res := range call.Result.GetBatchPut().GetResults() {
		call.Err = router.StatusError(res.Status)
	}
	return call.Err
}

// An id that a transaction over several groups has is refused to another request at
// once, in whichever of its groups that is; and the other way round.
func TestIDsAreNotReusedInAnyGroup(t *testing.T) {
	c := newTxnCluster(t)
	n2 := c.elsewhere("n2")
	for _, r := range []*router.Router{c.here, n2} {
		for g := range keyspace.GroupID(clusterGroups) {
			key, second := c.ascending(g + 1)
			for kind := range otherwiseNamed("", key, second) {
				t.Run(fmt.Sprint(kind, " in group ", g+1), func(t *testing.T) {
					c.refusesEitherWay(t, r, kind, key, second)
				})
			}
		}
	}
}

// ascending are two keys of a group in the order of their slots.
func (c *cluster) ascending(g keyspace.GroupID) (first, second string) {
	first, second = c.key(g, 0), c.key(g, 1)
	if keyspace.SlotOf(keyspace.DefaultNamespace, first) > keyspace.SlotOf(keyspace.DefaultNamespace, second) {
		return second, first
	}
	return first, second
}

func (c *cluster) refusesEitherWay(t *testing.T, r *router.Router, kind, key, second string) {
	t.Helper()
	var ops []*api.TransactionOp
	for g := range keyspace.GroupID(clusterGroups) {
		first, _ := c.ascending(g + 1)
		ops = append(ops, put(first, "txn"))
	}
	over := func(id string) *api.PipelineOp {
		return &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{RequestId: id, Then: ops}}}
	}
	id := c.newID()
	if err := c.errOf(r, over(id)); err != nil {
		t.Fatal(err)
	}
	if err := c.errOf(r, otherwiseNamed(id, key, second)[kind]); fault.CodeOf(err) != fault.InvalidArgument {
		t.Fatalf("after a transaction of its id: %v", err)
	}
	id = c.newID()
	if err := c.errOf(r, otherwiseNamed(id, key, second)[kind]); err != nil {
		t.Fatal(err)
	}
	if err := c.errOf(r, over(id)); fault.CodeOf(err) != fault.InvalidArgument {
		t.Fatalf("a transaction after it under its id: %v", err)
	}
	if rec, err := c.here.Get(t.Context(), &api.GetRequest{Key: key}); kind != "delete" && (err != nil || string(rec.Record.Value) != "other") {
		t.Fatalf("%v, %v", rec, err)
	}
}

// Callers who pass the bytes of an answer on get the same as others, also of what is
// remembered.
func TestEncodedAnswersOfSeveralGroups(t *testing.T) {
	c := newTxnCluster(t)
	get := &api.TransactionOp{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Key: c.key(2, 0)}}}
	writes := []*api.TransactionOp{put(c.key(1, 0), "v"), put(c.key(2, 0), "v"), put(c.key(3, 0), "v")}
	for _, q := range []*api.TransactionRequest{
		{Then: writes}, {Then: writes, RequestId: c.newID()},
		{Then: append(writes[:2:2], get)}, {Then: append(writes[:2:2], get), RequestId: c.newID()},
	} {
		first := c.encoded(q)
		if len(first.Results) != len(q.Then) || first.Results[1].GetPut().GetRevision() != first.Revision || !first.Succeeded {
			t.Fatalf("%v is answered with %v", q, first)
		}
		if q.RequestId == "" {
			continue
		}
		if again := c.encoded(q); !proto.Equal(again, first) {
			t.Fatalf("%v is answered with %v, then with %v", q, first, again)
		}
	}
}

// encoded executes a transaction for a caller who passes bytes on, and returns what
// arrives.
func (c *cluster) encoded(q *api.TransactionRequest) *api.TransactionResponse {
	c.t.Helper()
	call := &router.Call{Encoded: true, Op: &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: q}}, Result: &api.PipelineResult{}}
	if c.here.Do(within(c.t, 5*time.Second), call); call.Err != nil {
		c.t.Fatal(call.Err)
	}
	b, err := proto.Marshal(call.Result)
	out := &api.PipelineResult{}
	if err == nil {
		err = proto.Unmarshal(b, out)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return out.GetTransaction()
}

// So it is of a transaction that changed nothing: a condition did not hold, or it was
// given up because its coordinator died.
func TestIDsOfWhatChangedNothingAreNotReused(t *testing.T) {
	c := newTxnCluster(t)
	failing := &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: c.key(1, 0), Condition: &api.Condition{MustExist: true}}}}
	id := c.newID()
	err := c.errOf(c.here, &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{
		RequestId: id, Then: []*api.TransactionOp{failing, put(c.key(2, 0), "txn"), put(c.key(3, 0), "txn")}}}})
	if err != nil && fault.CodeOf(err) != fault.ConditionFailed {
		t.Fatal(err)
	}
	c.refusedInAllGroups(id)
	c.settled() // so that what is prepared is of the next
	id = c.newID()
	c.abandoned(&api.TransactionRequest{RequestId: id, Then: []*api.TransactionOp{put(c.key(1, 0), "txn"), put(c.key(2, 0), "txn"), put(c.key(3, 0), "txn")}})
	if out := c.describe(c.here, id); out.State != api.RequestOutcome_STATE_ABORTED {
		t.Fatal(out)
	}
	c.refusedInAllGroups(id)
}

func (c *cluster) refusedInAllGroups(id string) {
	c.t.Helper()
	for g := range keyspace.GroupID(clusterGroups) {
		err := c.errOf(c.here, otherwiseNamed(id, c.key(g+1, 0), "")["put"])
		if fault.CodeOf(err) != fault.InvalidArgument {
			c.t.Fatalf("group %d: %v", g+1, err)
		}
	}
}

// abandoned has a coordinator die when one group has prepared a request.
func (c *cluster) abandoned(q *api.TransactionRequest) {
	c.t.Helper()
	dead, went := c.mortal("half prepared"), make(chan struct{})
	dead.OnStep(func(at string, _ keyspace.TxnID) bool {
		if at == "half prepared" {
			close(went)
		}
		return at == "half prepared"
	})
	go func() { _, _ = dead.Transaction(c.t.Context(), q) }()
	<-went
	c.eventually("it is prepared in a group", func() bool {
		for _, g := range c.node.Host.Groups() {
			if len(g.Prepared) > 0 {
				return true
			}
		}
		return false
	})
}
