package transport

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Nodes that were removed from the cluster, or replaced under their names, may
// run on, or come back with their old directories. Whoever reads the cluster's
// metadata takes nothing of them: frames and snapshots by the sender they name,
// the other RPCs by a header that names the caller (nodeHeader). Hello alone is
// answered, with what became of the node (Options.OnGone); for that its links are
// ended as soon as it is gone, so that it dials again.

// nodeHeader names the calling node of an RPC on the peer port.
const nodeHeader = "kvstore-node"

// SetGone names the nodes that do not belong to the cluster any more, with what
// they are told. The map is not changed afterwards.
func (t *Transport) SetGone(gone map[keyspace.NodeID]string) {
	old := t.gone.Swap(&gone)
	for id := range gone {
		if old == nil || (*old)[id] == "" {
			t.streams.end(id)
			t.forwards.end(func(l *forwardLink) bool { return l.from == string(id) })
		}
	}
}

// goneText is what became of a node, "" while it belongs to the cluster.
func (t *Transport) goneText(id string) string {
	if gone := t.gone.Load(); gone != nil {
		return (*gone)[keyspace.NodeID(id)]
	}
	return ""
}

// checkGone refuses what comes from a node that does not belong to the cluster.
func (t *Transport) checkGone(id string) error {
	if t.goneText(id) != "" {
		return fault.New(fault.FailedPrecondition, "sender does not belong to the cluster any more", "node", id)
	}
	return nil
}

// judgeGone takes in what a peer says became of this node.
func (t *Transport) judgeGone(text string) error {
	if text == "" {
		return nil
	}
	if t.o.OnGone != nil {
		t.o.OnGone(text)
	}
	return fault.New(fault.FailedPrecondition, text)
}

// end ends the stream or link of a sender.
func (s *streams) end(from keyspace.NodeID) {
	s.mu.Lock()
	in := s.current[from]
	s.mu.Unlock()
	if in != nil {
		in.cancel()
	}
}

// goneMethods are answered to every node: Hello says what became of it, Probe
// and Join are how it begins anew.
var goneMethods = map[string]bool{
	api.Peer_Hello_FullMethodName: true, api.Peer_Probe_FullMethodName: true, api.Peer_Join_FullMethodName: true,
}

func (t *Transport) checkCaller(ctx context.Context, method string) error {
	for _, id := range metadata.ValueFromIncomingContext(ctx, nodeHeader) {
		if text := t.goneText(id); text != "" && !goneMethods[method] {
			return status.Error(codes.Unavailable, text)
		}
	}
	return nil
}

// gate are the interceptors of the peer port.
func (t *Transport) gate() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := t.checkCaller(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := t.checkCaller(ss.Context(), info.FullMethod); err != nil {
				return err
			}
			return next(srv, ss)
		}),
	}
}

// named are the interceptors that name this node.
func (t *Transport) named() []grpc.DialOption {
	name := func(ctx context.Context) context.Context {
		return metadata.AppendToOutgoingContext(ctx, nodeHeader, string(t.o.Node))
	}
	return []grpc.DialOption{
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, o ...grpc.CallOption) error {
			return call(name(ctx), method, req, reply, cc, o...)
		}),
		grpc.WithStreamInterceptor(func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(name(ctx), d, cc, method, o...)
		}),
	}
}
