package rpc

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/pipelink"
)

var linkInfo = grpc.StreamServerInfo{FullMethod: api.KVStore_Pipeline_FullMethodName, IsClientStream: true, IsServerStream: true}

// ServeLink serves a Pipeline stream on a connection of its own (package
// pipelink), whose protocol was named. It passes what a stream of gRPC passes: the
// chain of package guard, then Pipeline. It returns when the stream has ended, and
// closes conn; ctx ends it.
func (s *Service) ServeLink(ctx context.Context, conn net.Conn, info credentials.AuthInfo, maxBytes int) {
	l, err := pipelink.Accept(ctx, conn, info, maxBytes)
	if err != nil {
		s.o.Logger.Debug("link refused", "addr", conn.RemoteAddr(), "err", err)
		return
	}
	l.Close(s.o.Guard.Stream()(s, l, &linkInfo, func(_ any, guarded grpc.ServerStream) error {
		if err := l.Greet(); err != nil {
			return err
		}
		return s.Pipeline(&grpc.GenericServerStream[api.PipelineRequest, api.PipelineResponse]{ServerStream: guarded})
	}))
}
