package sim

import (
	"context"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/watch"
)

// peerLink is what the hub of one node asks that of another, which serves it with
// the real code, over links that fail like all others.
type peerLink struct {
	api.PeerClient
	from, to *watchHub
}

// peerStream is a stream of a group's events. It breaks when one of its ends crashes
// or a link between them is cut: what is under way then is lost.
type peerStream struct {
	grpc.ClientStream
	from, to *watchHub
	client   context.Context // of who reads
	cancel   context.CancelFunc
	in       []*api.GroupEventsResponse
	last     time.Duration // when the latest message arrives
	err      error         // why there are no more than in
}

// errLinkBroken is what gRPC says of a connection that broke.
var errLinkBroken = status.Error(codes.Unavailable, "the connection broke")

// GroupEvents implements api.PeerClient.
//
//nolint:contextcheck // the server has a context of its own
func (l *peerLink) GroupEvents(ctx context.Context, q *api.GroupEventsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[api.GroupEventsResponse], error) {
	w := l.from.n.w
	s := &peerStream{from: l.from, to: l.to, client: ctx}
	var served context.Context
	served, s.cancel = context.WithCancel(context.Background()) // the server's: no connection carries the reader's
	w.after(w.between(100*time.Microsecond, 2*time.Millisecond), func() {
		if s.broken() {
			return
		}
		l.to.serving = append(l.to.serving, s)
		l.to.Go(func() {
			err := l.to.hub.ServeEvents(served, q, s.send)
			if err == nil {
				err = io.EOF
			}
			s.arrive(func() { s.fail(err) })
		})
	})
	return s, nil
}

// arrive runs f at the reader's, behind all that was sent before.
func (s *peerStream) arrive(f func()) {
	w := s.from.n.w
	s.last = max(s.last, w.now+w.between(100*time.Microsecond, 2*time.Millisecond))
	w.after(s.last-w.now, func() {
		if !s.broken() {
			f()
			s.from.kick()
		}
	})
}

func (s *peerStream) send(m *api.GroupEventsResponse) error {
	if s.broken() {
		return s.err
	}
	s.arrive(func() { s.in = append(s.in, m) })
	return nil
}

func (s *peerStream) fail(err error) {
	if s.err == nil {
		s.err = err
	}
	s.cancel()
}

// broken finds out whether the stream still is.
func (s *peerStream) broken() bool {
	a, b := s.from.n, s.to.n
	cut := b.w.cut[[2]int{a.index, b.index}] || b.w.cut[[2]int{b.index, a.index}]
	if cut || a.life != s.from.life || b.life != s.to.life || s.client.Err() != nil {
		s.fail(errLinkBroken)
	}
	return s.err != nil
}

// endBroken lets go of the streams that this node serves no longer.
func (h *watchHub) endBroken() {
	live := h.serving[:0]
	for _, s := range h.serving {
		if !s.broken() {
			live = append(live, s)
		}
	}
	clear(h.serving[len(live):])
	h.serving = live
}

// Recv implements grpc.ServerStreamingClient.
func (s *peerStream) Recv() (*api.GroupEventsResponse, error) {
	alive := len(s.in) > 0 || s.from.until(func() bool { return len(s.in) > 0 || s.broken() })
	if !alive || len(s.in) == 0 {
		s.fail(errLinkBroken)
		return nil, s.err
	}
	m := s.in[0]
	s.in = s.in[1:]
	return m, nil
}

// GroupVersion implements api.PeerClient.
func (l *peerLink) GroupVersion(_ context.Context, q *api.GroupVersionRequest, _ ...grpc.CallOption) (out *api.GroupVersionResponse, err error) {
	w := l.from.n.w
	lost := l.from.await(clocksWithin, func(done func()) {
		w.hop(l.from.n, l.to.n, func() {
			l.to.n.whenAwake(l.to.life, func() {
				m, failed := l.to.hub.ServeVersion(q)
				w.hop(l.to.n, l.from.n, func() {
					out, err = m, failed
					done()
				})
			})
		})
	})
	if lost != nil {
		return nil, errLinkBroken
	}
	return out, err
}

var _ watch.Tasks = (*watchHub)(nil)
