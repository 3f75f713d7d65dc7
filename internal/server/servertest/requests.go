package servertest

import (
	"context"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// requestID is that of an operation.
func requestID(op *api.PipelineOp) string {
	switch o := op.Op.(type) {
	case *api.PipelineOp_Put:
		return o.Put.GetRequestId()
	case *api.PipelineOp_Delete:
		return o.Delete.GetRequestId()
	case *api.PipelineOp_Transaction:
		return o.Transaction.GetRequestId()
	case *api.PipelineOp_BatchPut:
		return o.BatchPut.GetRequestId()
	case *api.PipelineOp_BatchDelete:
		return o.BatchDelete.GetRequestId()
	}
	return ""
}

// kept is what is remembered of a request.
type kept struct {
	op     *api.PipelineOp
	result *api.PipelineResult
	err    error
}

// once executes an operation that has an id the first time only; mu must be held.
func (b *Backend) once(op *api.PipelineOp, run func() (*api.PipelineResult, error)) (*api.PipelineResult, error) {
	id := requestID(op)
	if id == "" {
		return run()
	}
	if _, err := keyspace.ParseTxnID(id); err != nil {
		return nil, err
	}
	if old, ok := b.requests[id]; ok {
		if !proto.Equal(&api.PipelineOp{Op: old.op.Op}, &api.PipelineOp{Op: op.Op}) {
			return nil, fault.New(fault.InvalidArgument, "the request id was used for another request", "request_id", id)
		}
		return old.result, old.err
	}
	k := kept{op: proto.CloneOf(op)}
	k.result, k.err = run()
	b.requests[id] = k
	return k.result, k.err
}

// NewRequestID counts.
func (b *Backend) NewRequestID(context.Context, *api.NewRequestIDRequest) (*api.NewRequestIDResponse, error) {
	if err := b.failCall("NewRequestID"); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids++
	return &api.NewRequestIDResponse{RequestId: keyspace.TxnID{Created: keyspace.RevisionAt(Now), Random: b.ids}.String()}, nil
}

// DescribeRequest knows what was executed.
func (b *Backend) DescribeRequest(_ context.Context, q *api.DescribeRequestRequest) (*api.RequestOutcome, error) {
	if err := b.failCall("DescribeRequest"); err != nil {
		return nil, err
	}
	if _, err := keyspace.ParseTxnID(q.RequestId); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &api.RequestOutcome{RequestId: q.RequestId, State: api.RequestOutcome_STATE_UNKNOWN}
	k, ok := b.requests[q.RequestId]
	if !ok {
		return out, nil
	}
	out.State, out.Succeeded = api.RequestOutcome_STATE_COMMITTED, k.err == nil
	switch r := k.result.GetResult().(type) {
	case *api.PipelineResult_Put:
		out.Revision, out.Answer = r.Put.GetRevision(), &api.RequestOutcome_Put{Put: r.Put}
	case *api.PipelineResult_Transaction:
		out.Revision, out.Answer = r.Transaction.GetRevision(), &api.RequestOutcome_Transaction{Transaction: r.Transaction}
	}
	return out, nil
}
