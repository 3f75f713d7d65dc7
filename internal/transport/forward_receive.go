package transport

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/pipelink"
)

// ServeForward serves one Forward stream of a peer; what it returns is a gRPC status
// and ends the stream.
type ServeForward func(stream api.Peer_ForwardServer) error

// forwards are the incoming links of forwarded operations.
type forwards struct {
	serve atomic.Pointer[ServeForward] // nil: none are taken
	slots chan struct{}

	mu   sync.Mutex
	open map[*forwardLink]struct{} // mu must be held
}

// forwardLink is one of them, as a stream of gRPC.
type forwardLink struct {
	*pipelink.Stream
	from    string
	epoch   uint64
	cancel  context.CancelFunc // ends it
	greeted bool               // belongs to who receives
}

// TakeForwards makes serve, which is the handler of Peer.Forward, the one of links
// as well. It is called once, before the peer port is served; a node without it
// announces no such links, and refuses them.
func (t *Transport) TakeForwards(serve ServeForward) { t.forwards.serve.Store(&serve) }

// takeForward serves a link on a goroutine of its own, which Close waits for. It
// returns ErrConnDispatched when conn has its owner.
func (t *Transport) takeForward(conn net.Conn, info credentials.AuthInfo) error {
	serve := t.forwards.serve.Load()
	if serve == nil {
		return fault.New(fault.Unavailable, "this node takes no links of forwarded operations")
	}
	select {
	case t.forwards.slots <- struct{}{}:
	default:
		return fault.New(fault.Overloaded, "this node takes as many links of forwarded operations as it may", "limit", maxForwards)
	}
	if !t.hold() {
		<-t.forwards.slots
		return errClosed()
	}
	go func() {
		defer t.wg.Done()
		defer func() { <-t.forwards.slots }()
		t.serveForward(conn, info, *serve)
	}()
	return credentials.ErrConnDispatched
}

func (t *Transport) serveForward(conn net.Conn, info credentials.AuthInfo, serve ServeForward) {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	_ = conn.SetDeadline(time.Time{}) // the handshake's; fails only when closed, as the read then does
	s, err := pipelink.Accept(ctx, conn, info, MaxMessageBytes)
	if err != nil {
		t.logRefusal(conn, err)
		return
	}
	l := &forwardLink{Stream: s, cancel: cancel}
	if err := t.joinForward(l); err != nil {
		t.logRefusal(conn, err)
		l.Close(asStatus(err))
		return
	}
	defer t.forwards.leave(l)
	l.Close(serve(&grpc.GenericServerStream[api.ForwardFrame, api.PipelineResponse]{ServerStream: l}))
}

// joinForward admits a link. It is known before it is judged, so that whoever makes
// it impermissible meanwhile ends it.
func (t *Transport) joinForward(l *forwardLink) (err error) {
	md, _ := metadata.FromIncomingContext(l.Context())
	if l.epoch, err = strconv.ParseUint(said(md, recoveryHeader), 10, 64); err != nil {
		return fault.Wrap(fault.InvalidArgument, err, "link names no recovery epoch")
	}
	l.from = said(md, nodeHeader)
	t.forwards.join(l)
	defer func() {
		if err != nil {
			t.forwards.leave(l)
		}
	}()
	if err := t.checkCaller(l.Context(), api.Peer_Forward_FullMethodName); err != nil {
		return err
	}
	if err := t.checkParties(said(md, clusterHeader), l.from, said(md, toHeader)); err != nil {
		return err
	}
	return t.checkRecovery(l.epoch)
}

// said is the one value of a header, "" for none.
func said(md metadata.MD, header string) string {
	if v := md.Get(header); len(v) == 1 {
		return v[0]
	}
	return ""
}

func (f *forwards) join(l *forwardLink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == nil {
		f.open = make(map[*forwardLink]struct{})
	}
	f.open[l] = struct{}{}
}

func (f *forwards) leave(l *forwardLink) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.open, l)
}

// end ends the links that which names.
func (f *forwards) end(which func(*forwardLink) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for l := range f.open {
		if which(l) {
			l.cancel()
		}
	}
}

// RecvMsg implements grpc.ServerStream. The peer is told that its link is taken when
// the handler wants its first frame: a node that refuses it says so before anything
// was sent. Peers close nothing but whole links, so that the end is that of the
// stream's context as well.
func (l *forwardLink) RecvMsg(m any) error {
	if !l.greeted {
		if err := l.Greet(); err != nil {
			return err
		}
		l.greeted = true
	}
	err := l.Stream.RecvMsg(m)
	if errors.Is(err, io.EOF) {
		l.cancel()
	}
	return err
}
