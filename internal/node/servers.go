package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/server/listen"
)

// stopTimeout bounds how long requests in progress hold up a stop.
const stopTimeout = 5 * time.Second

// servers are those of the four listeners.
type servers struct {
	listeners *listeners
	http      *listen.Server // REST, and gRPC beside it
	grpc      *listen.Server
	peer      *grpc.Server
	metrics   *http.Server
	wg        sync.WaitGroup
}

// newServers builds the servers; front is the REST API.
func (n *Node) newServers(front http.Handler) (*servers, error) {
	s := &servers{listeners: n.listeners}
	o := listen.Options{
		Register: n.rpc.Register, Guard: n.guard, MaxConnections: n.config.Limits.MaxConnections, Logger: n.logger.With("part", "server"),
	}
	var secure *tls.Config
	var nodes credentials.TransportCredentials
	if n.tls != nil {
		secure = n.tls.Server()
		o.TLS = secure
		nodes = n.tls.ServerCredentials(true)
	}
	var err error
	o.Links = n.rpc.ServeLink
	if s.grpc, err = listen.New(o); err != nil {
		return nil, err
	}
	o.HTTP, o.Links = front, nil
	if s.http, err = listen.New(o); err != nil {
		return nil, err
	}
	s.peer = grpc.NewServer(append(n.transport.ServerOptions(), grpc.Creds(n.transport.ServerCredentials(nodes)))...)
	api.RegisterPeerServer(s.peer, n.peer)
	secure, pages := listen.WithProbes(secure, n.metrics.Serve(metricsPages(n)))
	s.metrics = &http.Server{
		Handler:           pages,
		TLSConfig:         secure,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug), // as on the client listeners
	}
	return s, nil
}

// start serves all listeners; a server that ends by itself is reported.
func (s *servers) start(fail func(error)) {
	serve := func(name string, f func() error) {
		s.wg.Go(func() {
			err := f()
			if err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
				fail(fmt.Errorf("%s listener: %w", name, err))
			}
		})
	}
	serve("metrics", func() error {
		if s.metrics.TLSConfig != nil {
			return s.metrics.ServeTLS(s.listeners.metrics, "", "")
		}
		return s.metrics.Serve(s.listeners.metrics)
	})
	serve("peer", func() error { return s.peer.Serve(s.listeners.peer) })
	serve("grpc", func() error { return s.grpc.Serve(s.listeners.grpc) })
	serve("http", func() error { return s.http.Serve(s.listeners.http) })
}

// stopClients lets requests in progress finish, then ends the client
// listeners.
func (s *servers) stopClients() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var wg sync.WaitGroup
	var errs [2]error
	for i, l := range []*listen.Server{s.http, s.grpc} {
		wg.Go(func() {
			if err := l.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// stopRest ends the peer and metrics listeners and waits for all four.
func (s *servers) stopRest() error {
	s.peer.Stop()
	err := s.metrics.Close()
	s.wg.Wait()
	return err
}
