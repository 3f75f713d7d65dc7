package router

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// recall answers a call with what its group remembers of the same request.
func (f *frame) recall(p *part, kept []byte) {
	if p.st.reused(kept) {
		p.failReused()
		return
	}
	if len(kept) == markBytes && p.txn == nil { // committed by somebody who had no answer to keep
		f.retry(p, fault.New(fault.UnknownOutcome, "the answer of the request was not kept", "request_id", p.st.id))
		return
	}
	if err := f.r.answerKept(f.ctx, p.st, kept); err != nil {
		p.fail(err)
		return
	}
	p.finish()
}

// reused reports whether what a record keeps is of another request than the call's,
// which should not have its id.
func (st *callState) reused(kept []byte) bool {
	_, mark := markOf(kept)
	return string(mark) != string(st.mark())
}

// failReused answers a part whose request id is another request's.
func (p *part) failReused() { p.fail(errReused(p.st.id)) }

// answerKept fills a call's answer from what is remembered of the same request.
// Values that it read are read again, at the revisions that it saw.
func (r *Router) answerKept(ctx context.Context, st *callState, kept []byte) error {
	o, err := outcomeKept(kept)
	if err != nil {
		return err
	}
	switch a := o.GetAnswer().(type) {
	case *api.RequestOutcome_Put:
		st.call.Result.Result = &api.PipelineResult_Put{Put: a.Put}
	case *api.RequestOutcome_Delete:
		st.call.Result.Result = &api.PipelineResult_Delete{Delete: a.Delete}
	case *api.RequestOutcome_BatchPut:
		st.call.Result.Result = &api.PipelineResult_BatchPut{BatchPut: a.BatchPut}
	case *api.RequestOutcome_BatchDelete:
		st.call.Result.Result = &api.PipelineResult_BatchDelete{BatchDelete: a.BatchDelete}
	case *api.RequestOutcome_Transaction:
		st.call.Result.Result = &api.PipelineResult_Transaction{Transaction: a.Transaction}
		return r.readAgain(ctx, st, a.Transaction)
	default:
		if err := StatusError(o.GetError()); err != nil {
			return err
		}
		return fault.New(fault.FailedPrecondition, "the request was executed before; its answer was too large to be kept",
			"request_id", st.id.String(), "revision", o.GetRevision(), "limit_bytes", maxKept)
	}
	return nil
}

// withoutValues is an answer without the values that were read: of a record that
// was, what names its version is left.
func withoutValues(txn *api.TransactionResponse) *api.TransactionResponse {
	out := &api.TransactionResponse{Succeeded: txn.GetSucceeded(), Revision: txn.GetRevision(), Results: make([]*api.TransactionResult, len(txn.GetResults()))}
	for i, res := range txn.GetResults() {
		if out.Results[i] = res; res.GetGet() != nil {
			out.Results[i] = seenRecord(res.GetGet().GetKey(), res.GetGet().GetRevision())
		}
	}
	return out
}

// seenRecord stands for a record that was read.
func seenRecord(key string, revision uint64) *api.TransactionResult {
	return &api.TransactionResult{Result: &api.TransactionResult_Get{Get: &api.Record{Key: key, Revision: revision}}}
}

// readAgain fills the records of an answer that seenRecord stands for.
func (r *Router) readAgain(ctx context.Context, st *callState, txn *api.TransactionResponse) error {
	q := st.call.Op.GetTransaction()
	list := q.GetThen()
	if !txn.GetSucceeded() {
		list = q.GetOtherwise()
	}
	var calls []*Call
	var at []int
	for i, res := range txn.GetResults() {
		if res.GetGet() != nil && i < len(list) {
			g := list[i].GetGet()
			calls, at = append(calls, getAt(spaceName(q, g.GetNamespace()), g.GetKey(), res.GetGet().GetRevision(), g.GetKeysOnly(), st.call.Identity)), append(at, i)
		}
	}
	r.Do(ctx, calls...)
	for n, c := range calls {
		if c.Err == nil && c.Result.GetGet().GetRecord().GetRevision() != txn.Results[at[n]].GetGet().GetRevision() {
			c.Err = fault.New(fault.OutOfRange, "the version that the transaction read cannot be read any more", "key", c.Op.GetGet().GetKey())
		}
		if c.Err != nil {
			txn.Results[at[n]] = &api.TransactionResult{Status: ErrorStatus(c.Err)}
			continue
		}
		txn.Results[at[n]] = &api.TransactionResult{Result: &api.TransactionResult_Get{Get: c.Result.GetGet().GetRecord()}}
	}
	return nil
}

