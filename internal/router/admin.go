package router

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

func (r *Router) administer() (Admin, error) {
	if a := r.admin.Load(); a != nil {
		return *a, nil
	}
	return nil, fault.New(fault.Unavailable, "node is starting")
}

// CreateNamespace gives a name an id of its own; fault.NamespaceExists and
// fault.NamespaceDeleting when the name is taken.
func (r *Router) CreateNamespace(ctx context.Context, req *api.CreateNamespaceRequest) (*api.Namespace, error) {
	a, err := r.administer()
	if err != nil {
		return nil, err
	}
	return a.CreateNamespace(ctx, req)
}

// ListNamespaces returns all namespaces by name.
func (r *Router) ListNamespaces(ctx context.Context, req *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error) {
	a, err := r.administer()
	if err != nil {
		return nil, err
	}
	return a.ListNamespaces(ctx, req)
}

// DescribeNamespace returns one namespace, fault.NamespaceNotFound without it.
func (r *Router) DescribeNamespace(ctx context.Context, req *api.DescribeNamespaceRequest) (*api.Namespace, error) {
	a, err := r.administer()
	if err != nil {
		return nil, err
	}
	return a.DescribeNamespace(ctx, req)
}

// DeleteNamespace starts the job that deletes a namespace and its keys.
func (r *Router) DeleteNamespace(ctx context.Context, req *api.DeleteNamespaceRequest) (*api.Job, error) {
	a, err := r.administer()
	if err != nil {
		return nil, err
	}
	return a.DeleteNamespace(ctx, req)
}

// DescribeJob returns the state and progress of a job.
func (r *Router) DescribeJob(ctx context.Context, req *api.DescribeJobRequest) (*api.Job, error) {
	a, err := r.administer()
	if err != nil {
		return nil, err
	}
	return a.DescribeJob(ctx, req)
}

// ListJobs returns the jobs that have not ended and the last that have.
func (r *Router) ListJobs(ctx context.Context, req *api.ListJobsRequest) (*api.ListJobsResponse, error) {
	a, err := r.administer()
	if err != nil {
		return nil, err
	}
	return a.ListJobs(ctx, req)
}

// CancelJob asks a job to end where it is.
func (r *Router) CancelJob(ctx context.Context, req *api.CancelJobRequest) (*api.Job, error) {
	a, err := r.administer()
	if err != nil {
		return nil, err
	}
	return a.CancelJob(ctx, req)
}

// DeleteRange starts the job that deletes the keys of a range.
func (r *Router) DeleteRange(ctx context.Context, req *api.DeleteRangeRequest) (*api.Job, error) {
	a, err := r.administer()
	if err != nil {
		return nil, err
	}
	return a.DeleteRange(ctx, req)
}
