package rpc

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/guard"
	"kvstore/internal/router"
)

// unary is the one operation of a call with all that its way needs.
type unary struct {
	op     api.PipelineOp
	result api.PipelineResult
	call   router.Call
	calls  [1]*router.Call
}

// run executes u.op and returns its result.
func (u *unary) run(ctx context.Context, b Backend) (*api.PipelineResult, error) {
	u.call.Op, u.call.Result, u.call.Identity = &u.op, &u.result, guard.Identity(ctx)
	u.calls[0] = &u.call
	b.Do(ctx, u.calls[:]...)
	return u.call.Result, u.call.Err
}

// Put writes one key. Puts and gets are many: what they need is one allocation.
func (s *Service) Put(ctx context.Context, q *api.PutRequest) (*api.PutResponse, error) {
	u := &struct {
		unary
		put api.PipelineOp_Put
	}{put: api.PipelineOp_Put{Put: q}}
	u.op.Op = &u.put
	res, err := u.run(ctx, s.b)
	if err != nil {
		return nil, err
	}
	return res.GetPut(), nil
}

// Get reads one key. The answer is for the codec only: it may be nothing but bytes.
func (s *Service) Get(ctx context.Context, q *api.GetRequest) (*api.GetResponse, error) {
	return s.get(ctx, q, true)
}

// get reads one key; see router.Call.Encoded.
func (s *Service) get(ctx context.Context, q *api.GetRequest, encoded bool) (*api.GetResponse, error) {
	u := &struct {
		unary
		get api.PipelineOp_Get
	}{get: api.PipelineOp_Get{Get: q}}
	u.op.Op = &u.get
	u.call.Encoded = encoded
	res, err := u.run(ctx, s.b)
	if err != nil {
		return nil, err
	}
	return res.GetGet(), nil
}

// Delete removes one key.
func (s *Service) Delete(ctx context.Context, q *api.DeleteRequest) (*api.DeleteResponse, error) {
	u := &unary{}
	u.op.Op = &api.PipelineOp_Delete{Delete: q}
	res, err := u.run(ctx, s.b)
	if err != nil {
		return nil, err
	}
	return res.GetDelete(), nil
}

// Touch changes a key's deadline.
func (s *Service) Touch(ctx context.Context, q *api.TouchRequest) (*api.PutResponse, error) {
	u := &unary{}
	u.op.Op = &api.PipelineOp_Touch{Touch: q}
	res, err := u.run(ctx, s.b)
	if err != nil {
		return nil, err
	}
	return res.GetTouch(), nil
}

// BatchPut writes many keys; the response says per item what happened.
func (s *Service) BatchPut(ctx context.Context, q *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	u := &unary{}
	u.op.Op = &api.PipelineOp_BatchPut{BatchPut: q}
	res, err := u.run(ctx, s.b)
	if err != nil {
		return nil, err
	}
	return res.GetBatchPut(), nil
}

// BatchGet reads many keys; the response says per item what happened.
func (s *Service) BatchGet(ctx context.Context, q *api.BatchGetRequest) (*api.BatchGetResponse, error) {
	u := &unary{}
	u.op.Op = &api.PipelineOp_BatchGet{BatchGet: q}
	res, err := u.run(ctx, s.b)
	if err != nil {
		return nil, err
	}
	return res.GetBatchGet(), nil
}

// BatchDelete removes many keys; the response says per item what happened.
func (s *Service) BatchDelete(ctx context.Context, q *api.BatchDeleteRequest) (*api.BatchDeleteResponse, error) {
	u := &unary{}
	u.op.Op = &api.PipelineOp_BatchDelete{BatchDelete: q}
	res, err := u.run(ctx, s.b)
	if err != nil {
		return nil, err
	}
	return res.GetBatchDelete(), nil
}

// Transaction executes one of two lists of operations, whole or not at all; the
// response says per operation what happened.
func (s *Service) Transaction(ctx context.Context, q *api.TransactionRequest) (*api.TransactionResponse, error) {
	u := &unary{}
	u.op.Op = &api.PipelineOp_Transaction{Transaction: q}
	res, err := u.run(ctx, s.b)
	if err != nil {
		return nil, err
	}
	return res.GetTransaction(), nil
}

// List returns one page.
func (s *Service) List(ctx context.Context, q *api.ListRequest) (*api.ListResponse, error) {
	return s.b.ListEncoded(ctx, q)
}