func getAt(space, key string, rev uint64, keysOnly bool, identity string) *Call {
	return &Call{Identity: identity, Op: &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{
		Namespace: space, Key: key, AtRevision: rev, KeysOnly: keysOnly}}}}
}

// readOutcome is the answer of a transaction that is committed and finished, of
// which nothing else is left: what it wrote is read at its revision, and what it
// saw just below, since its locks kept that as it was.
func (r *Router) readOutcome(ctx context.Context, q *api.TransactionRequest, identity string, c twophase.Conclusion) (*api.TransactionResponse, error) {
	out := &api.TransactionResponse{Succeeded: c.Branch != twophase.Otherwise}
	list := q.GetThen()
	if !out.Succeeded {
		list = q.GetOtherwise()
	}
	out.Results = make([]*api.TransactionResult, len(list))
	if c.Branch == twophase.Nothing {
		return nil, fault.New(fault.ConditionFailed, "a condition of the transaction's operations did not hold; nothing was executed")
	}
	calls := make([]*Call, len(list))
	for i, op := range list {
		space, key := txnKey(op)
		rev := c.At - 1
		if puts(op) {
			rev = c.At
		}
		reader := identity
		if space == keyspace.LeaseNamespaceName {
			reader = SystemIdentity // what guard has added
		}
		calls[i] = getAt(spaceName(q, space), key, uint64(rev), op.GetGet() == nil || op.GetGet().GetKeysOnly(), reader)
	}
	r.Do(ctx, calls...)
	for i, op := range list {
		if err := calls[i].Err; err != nil && (fault.CodeOf(err) != fault.NotFound || puts(op)) {
			return nil, err
		}
		if out.Results[i] = resultRead(op, calls[i], c.At); puts(op) || out.Results[i].GetDelete().GetExisted() {
			out.Revision = uint64(c.At)
		}
	}
	return out, nil
}

// puts reports whether an operation leaves a record.
func puts(op *api.TransactionOp) bool { return op.GetPut() != nil || op.GetTouch() != nil }

// resultRead is the result of an operation by what was read of its key.
func resultRead(op *api.TransactionOp, c *Call, at keyspace.Revision) *api.TransactionResult {
	rec := c.Result.GetGet().GetRecord()
	switch op.GetOp().(type) {
	case *api.TransactionOp_Check:
		return &api.TransactionResult{}
	case *api.TransactionOp_Put, *api.TransactionOp_Touch:
		return &api.TransactionResult{Result: &api.TransactionResult_Put{Put: &api.PutResponse{
			Version: rec.GetVersion(), Revision: rec.GetRevision(), CreatedAtMs: rec.GetCreatedAtMs(), UpdatedAtMs: rec.GetUpdatedAtMs(),
			ExpiresAtMs: rec.GetExpiresAtMs(), Checksum: rec.GetChecksum()}}}
	case *api.TransactionOp_Delete:
		d := &api.DeleteResponse{Existed: c.Err == nil}
		if d.Existed {
			d.Revision = uint64(at)
		}
		return &api.TransactionResult{Result: &api.TransactionResult_Delete{Delete: d}}
	}
	if c.Err != nil {
		return &api.TransactionResult{Status: ErrorStatus(c.Err)}
	}
	return &api.TransactionResult{Result: &api.TransactionResult_Get{Get: rec}}
}
