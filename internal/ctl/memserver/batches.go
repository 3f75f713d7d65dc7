package memserver

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
)

// statusOf turns an error of Errorf into the status inside a message.
func statusOf(err error) *api.Status {
	st := status.Convert(err)
	out := &api.Status{Code: "internal", Message: st.Message()}
	for _, d := range st.Details() {
		if d, ok := d.(*api.ErrorDetail); ok {
			out.Code, out.Details = d.GetCode(), d.GetDetails()
		}
	}
	return out
}

// BatchPut is the service's method; items do not stop each other.
func (s *Server) BatchPut(_ context.Context, r *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.BatchPutResponse{}
	for _, item := range r.GetItems() {
		item.Namespace = r.GetNamespace()
		res, err := s.put(item)
		one := &api.BatchPutResult{Put: res}
		if err != nil {
			one.Status = statusOf(err)
		}
		out.Results = append(out.Results, one)
	}
	return out, nil
}

// BatchGet is the service's method.
func (s *Server) BatchGet(_ context.Context, r *api.BatchGetRequest) (*api.BatchGetResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.BatchGetResponse{}
	for _, key := range r.GetKeys() {
		res, err := s.get(&api.GetRequest{Namespace: r.GetNamespace(), Key: key, KeysOnly: r.GetKeysOnly()})
		one := &api.BatchGetResult{Record: res.GetRecord()}
		if err != nil {
			one.Status = statusOf(err)
		}
		out.Results = append(out.Results, one)
	}
	return out, nil
}

// BatchDelete is the service's method.
func (s *Server) BatchDelete(_ context.Context, r *api.BatchDeleteRequest) (*api.BatchDeleteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.BatchDeleteResponse{}
	for _, item := range r.GetItems() {
		item.Namespace = r.GetNamespace()
		res, err := s.delete(item)
		one := &api.BatchDeleteResult{Delete: res}
		if err != nil {
			one.Status = statusOf(err)
		}
		out.Results = append(out.Results, one)
	}
	return out, nil
}

// Pipeline is the service's method.
func (s *Server) Pipeline(stream grpc.BidiStreamingServer[api.PipelineRequest, api.PipelineResponse]) error {
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		out := &api.PipelineResponse{}
		for _, op := range req.GetOps() {
			out.Results = append(out.Results, s.operation(stream.Context(), op))
		}
		if err := stream.Send(out); err != nil {
			return err
		}
	}
}

func (s *Server) operation(ctx context.Context, op *api.PipelineOp) *api.PipelineResult {
	out := &api.PipelineResult{Id: op.GetId()}
	// One that intercept runs late, after it has answered, changes nothing of out.
	var ran atomic.Pointer[api.PipelineResult]
	run := func() error {
		own := &api.PipelineResult{}
		err := s.run(ctx, op, own)
		ran.Store(own)
		return err
	}
	s.mu.Lock()
	intercept := s.intercept
	s.mu.Unlock()
	var err error
	if intercept != nil {
		err = intercept(op, run)
	} else {
		err = run()
	}
	if err != nil {
		out.Status = statusOf(err)
	} else if own := ran.Load(); own != nil {
		out.Result = own.Result
	}
	return out
}

func (s *Server) run(ctx context.Context, op *api.PipelineOp, out *api.PipelineResult) (err error) {
	switch o := op.GetOp().(type) {
	case *api.PipelineOp_Put:
		var r *api.PutResponse
		r, err = s.Put(ctx, o.Put)
		out.Result = &api.PipelineResult_Put{Put: r}
	case *api.PipelineOp_Get:
		var r *api.GetResponse
		r, err = s.Get(ctx, o.Get)
		out.Result = &api.PipelineResult_Get{Get: r}
	case *api.PipelineOp_Delete:
		var r *api.DeleteResponse
		r, err = s.Delete(ctx, o.Delete)
		out.Result = &api.PipelineResult_Delete{Delete: r}
	case *api.PipelineOp_Touch:
		var r *api.PutResponse
		r, err = s.Touch(ctx, o.Touch)
		out.Result = &api.PipelineResult_Touch{Touch: r}
	case *api.PipelineOp_BatchPut:
		var r *api.BatchPutResponse
		r, err = s.BatchPut(ctx, o.BatchPut)
		out.Result = &api.PipelineResult_BatchPut{BatchPut: r}
	case *api.PipelineOp_BatchGet:
		var r *api.BatchGetResponse
		r, err = s.BatchGet(ctx, o.BatchGet)
		out.Result = &api.PipelineResult_BatchGet{BatchGet: r}
	case *api.PipelineOp_BatchDelete:
		var r *api.BatchDeleteResponse
		r, err = s.BatchDelete(ctx, o.BatchDelete)
		out.Result = &api.PipelineResult_BatchDelete{BatchDelete: r}
	case *api.PipelineOp_Transaction:
		var r *api.TransactionResponse
		r, err = s.Transaction(ctx, o.Transaction)
		out.Result = &api.PipelineResult_Transaction{Transaction: r}
	default:
		err = Errorf("invalid_argument", "operation is empty")
	}
	return err
}
