package rest

import (
	"net/http"
	"net/url"

	api "kvstore/api/kvstore/v1"
)

// job is the JSON of api.Job.
type job struct {
	ID         string            `json:"id"`
	Kind       string            `json:"kind"`
	State      string            `json:"state"`
	Done       uint64            `json:"done"`
	Total      uint64            `json:"total"`
	Message    string            `json:"message,omitempty"`
	StartedAt  string            `json:"started_at,omitempty"`
	FinishedAt string            `json:"finished_at,omitempty"`
	Namespace  string            `json:"namespace,omitempty"`
	Prefix     string            `json:"prefix,omitempty"`
	Start      string            `json:"start,omitempty"`
	End        string            `json:"end,omitempty"`
	Tags       map[string]string `json:"tags,omitempty"`
	Revision   *revision         `json:"revision,omitempty"`
}

func jobOf(j *api.Job) job {
	out := job{
		ID: j.GetId(), Kind: j.GetKind(), State: j.GetState(), Done: j.GetDone(), Total: j.GetTotal(),
		Message: j.GetMessage(), StartedAt: formatTime(j.GetStartedAtMs()), FinishedAt: formatTime(j.GetFinishedAtMs()),
		Namespace: j.GetNamespace(), Prefix: j.GetPrefix(), Start: j.GetStart(), End: j.GetEnd(), Tags: j.GetTags(),
	}
	if j.GetRevision() != 0 {
		out.Revision = new(revision(j.GetRevision()))
	}
	return out
}

// deleteRange starts the job that deletes keys; its path is in Location.
func (s *Server) deleteRange(q *request) error {
	p := q.query
	req := &api.DeleteRangeRequest{Namespace: p.text("namespace"), Prefix: p.text("prefix"), Start: p.text("start"), End: p.text("end")}
	var err error
	if req.All, err = p.flag("all"); err != nil {
		return err
	}
	if req.Tags, err = tagFilter(url.Values(p)["tag"]); err != nil {
		return err
	}
	res, err := s.b.DeleteRange(q.ctx(), req)
	if err != nil {
		return err
	}
	return writeAccepted(q, res)
}

// writeAccepted answers with a job that goes on.
func writeAccepted(q *request, j *api.Job) error {
	q.w.Header().Set("Location", jobs+url.PathEscape(j.GetId()))
	return writeJSON(q, http.StatusAccepted, jobOf(j))
}

func (s *Server) describeJob(q *request) error {
	res, err := s.b.DescribeJob(q.ctx(), &api.DescribeJobRequest{Id: q.param})
	if err != nil {
		return err
	}
	return writeJSON(q, http.StatusOK, jobOf(res))
}

func (s *Server) listJobs(q *request) error {
	res, err := s.b.ListJobs(q.ctx(), &api.ListJobsRequest{})
	if err != nil {
		return err
	}
	all := make([]job, len(res.GetJobs()))
	for i, j := range res.GetJobs() {
		all[i] = jobOf(j)
	}
	return writeJSON(q, http.StatusOK, map[string][]job{"jobs": all})
}

// cancelJob asks a job to end; it says itself when it has.
func (s *Server) cancelJob(q *request) error {
	res, err := s.b.CancelJob(q.ctx(), &api.CancelJobRequest{Id: q.param})
	if err != nil {
		return err
	}
	return writeAccepted(q, res)
}
