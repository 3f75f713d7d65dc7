package rpc

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/guard"
	"kvstore/internal/router"
)

// do runs one operation and returns its result.
func (s *Service) do(ctx context.Context, op *api.PipelineOp) (*api.PipelineResult, error) {
	call := &router.Call{Op: op, Identity: guard.Identity(ctx)}
	s.b.Do(ctx, call)
	return call.Result, call.Err
}

// Put writes one key.
func (s *Service) Put(ctx context.Context, q *api.PutRequest) (*api.PutResponse, error) {
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Put{Put: q}})
	if err != nil {
		return nil, err
	}
	return res.GetPut(), nil
}

// Get reads one key.
func (s *Service) Get(ctx context.Context, q *api.GetRequest) (*api.GetResponse, error) {
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Get{Get: q}})
	if err != nil {
		return nil, err
	}
	return res.GetGet(), nil
}

// Delete removes one key.
func (s *Service) Delete(ctx context.Context, q *api.DeleteRequest) (*api.DeleteResponse, error) {
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_Delete{Delete: q}})
	if err != nil {
		return nil, err
	}
	return res.GetDelete(), nil
}

// BatchPut writes many keys; the response says per item what happened.
func (s *Service) BatchPut(ctx context.Context, q *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_BatchPut{BatchPut: q}})
	if err != nil {
		return nil, err
	}
	return res.GetBatchPut(), nil
}

// BatchGet reads many keys; the response says per item what happened.
func (s *Service) BatchGet(ctx context.Context, q *api.BatchGetRequest) (*api.BatchGetResponse, error) {
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: q}})
	if err != nil {
		return nil, err
	}
	return res.GetBatchGet(), nil
}

// BatchDelete removes many keys; the response says per item what happened.
func (s *Service) BatchDelete(ctx context.Context, q *api.BatchDeleteRequest) (*api.BatchDeleteResponse, error) {
	res, err := s.do(ctx, &api.PipelineOp{Op: &api.PipelineOp_BatchDelete{BatchDelete: q}})
	if err != nil {
		return nil, err
	}
	return res.GetBatchDelete(), nil
}

// List returns one page.
func (s *Service) List(ctx context.Context, q *api.ListRequest) (*api.ListResponse, error) {
	return s.b.ListEncoded(ctx, q)
}
