package meta

import (
	"context"
	"fmt"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// DescribeJob implements router.Admin.
func (s *Service) DescribeJob(ctx context.Context, req *api.DescribeJobRequest) (*api.Job, error) {
	j, err := s.findJob(system(ctx), req.GetId())
	if err != nil {
		return nil, err
	}
	if s.waitsFor(j.record) != "" { // what it waited for may have ended
		if err := s.dir.Refresh(ctx); err != nil {
			s.o.Logger.Debug("cluster metadata is not readable", "error", err)
		}
	}
	return s.showJob(j.record), nil
}

func (s *Service) findJob(ctx context.Context, id string) (stored[format.JobRecord], error) {
	if id == "" {
		return stored[format.JobRecord]{}, fault.New(fault.InvalidArgument, "job id is empty")
	}
	j, ok, err := get[format.JobRecord](ctx, s, format.SystemJobKey(id))
	if err == nil && !ok {
		err = fault.New(fault.NotFound, "job does not exist, or finished long ago", "job", id)
	}
	return j, err
}

// ListJobs implements router.Admin.
func (s *Service) ListJobs(ctx context.Context, _ *api.ListJobsRequest) (*api.ListJobsResponse, error) {
	if err := s.dir.Refresh(ctx); err != nil {
		return nil, err
	}
	out := &api.ListJobsResponse{}
	for _, running := range []bool{true, false} {
		for _, j := range s.dir.current.Load().jobsBy(running) {
			out.Jobs = append(out.Jobs, s.showJob(j))
		}
	}
	return out, nil
}

// CancelJob implements router.Admin. Asked again it answers the same.
func (s *Service) CancelJob(ctx context.Context, req *api.CancelJobRequest) (*api.Job, error) {
	ctx = system(ctx)
	for range maxRaces {
		j, err := s.findJob(ctx, req.GetId())
		if err != nil {
			return nil, err
		}
		record := j.record
		switch {
		case record.Cancel && record.State != format.JobDone && record.State != format.JobFailed:
			return s.showJob(record), nil
		case record.State != format.JobRunning:
			return nil, fault.New(fault.FailedPrecondition, "job has ended already", "job", record.ID, "state", record.State)
		case record.Kind != format.JobDeleteRange:
			return nil, fault.New(fault.FailedPrecondition, "a namespace that is being deleted cannot be kept", "job", record.ID, "kind", record.Kind)
		}
		record.Cancel = true
		err = s.put(ctx, format.SystemJobKey(record.ID), record, atVersion(j.version))
		if fault.CodeOf(err) == fault.ConditionFailed {
			continue // it made progress
		}
		if err != nil {
			return nil, err
		}
		s.Wake()
		return s.showJob(record), nil
	}
	return nil, errRaces("job", req.GetId())
}

// endCancelled ends a job that was cancelled while it does not run here.
func (s *Service) endCancelled(ctx context.Context, j format.JobRecord) {
	err := s.claim(ctx, &j)
	if err == nil {
		err = s.finish(ctx, &j, format.JobCancelled, j.Message)
	}
	if err != nil {
		s.o.Logger.Debug("a cancelled job is not ended yet", "job", j.ID, "error", err)
	}
}

// maxRunningJobs bounds the jobs that have not ended.
const maxRunningJobs = 100

// DeleteRange implements router.Admin. The job deletes what a list at its revision
// has: everything that was acknowledged before.
func (s *Service) DeleteRange(ctx context.Context, req *api.DeleteRangeRequest) (*api.Job, error) {
	if err := validateRange(req); err != nil {
		return nil, err
	}
	now, err := s.o.Store.List(ctx, &api.ListRequest{
		Namespace: req.Namespace, Prefix: req.Prefix, Start: req.Start, End: req.End, KeysOnly: true, Limit: 1})
	if err != nil {
		return nil, err
	}
	ctx = system(ctx)
	if err := s.dir.Refresh(ctx); err != nil {
		return nil, err
	}
	if n := len(s.dir.current.Load().jobsBy(true)); n >= maxRunningJobs {
		return nil, fault.New(fault.Overloaded, "too many jobs wait", "limit", maxRunningJobs, "actual", n).WithRetry(s.o.Interval)
	}
	j := format.JobRecord{
		ID: fmt.Sprintf("%s-%016x", format.JobDeleteRange, s.o.Rand.Uint64()), Kind: format.JobDeleteRange,
		State: format.JobRunning, Namespace: req.Namespace, Started: s.o.Clock.Wall(),
		Prefix: req.Prefix, Start: req.Start, End: req.End, Tags: req.Tags, Revision: keyspace.Revision(now.Revision),
	}
	if j.Namespace == "" {
		j.Namespace = keyspace.DefaultNamespaceName
	}
	if err := s.put(ctx, format.SystemJobKey(j.ID), j, absent()); err != nil {
		return nil, err
	}
	s.Wake()
	return s.showJob(j), nil
}

// validateRange refuses ranges that delete more than was said, or nothing.
func validateRange(req *api.DeleteRangeRequest) error {
	bounded := req.GetPrefix() != "" || req.GetStart() != "" || req.GetEnd() != "" || len(req.GetTags()) > 0
	switch {
	case req.GetNamespace() == keyspace.SystemNamespaceName:
		return fault.New(fault.PermissionDenied, "namespace is reserved for the cluster", "namespace", req.Namespace)
	case !bounded && !req.GetAll():
		return fault.New(fault.InvalidArgument, "the range has neither prefix, start, end nor tags; set all to delete every key of the namespace",
			"namespace", req.GetNamespace())
	case bounded && req.GetAll():
		return fault.New(fault.InvalidArgument, "all excludes prefix, start, end and tags")
	case req.GetEnd() != "" && req.GetStart() >= req.GetEnd():
		return fault.New(fault.InvalidArgument, "the range is empty: start is not below end", "start", req.Start, "end", req.End)
	}
	total := len(req.GetPrefix()) + len(req.GetStart()) + len(req.GetEnd())
	for k, v := range req.GetTags() {
		total += len(k) + len(v)
	}
	if total > maxRangeBytes {
		return fault.New(fault.InvalidArgument, "prefix, start, end and tags are too large together", "limit_bytes", maxRangeBytes, "actual_bytes", total)
	}
	return nil
}

// maxRangeBytes bounds what a job's record holds of its range.
const maxRangeBytes = 32 << 10

// showJob is a job as callers see it.
func (s *Service) showJob(j format.JobRecord) *api.Job {
	out := wireJob(j)
	if first := s.waitsFor(j); first != "" {
		out.Message = "waits until job " + first + " has ended"
	}
	return out
}

// waitsFor is the job that runs before j, "" when j has begun.
func (s *Service) waitsFor(j format.JobRecord) string {
	first := s.dir.current.Load().firstJob()
	if j.State != format.JobRunning || j.Message != "" || j.Runner != "" || first == j.ID {
		return ""
	}
	return first
}

// firstJob is the job that is to run now.
func (s *state) firstJob() string {
	for _, j := range s.jobsBy(true) {
		return j.ID
	}
	return ""
}

func wireJob(j format.JobRecord) *api.Job {
	state := j.State
	if state == format.JobRunning && j.Cancel {
		state = "cancelling"
	}
	return &api.Job{
		Id: j.ID, Kind: j.Kind, State: state, Done: j.Done, Total: j.Total, Message: j.Message,
		StartedAtMs: j.Started, FinishedAtMs: j.Finished,
		Namespace: j.Namespace, Prefix: j.Prefix, Start: j.Start, End: j.End, Tags: j.Tags, Revision: uint64(j.Revision),
	}
}
