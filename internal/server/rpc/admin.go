package rpc

import (
	"context"

	api "kvstore/api/kvstore/v1"
)

// Status describes this node and what it knows of the cluster.
func (s *Service) Status(ctx context.Context, q *api.StatusRequest) (*api.StatusResponse, error) {
	return s.b.Status(ctx, q)
}

// Topology returns the slot map.
func (s *Service) Topology(ctx context.Context, q *api.TopologyRequest) (*api.TopologyResponse, error) {
	return s.b.Topology(ctx, q)
}

// Digest compares all replicas of all groups.
func (s *Service) Digest(ctx context.Context, q *api.DigestRequest) (*api.DigestResponse, error) {
	return s.b.Digest(ctx, q)
}

// RecoverPlan describes what is left of a cluster that lost quorums.
func (s *Service) RecoverPlan(ctx context.Context, q *api.RecoverPlanRequest) (*api.RecoverPlanResponse, error) {
	return s.b.RecoverPlan(ctx, q)
}

// Recover takes one step of a recovery on one node.
func (s *Service) Recover(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error) {
	return s.b.Recover(ctx, q)
}

// NewRequestID hands out an id for a request.
func (s *Service) NewRequestID(ctx context.Context, q *api.NewRequestIDRequest) (*api.NewRequestIDResponse, error) {
	return s.b.NewRequestID(ctx, q)
}

// DescribeRequest tells what became of a request.
func (s *Service) DescribeRequest(ctx context.Context, q *api.DescribeRequestRequest) (*api.RequestOutcome, error) {
	return s.b.DescribeRequest(ctx, q)
}

// CreateNamespace creates a namespace.
func (s *Service) CreateNamespace(ctx context.Context, q *api.CreateNamespaceRequest) (*api.Namespace, error) {
	return s.b.CreateNamespace(ctx, q)
}

// ListNamespaces returns all namespaces.
func (s *Service) ListNamespaces(ctx context.Context, q *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error) {
	return s.b.ListNamespaces(ctx, q)
}

// DescribeNamespace returns one namespace.
func (s *Service) DescribeNamespace(ctx context.Context, q *api.DescribeNamespaceRequest) (*api.Namespace, error) {
	return s.b.DescribeNamespace(ctx, q)
}

// DeleteNamespace starts the job that deletes a namespace.
func (s *Service) DeleteNamespace(ctx context.Context, q *api.DeleteNamespaceRequest) (*api.Job, error) {
	return s.b.DeleteNamespace(ctx, q)
}

// DescribeJob returns the state of a job.
func (s *Service) DescribeJob(ctx context.Context, q *api.DescribeJobRequest) (*api.Job, error) {
	return s.b.DescribeJob(ctx, q)
}

// ListJobs returns the jobs that have not ended and the last that have.
func (s *Service) ListJobs(ctx context.Context, q *api.ListJobsRequest) (*api.ListJobsResponse, error) {
	return s.b.ListJobs(ctx, q)
}

// CancelJob asks a job to end where it is.
func (s *Service) CancelJob(ctx context.Context, q *api.CancelJobRequest) (*api.Job, error) {
	return s.b.CancelJob(ctx, q)
}

// DeleteRange starts the job that deletes the keys of a range.
func (s *Service) DeleteRange(ctx context.Context, q *api.DeleteRangeRequest) (*api.Job, error) {
	return s.b.DeleteRange(ctx, q)
}

// History returns the versions of one key.
func (s *Service) History(ctx context.Context, q *api.HistoryRequest) (*api.HistoryResponse, error) {
	return s.b.History(ctx, q)
}
