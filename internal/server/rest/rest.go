// Package rest serves the REST API (S3.16) over the same operations as gRPC,
// with HTTP's own words: a value is the raw body, its content type and encoding
// are the headers of that name, a revision is the ETag, conditions are If-Match
// and If-None-Match, errors are problem documents (RFC 9457).
//
// openapi.yaml is the contract; a test walks it against the handlers. Paths are
// matched as they were sent, never cleaned: everything after /api/v1/keys/ is
// the key, percent-decoded once.
package rest

import (
	"context"
	"errors"
	"net/http"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/guard"
	"kvstore/internal/router"
	"kvstore/internal/watch"
)

var _ Backend = (*router.Router)(nil)

// Backend is what the handlers need below them; *router.Router is one.
type Backend interface {
	// Do runs operations and returns when each has its Result and Err.
	Do(ctx context.Context, calls ...*router.Call)
	// List returns one byte-bounded page.
	List(ctx context.Context, req *api.ListRequest) (*api.ListResponse, error)
	Status(ctx context.Context, req *api.StatusRequest) (*api.StatusResponse, error)
	Digest(ctx context.Context, req *api.DigestRequest) (*api.DigestResponse, error)
	NewRequestID(ctx context.Context, req *api.NewRequestIDRequest) (*api.NewRequestIDResponse, error)
	DescribeRequest(ctx context.Context, req *api.DescribeRequestRequest) (*api.RequestOutcome, error)
	CreateNamespace(ctx context.Context, req *api.CreateNamespaceRequest) (*api.Namespace, error)
	ListNamespaces(ctx context.Context, req *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error)
	DescribeNamespace(ctx context.Context, req *api.DescribeNamespaceRequest) (*api.Namespace, error)
	DeleteNamespace(ctx context.Context, req *api.DeleteNamespaceRequest) (*api.Job, error)
	DescribeJob(ctx context.Context, req *api.DescribeJobRequest) (*api.Job, error)
	ListJobs(ctx context.Context, req *api.ListJobsRequest) (*api.ListJobsResponse, error)
	CancelJob(ctx context.Context, req *api.CancelJobRequest) (*api.Job, error)
	DeleteRange(ctx context.Context, req *api.DeleteRangeRequest) (*api.Job, error)
	History(ctx context.Context, req *api.HistoryRequest) (*api.HistoryResponse, error)
}

// Leases grants leases and keeps them alive; *lease.Service is one.
type Leases interface {
	Grant(ctx context.Context, req *api.LeaseGrantRequest) (*api.Lease, error)
	KeepAlive(ctx context.Context, req *api.LeaseKeepAliveRequest) (*api.Lease, error)
	Revoke(ctx context.Context, req *api.LeaseRevokeRequest) (*api.LeaseRevokeResponse, error)
	Describe(ctx context.Context, req *api.LeaseDescribeRequest) (*api.Lease, error)
	List(ctx context.Context, req *api.LeaseListRequest) (*api.LeaseListResponse, error)
}

// Options configure a Server; all but Leases and Watches are required.
type Options struct {
	Backend Backend
	Guard   *guard.Guard
	// Ready tells whether the node can serve linearizable requests, else why
	// not.
	Ready func() (bool, string)
	// Metrics serves /api/v1/admin/metrics.
	Metrics http.Handler
	// Leases serves /api/v1/leases; nil refuses it.
	Leases Leases
	// Watches serves /api/v1/watch; nil refuses it.
	Watches *watch.Hub
}

// Server is the handler of the HTTP port; safe for concurrent use.
type Server struct {
	o      Options
	b      Backend
	routes table
}

// New returns a handler.
func New(o Options) (*Server, error) {
	if o.Backend == nil || o.Guard == nil || o.Ready == nil || o.Metrics == nil {
		return nil, errors.New("rest: Backend, Guard, Ready and Metrics are required")
	}
	s := &Server{o: o, b: o.Backend}
	s.routes = s.table()
	return s, nil
}

// ServeHTTP finds the route and passes the request through the guard.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rt, param, err := s.routes.find(r.Method, r.URL.EscapedPath())
	if err != nil {
		rt = &route{name: "Unmatched", handle: func(*request) error { return err }}
	}
	s.o.Guard.HTTP(w, r, guard.Route{
		Method: rt.name, MaxBody: rt.maxBody, Open: rt.open, Stream: rt.stream,
		Handle: func(w http.ResponseWriter, r *http.Request) error {
			return s.serve(rt, &request{w: w, r: r, param: param})
		},
	}, writeProblem)
}

// serve decodes what is common and calls the route's handler.
func (s *Server) serve(rt *route, q *request) error {
	if rt.query != nil {
		values, err := parseQuery(q.r.URL.RawQuery, rt.query)
		if err != nil {
			return err
		}
		q.query = values
	}
	if err := rt.checkSafety(q.r.Header); err != nil {
		return err
	}
	h := q.w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	return rt.handle(q)
}

// request is one request on its way through a handler.
type request struct {
	w http.ResponseWriter
	r *http.Request
	// param is the decoded variable part of the path.
	param string
	query params
}

func (q *request) ctx() context.Context { return q.r.Context() }

// do runs one operation.
func (s *Server) do(ctx context.Context, op *api.PipelineOp) (*api.PipelineResult, error) {
	call := &router.Call{Op: op, Identity: guard.Identity(ctx)}
	s.b.Do(ctx, call)
	return call.Result, call.Err
}
