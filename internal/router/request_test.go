package router_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

func (c *cluster) newID() string {
	c.t.Helper()
	id, err := c.here.NewRequestID(c.t.Context(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return id.RequestId
}

func (c *cluster) describe(r *router.Router, id string) *api.RequestOutcome {
	c.t.Helper()
	out, err := r.DescribeRequest(within(c.t, 20*time.Second), &api.DescribeRequestRequest{RequestId: id})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// F2: a request with an id is executed once, whatever it is, however often it is
// sent, and answers the same; its outcome can be asked for. Its id is good for
// nothing else.
func TestRequestsAreExecutedOnce(t *testing.T) {
	c := newTxnCluster(t)
	n2 := c.elsewhere("n2")
	a, b, d := c.key(1, 0), c.key(2, 0), c.key(3, 0)
	c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(a, "a0"), put(b, "b0")}})
	for name, op := range map[string]*api.PipelineOp{
		"put":         {Op: &api.PipelineOp_Put{Put: &api.PutRequest{Key: a, Value: []byte("1")}}},
		"delete":      {Op: &api.PipelineOp_Delete{Delete: &api.DeleteRequest{Key: c.key(2, 1)}}},
		"failing put": {Op: &api.PipelineOp_Put{Put: &api.PutRequest{Key: a, Value: []byte("1"), Condition: &api.Condition{VersionMatch: proto.Uint64(77)}}}},
		"batch": {Op: &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{Atomic: true,
			Items: []*api.PutRequest{{Key: a, Value: []byte("2")}, {Key: b, Value: []byte("2")}}}}},
		"batch delete": {Op: &api.PipelineOp_BatchDelete{BatchDelete: &api.BatchDeleteRequest{Atomic: true,
			Items: []*api.DeleteRequest{{Key: c.key(3, 5)}, {Key: c.key(1, 5)}}}}},
		"one group": {Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{
			Then: []*api.TransactionOp{get(c.key(1, 2)), get(c.key(1, 0)), put(c.key(1, 3), "3")}}}},
		"several groups": {Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{
			Then: []*api.TransactionOp{get(a), put(b, "4"), put(d, "4"), get(c.key(2, 3))}}}},
		"failing over groups": {Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{
			Then: []*api.TransactionOp{put(b, "5"), {Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: a, Condition: &api.Condition{MustNotExist: true}}}}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			id := c.newID()
			name := func(op *api.PipelineOp, id string) *api.PipelineOp {
				op = proto.CloneOf(op)
				switch o := op.Op.(type) {
				case *api.PipelineOp_Put:
					o.Put.RequestId = id
				case *api.PipelineOp_Delete:
					o.Delete.RequestId = id
				case *api.PipelineOp_BatchPut:
					o.BatchPut.RequestId = id
				case *api.PipelineOp_BatchDelete:
					o.BatchDelete.RequestId = id
				case *api.PipelineOp_Transaction:
					o.Transaction.RequestId = id
				}
				return op
			}
			if out := c.describe(n2, id); out.State != api.RequestOutcome_STATE_UNKNOWN {
				t.Fatalf("before: %v", out)
			}
			call := func(r *router.Router, op *api.PipelineOp) *router.Call {
				one := &router.Call{Op: op, Result: &api.PipelineResult{}}
				r.Do(within(t, 20*time.Second), one)
				return one
			}
			first := call(c.here, name(op, id))
			for _, r := range []*router.Router{n2, c.here} {
				again := call(r, name(op, id))
				if fault.CodeOf(again.Err) != fault.CodeOf(first.Err) || first.Err == nil && !proto.Equal(again.Result, first.Result) {
					t.Fatalf("again: %v %v\nfirst: %v %v", again.Result, again.Err, first.Result, first.Err)
				}
			}
			if out := c.describe(n2, id); out.State != api.RequestOutcome_STATE_COMMITTED || out.Answer == nil && first.Err == nil ||
				(out.Error != nil) != strings.Contains(t.Name(), "failing") {
				t.Fatalf("after: %v", out)
			}
			reused := name(op, id)
			switch o := reused.Op.(type) {
			case *api.PipelineOp_Put:
				o.Put.Value = []byte("other")
			case *api.PipelineOp_Delete:
				o.Delete.Condition = &api.Condition{MustExist: true}
			case *api.PipelineOp_BatchPut:
				o.BatchPut.Items[1].Value = []byte("other")
			case *api.PipelineOp_BatchDelete:
				o.BatchDelete.Items[1].Condition = &api.Condition{MustExist: true}
			case *api.PipelineOp_Transaction:
				o.Transaction.Otherwise = []*api.TransactionOp{get(a)}
			}
			got := call(n2, reused)
			for _, res := range got.Result.GetBatchPut().GetResults() {
				got.Err = router.StatusError(res.Status)
			}
			for _, res := range got.Result.GetBatchDelete().GetResults() {
				got.Err = router.StatusError(res.Status)
			}
			if fault.CodeOf(got.Err) != fault.InvalidArgument {
				t.Fatalf("another request of the same id: %v", got.Result)
			}
		})
	}
}

