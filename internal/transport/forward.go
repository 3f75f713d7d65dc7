package transport

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/pipelink"
)

// Operations that one node forwards to another travel on a link as well: a
// connection of its own on the peer port with one Forward stream and nothing else,
// in the form of package pipelink. The dialer says in its hello what a frame says in
// its header: cluster, sender, addressee, recovery epoch. A link ends when one of
// them is true no more, with the peer's address and with either transport. Its other
// side, where it hangs while its kernel answers, is found by the pings of the gRPC
// connection beside it (watchForward).

// ForwardStream carries operations to a peer, and their results back in any order.
// One goroutine may send and one receive. It is an alias, so that its users can name
// the same methods.
type ForwardStream = interface {
	// Send writes one frame. After an error nothing more can be sent, and Recv may
	// know better why.
	Send(f *api.ForwardFrame) error
	// Recv returns the next results, or why there are no more.
	Recv() (*api.PipelineResponse, error)
}

const (
	clusterHeader  = "kvstore-cluster"
	toHeader       = "kvstore-to"
	recoveryHeader = "kvstore-recovery-epoch"

	// maxForwards bounds incoming links of forwarded operations; more are refused.
	maxForwards = 1024
)

// How a peer takes forwarded operations, as the last greeting has told.
const (
	forwardsUnknown int32 = iota
	forwardsByGRPC
	forwardsByLinks
)

// Forward opens a stream of operations to a peer that ctx ends: a link where both
// sides can, else a stream of gRPC. What cannot be reached is fault.Unavailable or a
// gRPC status; then nothing was sent.
func (t *Transport) Forward(ctx context.Context, id keyspace.NodeID) (ForwardStream, error) {
	p := (*t.peers.Load())[id]
	if p == nil {
		return nil, errUnknownPeer(id)
	}
	if known := p.forwards.Load(); known != forwardsByGRPC && t.dialsLinks() {
		l, err := p.openForward(ctx)
		if err == nil {
			return l, nil
		}
		if known == forwardsByLinks || !errors.Is(err, pipelink.ErrNoLinks) {
			return nil, fmt.Errorf("opening a link of forwarded operations: %w", err)
		}
		p.forwards.CompareAndSwap(forwardsUnknown, forwardsByGRPC) // until the next greeting
	}
	return p.client.Forward(ctx)
}

// dialsLinks reports whether this node can secure a link as it does gRPC.
func (t *Transport) dialsLinks() bool { return t.o.Credentials == nil || t.o.TLS != nil }

func errUnknownPeer(id keyspace.NodeID) error {
	return fault.New(fault.Unavailable, "node is not known here", "node_id", id)
}

// learnForwards takes what a greeting says of a peer's links.
func (p *peer) learnForwards(links uint32) {
	known := forwardsByGRPC
	if links >= forwardsVersion {
		known = forwardsByLinks
	}
	p.forwards.Store(known)
}

// forwardHello is what the dialer of a link says.
func (p *peer) forwardHello() metadata.MD {
	return metadata.Pairs(
		nodeHeader, string(p.t.o.Node), clusterHeader, p.t.Cluster(), toHeader, string(p.id),
		recoveryHeader, fmt.Sprint(p.t.Recovery().Epoch),
	)
}

// asStatus is an error of this package as a gRPC status.
func asStatus(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := codes.Unavailable
	if c := fault.CodeOf(err); c == fault.FailedPrecondition || c == fault.InvalidArgument {
		code = codes.FailedPrecondition
	}
	return status.Error(code, err.Error())
}
