// Package listen opens the client listeners of a node: one that speaks HTTP
// (REST over HTTP/1.1 and HTTP/2) and gRPC on the same port, and one for gRPC
// alone; each with or without TLS.
//
// On the shared port net/http owns the connections, also HTTP/2 without TLS
// (prior knowledge), and every HTTP/2 request whose content type is
// application/grpc goes to grpc.Server.ServeHTTP. Choosing per request rather
// than per connection lets one connection carry both, needs no sniffing of
// bytes, and works the same under TLS. The price is that gRPC then runs on
// net/http's HTTP/2: beside gRPC's own transport a message takes 1.8 times as
// long, a pipelined operation in frames of a hundred 1.2 times (BenchmarkPipeline).
// Heavy clients belong on the gRPC port, which has that transport, and takes links
// (package pipelink).
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"kvstore/internal/guard"
	"kvstore/internal/pipelink"
	"kvstore/internal/wirebuf"
)

// MaxMessageBytes bounds a gRPC message in both directions: the largest value
// and what travels beside it.
const MaxMessageBytes = 20 << 20

const (
	maxStreams        = 4096 // per connection
	maxHeaderBytes    = 256 << 10
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 5 * time.Minute
	windowBytes       = 1 << 20
	connWindowBytes   = 4<<20 - 1
	// streamWorkers are goroutines that run one request after the other on
	// stacks that have grown already; requests beyond them start their own. A
	// request holds its worker while it waits for its group, so there are as
	// many as a busy node has requests waiting.
	streamWorkers = 320
)

// Options configure a Server. Guard is required.
type Options struct {
	// TLS serves every connection when it is not nil; it is cloned. On a port
	// with HTTP, health probes need no certificate; see WithProbes.
	TLS *tls.Config
	// HTTP serves what is not gRPC; nil on a port for gRPC alone.
	HTTP http.Handler
	// Register adds the gRPC services (rpc.Service.Register).
	Register func(*grpc.Server)
	Guard    *guard.Guard
	// MaxConnections bounds open connections; more wait to be accepted. 0
	// means no bound.
	MaxConnections int
	// Links serves links, on a port for gRPC alone; nil takes none.
	Links  ServeLink
	Logger *slog.Logger
}

// Server serves one listener.
type Server struct {
	o     Options
	grpc  *grpc.Server
	http  *http.Server // nil on a port for gRPC alone
	links *links       // nil for none
}

// New returns a server that does not serve yet.
func New(o Options) (*Server, error) {
	if o.Guard == nil || o.Register == nil {
		return nil, errors.New("listen: Guard and Register are required")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o}
	s.grpc = s.newGRPC()
	o.Register(s.grpc)
	if o.HTTP != nil {
		s.http = newHTTP(o, s.grpc)
	}
	return s, nil
}

// newGRPC returns a server with the chain of package guard. Its transport
// options have no effect under ServeHTTP.
func (s *Server) newGRPC() *grpc.Server {
	o := s.o
	opts := []grpc.ServerOption{
		grpc.UnaryInterceptor(o.Guard.Unary()),
		grpc.StreamInterceptor(o.Guard.Stream()),
		grpc.ForceServerCodecV2(wirebuf.NewCodec()),
		grpc.MaxRecvMsgSize(MaxMessageBytes),
		grpc.MaxSendMsgSize(MaxMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(connWindowBytes),
		grpc.ReadBufferSize(64 << 10),
		grpc.WriteBufferSize(64 << 10),
		grpc.ConnectionTimeout(readHeaderTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 15 * time.Second}),
	}
	if o.HTTP == nil {
		opts = append(opts, grpc.NumStreamWorkers(streamWorkers))
	}
	if creds := s.credentials(); creds != nil {
		opts = append(opts, grpc.Creds(creds))
	}
	return grpc.NewServer(opts...)
}

// credentials are those of a port for gRPC alone; nil is plaintext.
func (s *Server) credentials() credentials.TransportCredentials {
	if s.o.HTTP != nil {
		return nil
	}
	var creds credentials.TransportCredentials
	if s.o.TLS != nil {
		config := s.o.TLS.Clone()
		if s.o.Links != nil {
			config.NextProtos = append(config.NextProtos, pipelink.Protocol)
		}
		creds = credentials.NewTLS(config)
	}
	if s.o.Links == nil {
		return creds
	}
	s.links = newLinks(creds, s.o.Links)
	return s.links
}

// newHTTP returns a server that hands gRPC requests to g.
func newHTTP(o Options, g *grpc.Server) *http.Server {
	secure, handler := WithProbes(o.TLS, split(g, o.HTTP))
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerStream:     windowBytes,
			MaxReceiveBufferPerConnection: connWindowBytes,
			SendPingTimeout:               30 * time.Second,
			PingTimeout:                   15 * time.Second,
			WriteByteTimeout:              60 * time.Second,
		},
	}
	srv.Protocols.SetHTTP1(true)
	if o.TLS == nil {
		srv.Protocols.SetUnencryptedHTTP2(true)
		return srv
	}
	srv.Protocols.SetHTTP2(true)
	srv.TLSConfig = secure.Clone()
	srv.TLSConfig.NextProtos = []string{"h2", "http/1.1"}
	return srv
}

// split chooses per request.
func split(g *grpc.Server, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			g.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// Serve accepts connections until Shutdown or Close; it then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if s.o.MaxConnections > 0 {
		l = newLimited(l, s.o.MaxConnections)
	}
	if s.http == nil {
		return s.grpc.Serve(l)
	}
	var err error
	if s.o.TLS != nil {
		err = s.http.ServeTLS(l, "", "")
	} else {
		err = s.http.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, lets requests in progress finish until ctx ends,
// then closes what is left. Drain the rpc.Service first, else open streams keep
// it waiting for all of ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	if s.http != nil {
		// GracefulStop cannot drain connections that net/http owns.
		err := s.http.Shutdown(ctx)
		s.Close()
		return err
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	select {
	case <-stopped:
		s.links.finish(ctx)
		return nil
	case <-ctx.Done():
		s.links.close()
		s.grpc.Stop()
		<-stopped
		return ctx.Err()
	}
}

// Close ends everything at once.
func (s *Server) Close() {
	if s.http != nil {
		_ = s.http.Close() // the listener's error; it is closed either way
	}
	s.links.close()
	s.grpc.Stop()
}
