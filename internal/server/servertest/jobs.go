package servertest

import (
	"context"
	"errors"
	"slices"
	"strings"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// DescribeJob returns a job.
func (b *Backend) DescribeJob(_ context.Context, q *api.DescribeJobRequest) (*api.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if j := b.jobs[q.Id]; j != nil {
		return j, nil
	}
	return nil, fault.New(fault.NotFound, "job does not exist", "job", q.Id)
}

// ListJobs returns jobs by id.
func (b *Backend) ListJobs(context.Context, *api.ListJobsRequest) (*api.ListJobsResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &api.ListJobsResponse{}
	for _, j := range b.jobs {
		out.Jobs = append(out.Jobs, j)
	}
	slices.SortFunc(out.Jobs, func(a, b *api.Job) int { return strings.Compare(a.Id, b.Id) })
	return out, b.failCall("ListJobs")
}

// CancelJob ends a job that runs.
func (b *Backend) CancelJob(_ context.Context, q *api.CancelJobRequest) (*api.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch j := b.jobs[q.Id]; {
	case j == nil:
		return nil, fault.New(fault.NotFound, "job does not exist", "job", q.Id)
	case j.State != "running":
		return nil, fault.New(fault.FailedPrecondition, "job has ended already", "job", q.Id, "state", j.State)
	default:
		j.State = "cancelling"
		return j, nil
	}
}

// DeleteRange deletes at once and leaves a job that runs.
func (b *Backend) DeleteRange(_ context.Context, q *api.DeleteRangeRequest) (*api.Job, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	all, err := b.space(q.Namespace)
	if err = errors.Join(b.failCall("DeleteRange"), err); err != nil {
		return nil, err
	}
	if q.Prefix == "" && q.Start == "" && q.End == "" && len(q.Tags) == 0 && !q.All {
		return nil, fault.New(fault.InvalidArgument, "the range has no bounds")
	}
	found := b.matching(all, &api.ListRequest{Prefix: q.Prefix, Start: q.Start, End: q.End, Tags: q.Tags})
	for _, rec := range found {
		delete(all, rec.Key)
	}
	j := &api.Job{Id: "range-1", Kind: "delete-range", State: "running", Done: uint64(len(found)), Total: uint64(len(found)), StartedAtMs: Now,
		Namespace: "default", Prefix: q.Prefix, Start: q.Start, End: q.End, Tags: q.Tags, Revision: b.revision}
	b.jobs[j.Id] = j
	return j, nil
}

// History has the present version and, below it, a deletion.
func (b *Backend) History(_ context.Context, q *api.HistoryRequest) (*api.HistoryResponse, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := errors.Join(b.failCall("History"), keyspace.ValidateKey(q.Key)); err != nil {
		return nil, err
	}
	rec, err := b.get(q.Namespace, q.Key, q.KeysOnly)
	if err != nil {
		return nil, err
	}
	out := &api.HistoryResponse{Floor: 7}
	gone := &api.KeyVersion{Deleted: true, Reason: "expired", Record: &api.Record{Key: q.Key, Revision: rec.Revision - 1, UpdatedAtMs: Now}}
	switch {
	case q.UntilRevision != 0 && q.UntilRevision < rec.Revision:
		out.Versions = []*api.KeyVersion{gone}
	case q.Limit == 1:
		out.Versions, out.NextRevision = []*api.KeyVersion{{Record: rec}}, rec.Revision-1
	default:
		out.Versions = []*api.KeyVersion{{Record: rec}, gone}
	}
	return out, nil
}
