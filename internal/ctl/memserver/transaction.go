package memserver

import (
	"context"

	api "kvstore/api/kvstore/v1"
)

// Transaction is the service's method; all keys are in one group.
func (s *Server) Transaction(_ context.Context, q *api.TransactionRequest) (*api.TransactionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.requests[q.GetRequestId()]; old != nil {
		return old, nil
	}
	out, err := s.transaction(q)
	if id := q.GetRequestId(); id != "" && err == nil {
		s.requests[id] = out
	}
	return out, err
}

// transaction executes one. mu must be held.
func (s *Server) transaction(q *api.TransactionRequest) (*api.TransactionResponse, error) {
	out := &api.TransactionResponse{Succeeded: true}
	for _, c := range q.GetChecks() {
		old, err := s.stored(c.GetNamespace(), c.GetKey())
		if err != nil {
			return nil, err
		}
		out.Succeeded = out.Succeeded && check(old, c.GetCondition()) == nil
	}
	ops := q.GetThen()
	if !out.Succeeded {
		ops = q.GetOtherwise()
	}
	aborted, err := s.judge(ops, out)
	if err != nil || aborted {
		return out, err
	}
	for i, op := range ops {
		switch o := op.GetOp().(type) {
		case *api.TransactionOp_Put:
			r, _ := s.put(o.Put)
			out.Results[i].Result = &api.TransactionResult_Put{Put: r}
			out.Revision = r.GetRevision()
		case *api.TransactionOp_Touch:
			r, _ := s.touch(o.Touch)
			out.Results[i].Result = &api.TransactionResult_Put{Put: r}
			out.Revision = r.GetRevision()
		case *api.TransactionOp_Delete:
			r, _ := s.delete(o.Delete)
			out.Results[i].Result = &api.TransactionResult_Delete{Delete: r}
			out.Revision = max(out.Revision, r.GetRevision())
		}
	}
	return out, nil
}

// judge fills what is read, and the results when a condition does not hold. mu
// must be held.
func (s *Server) judge(ops []*api.TransactionOp, out *api.TransactionResponse) (aborted bool, err error) {
	for _, op := range ops {
		res := &api.TransactionResult{}
		var failed error
		switch o := op.GetOp().(type) {
		case *api.TransactionOp_Put:
			var old *api.Record
			if old, err = s.stored(o.Put.GetNamespace(), o.Put.GetKey()); err == nil {
				failed = check(old, o.Put.GetCondition())
			}
		case *api.TransactionOp_Touch:
			var old *api.Record
			if old, err = s.stored(o.Touch.GetNamespace(), o.Touch.GetKey()); err == nil {
				failed = checkTouch(old, o.Touch)
			}
		case *api.TransactionOp_Delete:
			var old *api.Record
			if old, err = s.stored(o.Delete.GetNamespace(), o.Delete.GetKey()); err == nil {
				failed = check(old, o.Delete.GetCondition())
			}
		case *api.TransactionOp_Get:
			r, missing := s.get(o.Get)
			res.Result = &api.TransactionResult_Get{Get: r.GetRecord()}
			if missing != nil {
				res.Status, res.Result = statusOf(missing), nil
			}
		}
		if err != nil {
			return false, err
		}
		if failed != nil {
			aborted, res.Status = true, statusOf(failed)
		}
		out.Results = append(out.Results, res)
	}
	for _, res := range out.Results {
		if aborted && res.GetStatus().GetCode() != "condition_failed" {
			res.Status, res.Result = &api.Status{Code: "batch_aborted", Message: "another operation failed"}, nil
		}
	}
	return aborted, nil
}

func (s *Server) stored(namespace, key string) (*api.Record, error) {
	sp, err := s.space(namespace)
	if err != nil {
		return nil, err
	}
	if err := s.admit("txn", key); err != nil {
		return nil, err
	}
	return sp.records[key], nil
}
