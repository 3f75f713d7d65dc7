package router

import (
	"context"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// Host runs the replicas of this node; *host.Host is the real one.
type Host interface {
	// SubmitAll hands over writes; each request's Done is called exactly once
	// and must not block.
	SubmitAll(ctx context.Context, rs []*replica.Request)
	// ReadIndexAll calls the Done of each exactly once with the point to read at;
	// it must not block. Leaders and followers of a group both serve it.
	ReadIndexAll(reads []host.Read)
	StaleRead(g keyspace.GroupID, maxAge time.Duration) (host.ReadPoint, error)
	// Get returns fault.NotFound when the key is absent at p.
	Get(ctx context.Context, p host.ReadPoint, ns keyspace.NamespaceID, key string, keysOnly bool) (*format.Record, error)
	// Locked reports whether Get at p may have to wait for a transaction.
	Locked(p host.ReadPoint) bool
	// GetEach is Get for many keys of p's group; the record that each is given
	// is valid during the call, with its value. each returns false to stop. With
	// an error it was not called.
	GetEach(ctx context.Context, p host.ReadPoint, ns keyspace.NamespaceID, n int, key func(int) string, keysOnly bool,
		each func(i int, rec *format.Record, err error) bool) error
	// Clocks is served by leaders only; groups fail one by one.
	Clocks(ctx context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision) []host.ClockReading
	// AskClocks is Clocks with more questions; the answers are parallel to asks.
	AskClocks(ctx context.Context, asks []host.ClockAsk) []host.ClockReading
	// Readable reports whether the replica here has all of rev, or comes to
	// have it before ctx ends.
	Readable(ctx context.Context, p host.ScanPoint, rev keyspace.Revision) bool
	// ScanGroup and ScanTogether call each with the records of one page of a
	// group, or of several readable ones merged by key; key and value are valid
	// during the call.
	ScanGroup(ctx context.Context, g keyspace.GroupID, r host.ScanRequest, each func([]byte, *format.Record)) (host.ScanPage, error)
	ScanTogether(ctx context.Context, at []host.ScanPoint, r host.ScanRequest, each func([]byte, *format.Record)) (host.ScanPage, error)
	Groups() []host.GroupStatus
	Leader(g keyspace.GroupID) (node keyspace.NodeID, local, known bool)
	Hosts(g keyspace.GroupID) bool
	// PointAt returns fault.OutOfRange below the history floor and
	// fault.FailedPrecondition when rev is not closed here yet.
	PointAt(g keyspace.GroupID, rev keyspace.Revision) (host.ReadPoint, error)
	// PointBehind is PointAt that waits for what a reading of the group's clock at
	// or above rev covers.
	PointBehind(ctx context.Context, at host.ScanPoint, rev keyspace.Revision) (host.ReadPoint, error)
	// Versions returns a page of the versions of one key, newest first.
	Versions(ctx context.Context, p host.ReadPoint, q host.VersionsRequest) (host.VersionsPage, error)
	// RequestDigest makes every replica of g hash its records at one index;
	// leaders only. DigestAt has the result of the replica here, once it is
	// there; the last few are kept.
	RequestDigest(ctx context.Context, g keyspace.GroupID) (keyspace.Index, error)
	DigestAt(g keyspace.GroupID, index keyspace.Index) (host.Digest, bool)
}

// Peers gives access to the other nodes; *transport.Transport is the real one.
type Peers interface {
	// Client returns the client of a known node; the connection is shared.
	Client(id keyspace.NodeID) (api.PeerClient, error)
	// Forward opens a stream of operations to a node, which ends with ctx. After an
	// error nothing was sent.
	Forward(ctx context.Context, id keyspace.NodeID) (ForwardStream, error)
}

// ForwardStream carries operations to a node, and their results back in any order:
// a connection of its own or a stream of gRPC. One goroutine sends, one receives. An
// alias, since package transport, which makes them, does not know this one.
type ForwardStream = interface {
	Send(f *api.ForwardFrame) error
	Recv() (*api.PipelineResponse, error)
}

// Admin is the part of the API that package meta serves.
type Admin interface {
	CreateNamespace(ctx context.Context, req *api.CreateNamespaceRequest) (*api.Namespace, error)
	ListNamespaces(ctx context.Context, req *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error)
	DescribeNamespace(ctx context.Context, req *api.DescribeNamespaceRequest) (*api.Namespace, error)
	DeleteNamespace(ctx context.Context, req *api.DeleteNamespaceRequest) (*api.Job, error)
	DescribeJob(ctx context.Context, req *api.DescribeJobRequest) (*api.Job, error)
	ListJobs(ctx context.Context, req *api.ListJobsRequest) (*api.ListJobsResponse, error)
	CancelJob(ctx context.Context, req *api.CancelJobRequest) (*api.Job, error)
	DeleteRange(ctx context.Context, req *api.DeleteRangeRequest) (*api.Job, error)
}
