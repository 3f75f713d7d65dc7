// Package peer serves the Peer service between nodes: it decodes, calls what
// is behind, and maps errors. Hello, Frames and Snapshot belong to the
// transport; Forward, Call, GroupClock and GroupScan to the router; GroupEvents
// and GroupVersion to the watches; Probe and
// Join to the node and the cluster's metadata.
//
// What comes in here was authenticated by the listener (mTLS between nodes):
// only peers may name an identity, and the one they name is taken.
package peer

import (
	"context"
	"errors"
	"log/slog"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/router"
	"kvstore/internal/server/status"
)

// Streams is the transport's part; *transport.Transport is the real one.
type Streams interface {
	HandleHello(ctx context.Context, req *api.HelloRequest) (*api.HelloResponse, error)
	HandleFrames(stream api.Peer_FramesServer) error
	HandleSnapshot(stream api.Peer_SnapshotServer) error
}

// Router executes what peers forward; *router.Router is the real one.
type Router interface {
	Execute(ctx context.Context, calls []*router.Call, done func(*router.Call))
	ServeClock(ctx context.Context, q *api.GroupClockRequest) (*api.GroupClockResponse, error)
	ServeScan(ctx context.Context, q *api.GroupScanRequest) (*api.GroupScanResponse, error)
	ServeDigest(ctx context.Context, q *api.GroupDigest) (*api.GroupDigest, error)
	ServeHistory(ctx context.Context, q *api.HistoryRequest) (*api.HistoryResponse, error)
	ServeRecoverNode(ctx context.Context, q *api.RecoverPlanRequest) (*api.RecoverNode, error)
	ServeRecoverStep(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error)
	ServeSlotStep(ctx context.Context, q *api.SlotStepRequest) (*api.SlotStepResponse, error)
	ServeSlotStatus(ctx context.Context, q *api.SlotStatusRequest) (*api.SlotStatusResponse, error)
	ServeSlotExport(ctx context.Context, q *api.SlotExportRequest) (*api.SlotExportResponse, error)
	ServeTxnLowWater(ctx context.Context, q *api.TxnLowWaterRequest) (*api.TxnLowWaterResponse, error)
	List(ctx context.Context, q *api.ListRequest) (*api.ListResponse, error)
	Status(ctx context.Context, q *api.StatusRequest) (*api.StatusResponse, error)
	Topology(ctx context.Context, q *api.TopologyRequest) (*api.TopologyResponse, error)
	router.Admin
}

// Watches serves what is written in the groups here; *watch.Hub is the real one.
type Watches interface {
	ServeEvents(ctx context.Context, q *api.GroupEventsRequest, send func(*api.GroupEventsResponse) error) error
	ServeVersion(q *api.GroupVersionRequest) (*api.GroupVersionResponse, error)
}

// Joiner admits nodes; *meta.Service is the real one.
type Joiner interface {
	Join(ctx context.Context, q *api.JoinRequest) (*api.JoinResponse, error)
}

// Prober answers a bootstrap's questions about this node.
type Prober interface {
	Probe(ctx context.Context, q *api.ProbeRequest) (*api.ProbeResponse, error)
}

// Options builds a Server. Streams and Prober are required; Router and Joiner
// come later with Serve, since a node is probed before it knows its cluster.
// Watches may be nil.
type Options struct {
	Streams Streams
	Prober  Prober
	Watches Watches
	Logger  *slog.Logger
	// MaxForwards bounds the operations of one Forward stream that are not
	// answered; the stream is not read beyond. 8,192 by default.
	MaxForwards int
	// SendBytes bounds an answer frame of a Forward stream, unless one result
	// is larger; 4 MB by default.
	SendBytes int
}

// Server implements api.PeerServer.
type Server struct {
	api.UnimplementedPeerServer
	o      Options
	parts  parts
	method map[string]method
}

// New returns a server to register on the peer listener.
func New(o Options) (*Server, error) {
	if o.Streams == nil || o.Prober == nil {
		return nil, errors.New("peer: Streams and Prober are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxForwards == 0 {
		o.MaxForwards = router.DefaultPeerInflight
	}
	if o.SendBytes == 0 {
		o.SendBytes = router.DefaultForwardBytes
	}
	return &Server{o: o, method: methods()}, nil
}

// Hello implements api.PeerServer.
func (s *Server) Hello(ctx context.Context, q *api.HelloRequest) (*api.HelloResponse, error) {
	resp, err := s.o.Streams.HandleHello(ctx, q)
	return resp, status.Error(err)
}

// Frames implements api.PeerServer.
func (s *Server) Frames(stream api.Peer_FramesServer) error {
	return status.Error(s.o.Streams.HandleFrames(stream))
}

// Snapshot implements api.PeerServer.
func (s *Server) Snapshot(stream api.Peer_SnapshotServer) error {
	return status.Error(s.o.Streams.HandleSnapshot(stream))
}

// Probe implements api.PeerServer.
func (s *Server) Probe(ctx context.Context, q *api.ProbeRequest) (*api.ProbeResponse, error) {
	resp, err := s.o.Prober.Probe(ctx, q)
	return resp, status.Error(err)
}

// Join implements api.PeerServer.
func (s *Server) Join(ctx context.Context, q *api.JoinRequest) (*api.JoinResponse, error) {
	p, err := s.parts.get()
	if err != nil {
		return nil, status.Error(err)
	}
	resp, err := p.joiner.Join(ctx, q)
	return resp, status.Error(err)
}

// GroupClock implements api.PeerServer.
func (s *Server) GroupClock(ctx context.Context, q *api.GroupClockRequest) (*api.GroupClockResponse, error) {
	p, err := s.parts.get()
	if err != nil {
		return nil, status.Error(err)
	}
	resp, err := p.router.ServeClock(ctx, q)
	return resp, status.Error(err)
}

// GroupScan implements api.PeerServer.
func (s *Server) GroupScan(ctx context.Context, q *api.GroupScanRequest) (*api.GroupScanResponse, error) {
	p, err := s.parts.get()
	if err != nil {
		return nil, status.Error(err)
	}
	resp, err := p.router.ServeScan(ctx, q)
	return resp, status.Error(err)
}

// GroupEvents implements api.PeerServer.
func (s *Server) GroupEvents(q *api.GroupEventsRequest, stream api.Peer_GroupEventsServer) error {
	if err := s.watched(); err != nil {
		return status.Error(err)
	}
	return status.Error(s.o.Watches.ServeEvents(stream.Context(), q, stream.Send))
}

// GroupVersion implements api.PeerServer.
func (s *Server) GroupVersion(_ context.Context, q *api.GroupVersionRequest) (*api.GroupVersionResponse, error) {
	if err := s.watched(); err != nil {
		return nil, status.Error(err)
	}
	resp, err := s.o.Watches.ServeVersion(q)
	return resp, status.Error(err)
}

// watched fails before the node serves, and where it has no watches.
func (s *Server) watched() error {
	if _, err := s.parts.get(); err != nil {
		return err
	}
	if s.o.Watches == nil {
		return fault.New(fault.Unsupported, "this node has no watches")
	}
	return nil
}
