package memserver

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// DescribeJob is the service's method. A running job makes progress whenever it is
// described: the first time half of it, then the rest.
func (s *Server) DescribeJob(_ context.Context, r *api.DescribeJobRequest) (*api.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	job, ok := s.jobs[r.GetId()]
	if !ok {
		return nil, Errorf("not_found", "job does not exist", "job", r.GetId())
	}
	s.advance(job)
	return proto.CloneOf(job), nil
}

func (s *Server) advance(job *api.Job) {
	switch {
	case job.GetState() == "cancelling":
		job.State, job.FinishedAtMs = "cancelled", milli(s.next())
	case job.GetState() != "running" || s.stuck:
	case job.GetKind() == "delete-range" && job.GetDone() == 0 && job.GetTotal() > 1:
		job.Done, job.Message = job.GetTotal()/2, "deleting keys"
	default:
		job.Done, job.State, job.Message, job.FinishedAtMs = job.GetTotal(), "done", "", milli(s.next())
	}
}

// Stuck keeps jobs from making progress.
func (s *Server) Stuck(stuck bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stuck = stuck
}

// ListJobs is the service's method.
func (s *Server) ListJobs(context.Context, *api.ListJobsRequest) (*api.ListJobsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.ListJobsResponse{}
	for _, j := range s.jobs {
		out.Jobs = append(out.Jobs, proto.CloneOf(j))
	}
	slices.SortFunc(out.Jobs, func(a, b *api.Job) int { return strings.Compare(a.GetId(), b.GetId()) })
	return out, nil
}

// CancelJob is the service's method.
func (s *Server) CancelJob(_ context.Context, r *api.CancelJobRequest) (*api.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	job, ok := s.jobs[r.GetId()]
	switch {
	case !ok:
		return nil, Errorf("not_found", "job does not exist", "job", r.GetId())
	case job.GetState() != "running":
		return nil, Errorf("failed_precondition", "job has ended already", "job", r.GetId(), "state", job.GetState())
	}
	job.State = "cancelling"
	return proto.CloneOf(job), nil
}

// DeleteRange is the service's method; the keys go at once.
func (s *Server) DeleteRange(_ context.Context, r *api.DeleteRangeRequest) (*api.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp, err := s.space(r.GetNamespace())
	if err != nil {
		return nil, err
	}
	if r.GetPrefix() == "" && r.GetStart() == "" && r.GetEnd() == "" && len(r.GetTags()) == 0 && !r.GetAll() {
		return nil, Errorf("invalid_argument", "the range has neither prefix, start, end nor tags; set all to delete every key of the namespace")
	}
	keys := matching(sp, &api.ListRequest{Prefix: r.GetPrefix(), Start: r.GetStart(), End: r.GetEnd(), Tags: r.GetTags()})
	if !s.stuck {
		for _, k := range keys {
			delete(sp.records, k)
			sp.kept.delete(k, s.next())
		}
	}
	job := &api.Job{Id: fmt.Sprintf("delete-range-%d", len(s.jobs)+1), Kind: "delete-range", State: "running", Total: uint64(len(keys)),
		StartedAtMs: milli(s.revision), Namespace: "default", Prefix: r.GetPrefix(), Start: r.GetStart(), End: r.GetEnd(), Tags: r.GetTags(), Revision: s.revision}
	s.jobs[job.GetId()] = job
	return proto.CloneOf(job), nil
}
