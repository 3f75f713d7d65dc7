// Package rpc serves the KVStore service over gRPC (S3.15): unary calls,
// streams for large values and long lists, and the Pipeline stream. It
// decodes, calls the Backend and lets package guard map errors; what a request
// means is decided below.
package rpc

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/guard"
	"kvstore/internal/profiling"
	"kvstore/internal/router"
	"kvstore/internal/watch"
)

var _ Backend = (*router.Router)(nil)

// Backend is what the service needs below it; *router.Router is one.
type Backend interface {
	// Do runs operations and returns when each has its Result and Err.
	Do(ctx context.Context, calls ...*router.Call)
	// Execute hands operations over; done is called once for each, by any
	// goroutine, perhaps before Execute returns, and must not block.
	Execute(ctx context.Context, calls []*router.Call, done func(*router.Call))
	// ListEncoded returns one byte-bounded page to be sent on: its records may
	// be in the message's unknown fields, as they go over the wire.
	ListEncoded(ctx context.Context, req *api.ListRequest) (*api.ListResponse, error)
	// ListStreamEncoded calls yield with each such page of one snapshot until
	// the end or an error; a page is not kept after yield returns.
	ListStreamEncoded(ctx context.Context, req *api.ListRequest, yield func(*api.ListResponse) error) error

	Status(ctx context.Context, req *api.StatusRequest) (*api.StatusResponse, error)
	Topology(ctx context.Context, req *api.TopologyRequest) (*api.TopologyResponse, error)
	Digest(ctx context.Context, req *api.DigestRequest) (*api.DigestResponse, error)
	RecoverPlan(ctx context.Context, req *api.RecoverPlanRequest) (*api.RecoverPlanResponse, error)
	Recover(ctx context.Context, req *api.RecoverRequest) (*api.RecoverResponse, error)

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

// Defaults of Options.
const (
	DefaultMaxInflight      = 16_384
	DefaultMaxInflightBytes = 64 << 20
	DefaultFrameBytes       = 1 << 20
	DefaultChunkBytes       = 256 << 10
)

// Options configure a Service. Backend and Guard are required.
type Options struct {
	Backend Backend
	Guard   *guard.Guard
	// Cluster answers the Cluster service; nil leaves it out.
	Cluster Cluster
	// Leases answers the Leases service; nil leaves it out.
	Leases Leases
	Logger *slog.Logger
	// Watches serves Watch; nil refuses it.
	Watches *watch.Hub
	// Profiles makes the recordings of Profile; nil refuses them.
	Profiles *profiling.Recorder
	// MaxInflight bounds the unanswered operations of one Pipeline stream,
	// MaxInflightBytes what they hold in memory with their answers (reads by
	// what recent ones of the stream returned). At the bound the stream is not
	// read until answers have been sent.
	MaxInflight      int
	MaxInflightBytes int64
	// FrameBytes bounds a response frame of Pipeline, unless one answer alone
	// is larger; ChunkBytes a message of GetStream.
	FrameBytes, ChunkBytes int
}

func (o *Options) setDefaults() error {
	if o.Backend == nil || o.Guard == nil {
		return errors.New("rpc: Backend and Guard are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxInflight == 0 {
		o.MaxInflight = DefaultMaxInflight
	}
	if o.MaxInflightBytes == 0 {
		o.MaxInflightBytes = DefaultMaxInflightBytes
	}
	if o.FrameBytes == 0 {
		o.FrameBytes = DefaultFrameBytes
	}
	if o.ChunkBytes == 0 {
		o.ChunkBytes = DefaultChunkBytes
	}
	return nil
}

// Service implements api.KVStoreServer, health and reflection. It can be
// registered on several servers.
type Service struct {
	api.UnimplementedKVStoreServer
	o       Options
	b       Backend
	health  *health.Server
	drain   sync.Once
	drained chan struct{} // closed by Drain
	readers sync.WaitGroup
	mu      sync.Mutex
	closed  bool // guarded by mu: no reader starts any more
}

// New returns a service that is not ready; it starts nothing.
func New(o Options) (*Service, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Service{o: o, b: o.Backend, health: health.NewServer(), drained: make(chan struct{})}
	s.SetReady(false)
	return s, nil
}

// Register adds the KVStore, Cluster, Leases, health and reflection services to a server.
func (s *Service) Register(g *grpc.Server) {
	api.RegisterKVStoreServer(g, s)
	registerCluster(g, s.o.Cluster)
	s.registerLeases(g)
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
}

// SetReady tells gRPC health clients whether this node serves.
func (s *Service) SetReady(ready bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		state = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
	s.health.SetServingStatus(api.KVStore_ServiceDesc.ServiceName, state)
}

// Drain ends the Pipeline streams: what was taken is answered, then the stream
// ends with unavailable, which says that nothing else was executed. Health
// turns to not serving. Call it before the servers are stopped.
func (s *Service) Drain() {
	s.drain.Do(func() {
		s.health.Shutdown()
		close(s.drained)
	})
}

// Close drains and waits for the goroutines of all streams; they end when the
// servers have been stopped.
func (s *Service) Close() error {
	s.Drain()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.readers.Wait()
	return nil
}

// hold counts a stream's reader unless the service is closed.
func (s *Service) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.readers.Add(1)
	return true
}
