package client

import (
	"context"

	api "kvstore/api/kvstore/v1"
)

// DeleteRange starts a job that deletes the keys which WithPrefix, WithRange and
// WithTagFilter choose and which exist now; what is written to them meanwhile
// survives. Without any of these it is refused; see DeleteAll.
func (c *Client) DeleteRange(ctx context.Context, opts ...RangeOption) (*api.Job, error) {
	return c.deleteRange(ctx, false, opts)
}

// DeleteAll starts a job that deletes all keys of a namespace that exist now; ""
// is the client's own namespace.
func (c *Client) DeleteAll(ctx context.Context, namespace string) (*api.Job, error) {
	return c.deleteRange(ctx, true, []RangeOption{rangeOption(func(l *listCall) {
		if namespace != "" {
			l.namespace = namespace
		}
	})})
}

func (c *Client) deleteRange(ctx context.Context, all bool, opts []RangeOption) (*api.Job, error) {
	l := &listCall{namespace: c.cfg.Namespace}
	for _, opt := range opts {
		opt.applyList(l)
	}
	q := &api.DeleteRangeRequest{Namespace: l.namespace, Prefix: l.prefix, Start: l.start, End: l.end, Tags: l.tags, All: all}
	return unary(ctx, c, writeUnary, q, kvClient.DeleteRange)
}

// DescribeJob returns a job.
func (c *Client) DescribeJob(ctx context.Context, id string) (*api.Job, error) {
	return unary(ctx, c, readUnary, &api.DescribeJobRequest{Id: id}, kvClient.DescribeJob)
}

// ListJobs returns the jobs that have not ended, oldest first, and the last that
// have.
func (c *Client) ListJobs(ctx context.Context) ([]*api.Job, error) {
	r, err := unary(ctx, c, readUnary, &api.ListJobsRequest{}, kvClient.ListJobs)
	return r.GetJobs(), err
}

// CancelJob asks a job to end where it is. It may be repeated; the job's state says
// when it has ended.
func (c *Client) CancelJob(ctx context.Context, id string) (*api.Job, error) {
	return unary(ctx, c, readUnary, &api.CancelJobRequest{Id: id}, kvClient.CancelJob)
}
