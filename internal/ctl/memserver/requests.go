package memserver

import (
	"context"

	api "kvstore/api/kvstore/v1"
)

// DescribeRequest knows the transactions that were executed under an id.
func (s *Server) DescribeRequest(_ context.Context, q *api.DescribeRequestRequest) (*api.RequestOutcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.RequestOutcome{RequestId: q.GetRequestId(), State: api.RequestOutcome_STATE_UNKNOWN}
	if txn := s.requests[q.GetRequestId()]; txn != nil {
		out.State, out.Succeeded, out.Revision = api.RequestOutcome_STATE_COMMITTED, txn.GetSucceeded(), txn.GetRevision()
		out.Answer = &api.RequestOutcome_Transaction{Transaction: txn}
	}
	return out, nil
}
