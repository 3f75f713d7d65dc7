package router

import (
	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/replica"
)

// An atomic batch over several groups is a transaction without checks whose answer
// is that of a batch.

// batchTransaction is the transaction that an atomic batch is; nil for other calls.
func batchTransaction(op *api.PipelineOp) *api.TransactionRequest {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Transaction:
		return o.Transaction
	case *api.PipelineOp_BatchPut:
		q := &api.TransactionRequest{Namespace: o.BatchPut.GetNamespace(), Then: make([]*api.TransactionOp, len(o.BatchPut.GetItems()))}
		for i, put := range o.BatchPut.GetItems() {
			q.Then[i] = &api.TransactionOp{Op: &api.TransactionOp_Put{Put: put}}
		}
		return q
	case *api.PipelineOp_BatchDelete:
		q := &api.TransactionRequest{Namespace: o.BatchDelete.GetNamespace(), Then: make([]*api.TransactionOp, len(o.BatchDelete.GetItems()))}
		for i, del := range o.BatchDelete.GetItems() {
			q.Then[i] = &api.TransactionOp{Op: &api.TransactionOp_Delete{Delete: del}}
		}
		return q
	}
	return nil
}

// planAtomic is the end of plan for an atomic batch.
func (f *frame) planAtomic(m *Map, st *callState) error {
	if itemCount(st.call.Op) == 0 {
		f.answer(st)
		return nil
	}
	return f.coordinateIfSeveral(m, st, st.asTransaction())
}

// asTransaction is the transaction that an indivisible call is; its namespaces are
// resolved.
func (st *callState) asTransaction() *api.TransactionRequest {
	q := batchTransaction(st.call.Op)
	if st.kind != kindTransaction {
		st.spaces = &txnSpaces{{spaceName(q, ""), st.ns}}
	}
	return q
}

// setResult gives res the answer of a call that is a transaction.
func (st *callState) setResult(res *api.PipelineResult, txn *api.TransactionResponse) {
	switch st.kind {
	case kindBatchPut:
		b := &api.BatchPutResponse{Results: make([]*api.BatchPutResult, len(txn.GetResults()))}
		for i, r := range txn.GetResults() {
			b.Results[i] = &api.BatchPutResult{Status: r.GetStatus(), Put: r.GetPut()}
		}
		res.Result = &api.PipelineResult_BatchPut{BatchPut: b}
	case kindBatchDelete:
		b := &api.BatchDeleteResponse{Results: make([]*api.BatchDeleteResult, len(txn.GetResults()))}
		for i, r := range txn.GetResults() {
			b.Results[i] = &api.BatchDeleteResult{Status: r.GetStatus(), Delete: r.GetDelete()}
		}
		res.Result = &api.PipelineResult_BatchDelete{BatchDelete: b}
	default:
		res.Result = &api.PipelineResult_Transaction{Transaction: txn}
	}
}

// evaluatedResult is the result of one operation as far as its evaluation tells;
// check says that it only checks.
func evaluatedResult(o *replica.Op, check bool) *api.TransactionResult {
	switch {
	case o.Result.Err != nil:
		return &api.TransactionResult{Status: ErrorStatus(o.Result.Err)}
	case check:
		return &api.TransactionResult{}
	case o.Read && !o.Result.Existed:
		return &api.TransactionResult{Status: ErrorStatus(errNoKey(o.Key))}
	case o.Read:
		return seenRecord(o.Key, uint64(o.Result.Revision))
	case o.Delete:
		d := new(api.DeleteResponse)
		fillDelete(d, o)
		return &api.TransactionResult{Result: &api.TransactionResult_Delete{Delete: d}}
	}
	p := new(api.PutResponse)
	fillPut(p, o)
	return &api.TransactionResult{Result: &api.TransactionResult_Put{Put: p}}
}

func errNoKey(key string) error {
	return fault.New(fault.NotFound, "the key does not exist", "key", key)
}
