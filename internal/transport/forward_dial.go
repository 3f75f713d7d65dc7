package transport

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/pipelink"
	"kvstore/internal/tlsconf"
)

// forwardCaller is an outgoing link of forwarded operations.
type forwardCaller struct {
	caller *pipelink.Caller
	conn   net.Conn
	// stop ends it, by closing conn soon.
	stop context.CancelFunc
}

var _ ForwardStream = (*forwardCaller)(nil)

// openForward connects, names the protocol and waits for the peer's word, for
// Options.HelloTimeout at most.
func (p *peer) openForward(ctx context.Context) (*forwardCaller, error) {
	if !p.t.hold() {
		return nil, errClosed()
	}
	within, cancel := context.WithTimeout(ctx, p.t.o.HelloTimeout)
	defer cancel()
	conn, err := p.t.dialNamed(within, p.addr, tlsconf.ForwardProtocol)
	if err != nil {
		p.t.wg.Done()
		return nil, unnamed(err)
	}
	ctx, stop := context.WithCancel(ctx)
	go func() { // the link's owner, until it ends
		defer p.t.wg.Done()
		defer func() { _ = conn.Close() }() // whatever it says, the socket is gone
		p.watchForward(ctx)
		stop()
	}()
	caller, err := p.greetForward(within, conn)
	if err != nil {
		stop()
		return nil, err
	}
	return &forwardCaller{caller: caller, conn: conn, stop: stop}, nil
}

// unnamed is why a connection that carries the protocol could not be made.
func unnamed(err error) error {
	if pipelink.OtherProtocol(err) || errors.Is(err, pipelink.ErrNoLinks) {
		return pipelink.ErrNoLinks
	}
	return fmt.Errorf("connecting: %w", status.Error(codes.Unavailable, err.Error()))
}

func (p *peer) greetForward(within context.Context, conn net.Conn) (*pipelink.Caller, error) {
	limit := context.AfterFunc(within, func() { _ = conn.Close() }) // ends the wait
	caller, err := pipelink.Open(conn, p.forwardHello(), MaxMessageBytes)
	if !limit() && err == nil {
		err = status.Error(codes.Unavailable, "the peer took too long to take a link")
	}
	return caller, err
}

// watchForward waits for the end of a link: of ctx, of the peer's place here, or of
// the gRPC connection to the peer, which has pings, once that was seen to work. A peer whose process hangs
// acknowledges what it is sent and never answers; a link alone would wait for ever.
func (p *peer) watchForward(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.ctx, cancel)() //nolint:contextcheck // the peer's, beside the caller's
	p.calls.Connect()
	ready := false
	for ctx.Err() == nil {
		now := p.calls.GetState()
		if ready && now != connectivity.Ready || now == connectivity.Shutdown {
			return
		}
		ready = ready || now == connectivity.Ready
		p.calls.WaitForStateChange(ctx, now)
	}
}

// Send implements ForwardStream.
func (l *forwardCaller) Send(f *api.ForwardFrame) error { return l.caller.Send(f) }

// Recv implements ForwardStream.
func (l *forwardCaller) Recv() (*api.PipelineResponse, error) {
	m := new(api.PipelineResponse)
	if err := l.caller.Receive(m); err != nil {
		l.stop()
		_ = l.conn.Close() // so that Send fails from here on
		return nil, err
	}
	return m, nil
}
