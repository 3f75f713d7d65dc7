package router

import (
	"context"

	api "kvstore/api/kvstore/v1"
)

// do runs one operation with the identity and origin in ctx.
func (r *Router) do(ctx context.Context, op *api.PipelineOp) (*api.PipelineResult, error) {
	c := &Call{Op: op, Result: &api.PipelineResult{}, Identity: Identity(ctx), Forwarded: Forwarded(ctx)}
	r.Do(ctx, c)
	return c.Result, c.Err
}

// Put writes one record. Errors are *fault.Error, here and in the other verbs.
func (r *Router) Put(ctx context.Context, req *api.PutRequest) (*api.PutResponse, error) {
	res, err := r.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Put{Put: req}})
	return res.GetPut(), err
}

// Get reads one record, whole; fault.NotFound when there is none.
func (r *Router) Get(ctx context.Context, req *api.GetRequest) (*api.GetResponse, error) {
	res, err := r.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Get{Get: req}})
	return res.GetGet(), err
}

// Delete deletes one key; a key that is not there is no error.
func (r *Router) Delete(ctx context.Context, req *api.DeleteRequest) (*api.DeleteResponse, error) {
	res, err := r.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Delete{Delete: req}})
	return res.GetDelete(), err
}

// Touch changes the deadline of a key that exists.
func (r *Router) Touch(ctx context.Context, req *api.TouchRequest) (*api.PutResponse, error) {
	res, err := r.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Touch{Touch: req}})
	return res.GetTouch(), err
}

// Transaction judges checks and executes one of two lists of operations, whole
// or not at all; the answer says per operation what happened.
func (r *Router) Transaction(ctx context.Context, req *api.TransactionRequest) (*api.TransactionResponse, error) {
	res, err := r.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: req}})
	return res.GetTransaction(), err
}

// BatchPut writes several records, atomically per group; the answer says per
// item what happened.
func (r *Router) BatchPut(ctx context.Context, req *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	res, err := r.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_BatchPut{BatchPut: req}})
	return res.GetBatchPut(), err
}

// BatchGet reads several records; the items of one group are of one moment.
func (r *Router) BatchGet(ctx context.Context, req *api.BatchGetRequest) (*api.BatchGetResponse, error) {
	res, err := r.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: req}})
	return res.GetBatchGet(), err
}

// BatchDelete deletes several keys, atomically per group.
func (r *Router) BatchDelete(ctx context.Context, req *api.BatchDeleteRequest) (*api.BatchDeleteResponse, error) {
	res, err := r.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_BatchDelete{BatchDelete: req}})
	return res.GetBatchDelete(), err
}
