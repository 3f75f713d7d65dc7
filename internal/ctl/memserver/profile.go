package memserver

import (
	"errors"
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/profiling"
)

// RefuseProfiles makes the service answer as a node with debug.profiling off.
func (s *Server) RefuseProfiles() { s.profiles.Store(profiling.New(false)) }

// Profile is the service's method: two parts of a profile of this process.
func (s *Server) Profile(q *api.ProfileRequest, ss grpc.ServerStreamingServer[api.ProfileChunk]) error {
	p, err := s.profiles.Load().Record(ss.Context(), q.GetType(), time.Duration(q.GetDurationMs())*time.Millisecond)
	if f := (*fault.Error)(nil); errors.As(err, &f) {
		return Errorf(string(f.Code), f.Message)
	}
	if err != nil {
		return err
	}
	half := len(p.Data) / 2
	head := &api.ProfileChunk{Data: p.Data[:half], Size: uint64(len(p.Data)), RecordedMs: p.Took.Milliseconds(), Cut: p.Cut}
	return errors.Join(ss.Send(head), ss.Send(&api.ProfileChunk{Data: p.Data[half:]}))
}
