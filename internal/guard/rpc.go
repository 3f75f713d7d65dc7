package guard

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/fault"
	"kvstore/internal/metrics"
	"kvstore/internal/server/status"
)

// Unary is the chain for unary calls.
func (g *Guard) Unary() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
		method, start := metrics.MethodName(info.FullMethod), time.Now()
		g.o.Metrics.InFlight(method, 1)
		defer func() {
			if p := recover(); p != nil {
				resp, err = nil, g.Recovered(method, p)
			}
			g.o.Metrics.InFlight(method, -1)
			err = g.answer(method, start, err)
		}()
		if ctx, err = g.authenticateRPC(ctx, method); err != nil {
			return nil, err
		}
		ctx, cancel := g.withDeadline(ctx, 0)
		defer cancel()
		if probe(info.FullMethod) {
			return next(ctx, req)
		}
		if err = g.refusal(method); err != nil {
			return nil, err
		}
		bytes := messageBytes(req)
		if err = g.limit.acquire(ctx, 1, bytes); err != nil {
			return nil, err
		}
		defer g.Release(1, bytes)
		resp, err = next(ctx, req)
		g.o.Metrics.Bytes(int(bytes), 0)
		return resp, err
	}
}

// Stream is the chain for streams. Their operations are limited by the
// handlers, where the sizes are known.
func (g *Guard) Stream() grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
		method, start := metrics.MethodName(info.FullMethod), time.Now()
		g.o.Metrics.InFlight(method, 1)
		defer func() {
			if p := recover(); p != nil {
				err = g.Recovered(method, p)
			}
			g.o.Metrics.InFlight(method, -1)
			err = g.answer(method, start, err)
		}()
		ctx, err := g.authenticateRPC(ss.Context(), method)
		if err != nil {
			return err
		}
		if probe(info.FullMethod) {
			return next(srv, ss)
		}
		if err := g.refusal(method); err != nil {
			return err
		}
		if err := g.streams.acquire(ctx, 1, 0); err != nil {
			return err
		}
		defer g.streams.release(1, 0)
		return next(srv, &stream{ServerStream: ss, ctx: ctx})
	}
}

// stream is a ServerStream with the identity in its context.
type stream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *stream) Context() context.Context { return s.ctx }

// answer measures, logs and maps the outcome of a gRPC request.
func (g *Guard) answer(method string, start time.Time, err error) error {
	var code fault.Code
	if err != nil {
		code = status.Fault(err).Code
		g.report(method, err)
	}
	if !endless[method] {
		g.o.Metrics.Observe(method, code, time.Since(start))
	}
	return status.Error(err)
}

// endless streams last as long as their client: their age is no latency.
var endless = map[string]bool{"Pipeline": true, "Watch": true, "KeepAliveStream": true, "ServerReflectionInfo": true}

// probe tells whether the method is a health check.
func probe(fullMethod string) bool { return strings.HasPrefix(fullMethod, "/grpc.health.") }

func messageBytes(m any) int64 {
	if p, ok := m.(proto.Message); ok {
		return int64(proto.Size(p))
	}
	return 0
}