// Both nodes that a request is sent to at the same time execute it once between
// them and say the same.
func TestOneRequestAtTwoCoordinators(t *testing.T) {
	c := newTxnCluster(t)
	n2 := c.elsewhere("n2")
	a, b := c.key(1, 0), c.key(2, 0)
	for range 20 {
		q := &api.TransactionRequest{RequestId: c.newID(), Then: []*api.TransactionOp{get(a), put(a, "v"), put(b, "v")}}
		var out [2]*api.TransactionResponse
		var wg sync.WaitGroup
		for i, r := range []*router.Router{c.here, n2} {
			wg.Go(func() {
				var err error
				if out[i], err = r.Transaction(within(t, 20*time.Second), proto.CloneOf(q)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if !proto.Equal(out[0], out[1]) {
			t.Fatalf("%v\n%v", out[0], out[1])
		}
	}
	c.settled()
	if got, err := c.here.Get(t.Context(), &api.GetRequest{Key: a}); err != nil || got.Record.Version != 20 {
		t.Fatalf("%v %v", got, err)
	}
}

// Who asks for a request whose coordinator died is told how it ended, and that
// stays so, also when the request comes once more.
func TestOutcomeOfADeadCoordinator(t *testing.T) {
	c := newTxnCluster(t)
	for step, want := range map[string]api.RequestOutcome_State{
		"half prepared": api.RequestOutcome_STATE_ABORTED, "conclude": api.RequestOutcome_STATE_COMMITTED, "answered": api.RequestOutcome_STATE_COMMITTED,
	} {
		q := &api.TransactionRequest{RequestId: c.newID(), Then: []*api.TransactionOp{put(c.key(1, 1), step), put(c.key(3, 1), step), del(c.key(2, 1))}}
		dead := c.mortal(step)
		went := make(chan struct{})
		dead.OnStep(func(at string, _ keyspace.TxnID) bool {
			if at == step {
				close(went)
			}
			return at == step
		})
		go func() { _, _ = dead.Transaction(t.Context(), q) }()
		<-went
		if step == "half prepared" {
			c.eventually("it is prepared in a group", func() bool {
				for _, g := range c.node.Host.Groups() {
					if len(g.Prepared) > 0 {
						return true
					}
				}
				return false
			})
		}
		out := c.describe(c.here, q.RequestId)
		if out.State != want {
			t.Fatalf("%s: %v", step, out)
		}
		again, err := c.here.Transaction(within(t, 20*time.Second), proto.CloneOf(q))
		switch {
		case want == api.RequestOutcome_STATE_ABORTED && fault.CodeOf(err) != fault.FailedPrecondition,
			want == api.RequestOutcome_STATE_COMMITTED && (err != nil || again.Revision != out.Revision || again.Results[0].GetPut().GetRevision() != out.Revision):
			t.Fatalf("%s: %v, %v", step, again, err)
		}
	}
}
