package rpc

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/server/status"
)

// Leases grants leases and keeps them alive; *lease.Service is one.
type Leases interface {
	Grant(ctx context.Context, req *api.LeaseGrantRequest) (*api.Lease, error)
	KeepAlive(ctx context.Context, req *api.LeaseKeepAliveRequest) (*api.Lease, error)
	Revoke(ctx context.Context, req *api.LeaseRevokeRequest) (*api.LeaseRevokeResponse, error)
	Describe(ctx context.Context, req *api.LeaseDescribeRequest) (*api.Lease, error)
	List(ctx context.Context, req *api.LeaseListRequest) (*api.LeaseListResponse, error)
}

// leaseService implements api.LeasesServer.
type leaseService struct {
	api.UnsafeLeasesServer // a method that is added must be served
	Leases
	s *Service
}

func (s *Service) registerLeases(g *grpc.Server) {
	if s.o.Leases != nil {
		api.RegisterLeasesServer(g, &leaseService{Leases: s.o.Leases, s: s})
	}
}

// maxKeepAlives bounds what one stream keeps alive at the same time.
const maxKeepAlives = 64

// KeepAliveStream keeps leases alive as they are named: what has come while the
// last ones were written is written together.
func (l *leaseService) KeepAliveStream(ss grpc.BidiStreamingServer[api.LeaseKeepAliveRequest, api.LeaseKeepAliveResponse]) error {
	if !l.s.hold() {
		return errDraining()
	}
	requests, ended := make(chan *api.LeaseKeepAliveRequest, maxKeepAlives), make(chan error, 1)
	// The reader ends when this handler has returned: its Recv fails then.
	go func() {
		defer l.s.readers.Done()
		defer close(requests)
		ended <- l.read(ss, requests)
	}()
	for {
		var some []*api.LeaseKeepAliveRequest
		select {
		case q, ok := <-requests:
			if !ok {
				return <-ended
			}
			some = append(some, q)
		case <-l.s.drained:
			return errDraining()
		}
		for n := len(requests); n > 0; n-- {
			if q, ok := <-requests; ok {
				some = append(some, q)
			}
		}
		for _, answer := range l.keepAlive(ss.Context(), some) {
			if err := ss.Send(answer); err != nil {
				return err
			}
		}
	}
}

func (l *leaseService) read(ss grpc.BidiStreamingServer[api.LeaseKeepAliveRequest, api.LeaseKeepAliveResponse], to chan<- *api.LeaseKeepAliveRequest) error {
	for {
		q, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case to <- q:
		case <-ss.Context().Done():
			return ss.Context().Err()
		}
	}
}

// keepAlive answers all requests, in order.
func (l *leaseService) keepAlive(ctx context.Context, some []*api.LeaseKeepAliveRequest) []*api.LeaseKeepAliveResponse {
	out := make([]*api.LeaseKeepAliveResponse, len(some))
	var wg sync.WaitGroup
	for i, q := range some {
		wg.Go(func() {
			out[i] = &api.LeaseKeepAliveResponse{Id: q.GetId()}
			defer func() {
				if p := recover(); p != nil {
					out[i].Status = status.Item(l.s.o.Guard.Recovered("KeepAliveStream", p))
				}
			}()
			if err := l.s.o.Guard.Acquire(ctx, 1, 0); err != nil {
				out[i].Status = status.Item(err)
				return
			}
			defer l.s.o.Guard.Release(1, 0)
			lease, err := l.KeepAlive(ctx, q)
			out[i].Lease, out[i].Status = lease, status.Item(err)
		})
	}
	wg.Wait()
	return out
}
