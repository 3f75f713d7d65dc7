package router

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

const benchKeys = 5

// benchTransaction puts a few keys of a group under a request id.
func benchTransaction() *api.PipelineOp {
	q := &api.TransactionRequest{RequestId: keyspace.TxnID{Created: 1 << 40, Random: 7}.String()}
	for i := range benchKeys {
		q.Then = append(q.Then, &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{
			Key: fmt.Sprint("some/longer/key/", i), Value: make([]byte, 100)}}})
	}
	return &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: q}}
}

// benchExecute tells what a replica would of puts.
func benchExecute(q *replica.Request) {
	ops := q.Ops
	if q.Txn != nil {
		ops, q.Txn.Succeeded = q.Txn.Then, true
	}
	for i := range ops {
		ops[i].Result = replica.OpResult{Version: 3, Revision: 1_700_000_000_000 << 16, Created: 1_600_000_000_000 << 16, Checksum: 1 << 31}
	}
	if q.Ops = ops; q.Encode != nil {
		q.Encode(q)
	}
	if q.Order != nil {
		q.Ops = nil
		q.Order.Result = replica.OrderResult{Participants: q.Order.Participants}
		q.Order.Result.State, q.Order.Result.Stamp, q.Order.Result.Holds = twophase.Prepared, 1<<40, true
	}
}

// benchRouter has one group, which executes everything.
func benchRouter(b testing.TB) *Router {
	b.Helper()
	h := newHost("a")
	h.submit = func(rs []*replica.Request) bool {
		h.submits = h.submits[:0]
		for _, q := range rs {
			benchExecute(q)
			q.Done(q)
		}
		return true
	}
	m := testMap()
	m.Groups = 1
	r, err := New(Options{Node: "a", Host: h, Peers: &fakePeers{}, Directory: &fakeDirectory{m: m}, Clock: newClock(), Rand: &countRand{}})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// namedTransaction is benchTransaction with an id of now.
func namedTransaction(r *Router) *Call {
	op := benchTransaction()
	op.GetTransaction().RequestId = keyspace.TxnID{Created: keyspace.RevisionAt(r.o.Clock.Wall()), Random: 7}.String()
	return &Call{Op: op}
}

// prepareOfOne has a participant prepare a put.
func prepareOfOne() *Call {
	return &Call{own: true, Op: &api.PipelineOp{Op: &api.PipelineOp_Order{Order: &api.TxnOrder{
		Kind: api.TxnOrder_KIND_PREPARE, Id: keyspace.TxnID{Created: 1 << 40, Random: 7}.Append(nil), Slot: 3, Participants: []uint32{3, 7, 9, 12, 14},
		Request: &api.TransactionRequest{Then: benchTransaction().GetTransaction().Then[:1]}}}}}
}

// The router's own cost of a transaction in one group, with its record, and that of
// its answer's bytes.
func BenchmarkTransaction(b *testing.B) {
	for _, encoded := range []bool{false, true} {
		b.Run(fmt.Sprint("encoded=", encoded), func(b *testing.B) {
			r := benchRouter(b)
			c := namedTransaction(r)
			c.Encoded = encoded
			var sent []byte
			b.ReportAllocs()
			for b.Loop() {
				r.Do(context.Background(), c)
				var err error
				if sent, err = (proto.MarshalOptions{}).MarshalAppend(sent[:0], c.Result); err != nil || c.Err != nil {
					b.Fatal(c.Err, err)
				}
			}
		})
	}
}

// The same of a participant's share that it prepares.
func BenchmarkPrepareOrder(b *testing.B) {
	r := benchRouter(b)
	c := prepareOfOne()
	b.ReportAllocs()
	for b.Loop() {
		if r.Do(context.Background(), c); len(c.Result.GetOrder().GetThen()) != 1 {
			b.Fatal(c.Err)
		}
	}
}

func benchState(op *api.PipelineOp) (*callState, *replica.Request) {
	st := &callState{call: &Call{Op: op}, kind: kindOf(op), id: keyspace.TxnID{Created: 1 << 40, Random: 7},
		spaces: &txnSpaces{{keyspace.DefaultNamespaceName, keyspace.DefaultNamespace}}}
	st.only = part{st: st}
	q := &replica.Request{}
	if t := op.GetTransaction(); t != nil {
		q.Txn = &replica.TxnOp{}
		st.txnOps(q.Txn, t)
	} else {
		q.Ops = make([]replica.Op, 1)
	}
	st.only.remember(q)
	benchExecute(q)
	return st, q
}

func benchPut() *api.PipelineOp {
	return &api.PipelineOp{Op: &api.PipelineOp_Put{Put: &api.PutRequest{Key: "some/longer/key", Value: make([]byte, 100),
		RequestId: "01234567890123456789012345"}}}
}

func BenchmarkContentHash(b *testing.B) {
	for name, op := range map[string]*api.PipelineOp{"put": benchPut(), "transaction": benchTransaction()} {
		b.Run(name, func(b *testing.B) {
			st, _ := benchState(op)
			b.ReportAllocs()
			for b.Loop() {
				st.contentHash()
			}
		})
	}
}

// The outcome without the mark.
func BenchmarkOutcome(b *testing.B) {
	for name, op := range map[string]*api.PipelineOp{"put": benchPut(), "transaction": benchTransaction()} {
		b.Run(name, func(b *testing.B) {
			st, q := benchState(op)
			st.mark()
			b.ReportAllocs()
			for b.Loop() {
				q.Encode(q)
			}
		})
	}
}

// The outcome of a transaction over several groups, without the mark.
func BenchmarkMergedOutcome(b *testing.B) {
	st, q := benchState(benchTransaction())
	txn := &api.TransactionResponse{Succeeded: true, Revision: 1_700_000_000_000 << 16}
	for i := range q.Ops {
		txn.Results = append(txn.Results, evaluatedResult(&q.Ops[i], false))
	}
	b.Run("messages", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			st.encodeOutcome(st.outcomeOf(txn))
		}
	})
	b.Run("written", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			st.writtenOf(txn)
		}
	})
}
