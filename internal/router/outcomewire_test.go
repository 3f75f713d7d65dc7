package router

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// randomOp is an operation of a transaction, what the replica is asked for it, and
// what it comes to.
func randomOp(rng *rand.Rand, key string) (*api.TransactionOp, replica.Op) {
	r := replica.OpResult{Existed: rng.IntN(10) > 0, Checksum: rng.Uint32() >> rng.IntN(32), Version: rng.Uint64() >> rng.IntN(64),
		Revision: keyspace.Revision(rng.Uint64() >> rng.IntN(64)), Created: keyspace.Revision(rng.Uint64() >> rng.IntN(64)),
		Expires: int64(rng.Uint64()) >> rng.IntN(64) * int64(rng.IntN(2))}
	if rng.IntN(40) == 0 {
		r = replica.OpResult{Err: fault.New(fault.ConditionFailed, "no", "key", key)}
	}
	switch rng.IntN(4) {
	case 0:
		return delOf(key), replica.Op{Key: key, Delete: true, Result: r}
	case 1:
		return &api.TransactionOp{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Key: key}}}, replica.Op{Key: key, Read: true, Result: r}
	case 2:
		return &api.TransactionOp{Op: &api.TransactionOp_Check{Check: &api.TransactionCheck{Key: key}}}, replica.Op{Key: key, Read: true, Result: r}
	}
	return putOf(key), replica.Op{Key: key, Result: r}
}

func putOf(key string) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: key}}}
}

func delOf(key string) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Key: key}}}
}

// randomEvaluated is a call with an id, of a kind, and its request once it was
// evaluated.
func randomEvaluated(rng *rand.Rand, k kind) (*callState, *replica.Request) {
	t := &api.TransactionRequest{RequestId: "id"}
	q := &replica.Request{}
	n := rng.IntN(5)
	if k == kindPut || k == kindDelete {
		n = 1
	}
	for i := range n {
		op, o := randomOp(rng, strings.Repeat(fmt.Sprint(i), rng.IntN(200)))
		if k != kindTransaction {
			o.Read, o.Delete = false, k == kindDelete || k == kindBatchDelete
		}
		t.Then, q.Ops = append(t.Then, op), append(q.Ops, o)
	}
	op := &api.PipelineOp{}
	switch k {
	case kindPut:
		op.Op = &api.PipelineOp_Put{Put: &api.PutRequest{}}
	case kindDelete:
		op.Op = &api.PipelineOp_Delete{Delete: &api.DeleteRequest{}}
	case kindBatchPut:
		op.Op = &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{}}
	case kindBatchDelete:
		op.Op = &api.PipelineOp_BatchDelete{BatchDelete: &api.BatchDeleteRequest{}}
	default:
		q.Txn = &replica.TxnOp{Succeeded: rng.IntN(3) > 0}
		if op.Op = (&api.PipelineOp_Transaction{Transaction: t}); !q.Txn.Succeeded {
			t.Then, t.Otherwise = nil, t.Then
		}
	}
	return &callState{call: &Call{Op: op}, kind: k, id: keyspace.TxnID{Random: 1}}, q
}

func TestWrittenOutcomes(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, k := range []kind{kindPut, kindDelete, kindBatchPut, kindBatchDelete, kindTransaction} {
		written := 0
		for range 2000 {
			st, q := randomEvaluated(rng, k)
			got, want := st.written(q), st.evaluated(q)
			if got == nil {
				continue
			}
			written++
			o, err := outcomeKept(got)
			if err != nil || !bytes.HasPrefix(got, st.mark()) || !proto.Equal(o, want) || len(got) != markBytes+proto.Size(want) {
				t.Fatalf("kind %d: written %v (error %v), want %v", k, o, err, want)
			}
		}
		if written < 1000 {
			t.Errorf("kind %d: only %d of 2000 were written", k, written)
		}
	}
}

// So are the outcomes of transactions over several groups.
func TestWrittenOutcomesOfSeveralGroups(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	written := 0
	for n := range 5000 {
		k := []kind{kindTransaction, kindBatchPut, kindBatchDelete}[n%3]
		st, q := randomEvaluated(rng, k)
		txn := &api.TransactionResponse{Succeeded: succeeded(q), Revision: rng.Uint64() >> rng.IntN(64)}
		for i := range q.Ops {
			txn.Results = append(txn.Results, evaluatedResult(&q.Ops[i], false))
		}
		if len(txn.Results) > 0 && rng.IntN(20) == 0 {
			r := txn.Results[0]
			for _, m := range []proto.Message{r, r.GetPut(), r.GetDelete()} {
				if m.ProtoReflect().IsValid() && rng.IntN(2) == 0 {
					m.ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 1})
				}
			}
		}
		got, want := st.writtenOf(txn), st.outcomeOf(txn)
		if got == nil {
			continue
		}
		written++
		o, err := outcomeKept(got)
		if err != nil || !bytes.HasPrefix(got, st.mark()) || !proto.Equal(o, want) {
			t.Fatalf("written %v (error %v), want %v", o, err, want)
		}
	}
	if written < 2000 || written > 4990 {
		t.Errorf("%d of 5000 were written", written)
	}
}

// The largest results have room, and their lengths take one byte.
func TestLargestWrittenOutcome(t *testing.T) {
	full := replica.OpResult{Existed: true, Checksum: 1<<32 - 1, Version: 1<<64 - 1, Revision: keyspace.MaxRevision, Created: keyspace.MaxRevision, Expires: -1}
	for _, op := range []replica.Op{{Result: full}, {Delete: true, Result: full}, {Read: true, Key: strings.Repeat("k", 70_000), Result: full}} {
		st := &callState{call: &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{}}}}, kind: kindTransaction}
		st.id.Random = 1
		q := &replica.Request{Txn: &replica.TxnOp{Succeeded: true}, Ops: []replica.Op{op, op, op}}
		b := st.written(q)
		if o, err := outcomeKept(b); err != nil || !proto.Equal(o, st.evaluated(q)) {
			t.Errorf("written %v, error %v", o, err)
		}
		if room := maxWrittenFields + 3*(maxWrittenResult+len(op.Key)); cap(b) > outcomeHead+room+room/4 {
			t.Errorf("%d bytes for an outcome of %d", cap(b), len(b))
		}
	}
}

// What is unusual is encoded by the generated code.
func TestUnusualOutcomes(t *testing.T) {
	for name, op := range map[string]replica.Op{
		"an error":       {Result: replica.OpResult{Err: fault.New(fault.ConditionFailed, "no")}},
		"no key":         {Read: true},
		"no text":        {Read: true, Key: "\xff", Result: replica.OpResult{Existed: true}},
		"too much to be": {Read: true, Key: strings.Repeat("k", maxKept), Result: replica.OpResult{Existed: true}},
	} {
		st := &callState{call: &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: &api.TransactionRequest{}}}}, kind: kindTransaction}
		st.id.Random = 1
		q := &replica.Request{Txn: &replica.TxnOp{}, Ops: []replica.Op{op}}
		if b := st.written(q); b != nil {
			t.Errorf("%s: written as %x", name, b)
		}
		if b := st.kept(q); !bytes.Equal(b, st.encodeOutcome(st.evaluated(q))) {
			t.Errorf("%s: kept as %x", name, b)
		}
	}
}
