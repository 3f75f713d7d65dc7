package rpc

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// Profile answers with a profile or trace of this node, in parts. It takes no
// slot of the guard: there is one at a time anyway, and a node that is
// overloaded is the one to look into.
func (s *Service) Profile(q *api.ProfileRequest, ss grpc.ServerStreamingServer[api.ProfileChunk]) error {
	if s.o.Profiles == nil {
		return fault.New(fault.Unsupported, "this node makes no profiles")
	}
	ctx, cancel := context.WithCancelCause(ss.Context())
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-s.drained:
			cancel(fault.New(fault.Unavailable, "the node is stopping"))
		case <-ctx.Done():
		}
	})
	defer watch.Wait()
	defer cancel(nil)
	p, err := s.o.Profiles.Record(ctx, q.GetType(), time.Duration(q.GetDurationMs())*time.Millisecond)
	if err != nil {
		return err
	}
	n := min(len(p.Data), s.o.ChunkBytes)
	chunk := &api.ProfileChunk{Data: p.Data[:n], Size: uint64(len(p.Data)), RecordedMs: p.Took.Milliseconds(), Cut: p.Cut}
	for rest := p.Data[n:]; ; rest = rest[n:] {
		if err := ss.Send(chunk); err != nil {
			return err
		}
		if len(rest) == 0 {
			return nil
		}
		n = min(len(rest), s.o.ChunkBytes)
		chunk = &api.ProfileChunk{Data: rest[:n]}
	}
}
