package transport

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// linkReceiver is an incoming link.
type linkReceiver struct {
	t      *Transport
	conn   net.Conn
	frames frameReader
	cancel context.CancelFunc
}

// takeLink waits for the frame that names the sender, then serves the link on
// a goroutine of its own. It owns conn, whose deadline is set.
func (t *Transport) takeLink(conn net.Conn) {
	l, err := t.admitLink(conn)
	if err != nil {
		t.refuseLink(conn, err)
		return
	}
	first, err := l.name()
	if err != nil {
		t.refuseLink(conn, err)
		l.leave()
		return
	}
	go l.serve(first) // Close waits for it to leave
}

// admitLink counts a link until it leaves.
func (t *Transport) admitLink(conn net.Conn) (*linkReceiver, error) {
	in, err := t.enter()
	if err != nil {
		return nil, err
	}
	select {
	case t.links <- struct{}{}:
	default:
		t.wg.Done()
		return nil, fault.New(fault.Overloaded, "this node takes as many links of frames as it may", "limit", maxLinks)
	}
	l := &linkReceiver{t: t, conn: conn}
	ctx, cancel := context.WithCancel(t.ctx)
	l.cancel = cancel
	// Closing is what ends a read: a deadline could be reset by gRPC, whose
	// connection this was.
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	reader := &linkReader{r: bufio.NewReaderSize(conn, linkBuffer), waiting: l.limitRead}
	l.frames = frameReader{t: t, in: in, ctx: ctx, recv: reader.next}
	return l, nil
}

// name reads the frame that names the sender.
func (l *linkReceiver) name() (*api.Frame, error) {
	first, err := l.frames.first()
	if err != nil {
		return nil, err
	}
	return first, l.conn.SetDeadline(time.Time{})
}

// limitRead bounds the wait for the rest of a frame.
func (l *linkReceiver) limitRead(wait bool) {
	var until time.Time
	if wait {
		until = time.Now().Add(linkReadTimeout)
	}
	_ = l.conn.SetReadDeadline(until) // fails only when closed, as the read then does
}

// serve delivers frames until the link ends.
func (l *linkReceiver) serve(first *api.Frame) {
	defer l.leave()
	if err := l.frames.follow(first, l.cancel); err != nil && l.frames.ctx.Err() == nil {
		l.t.refuseLink(l.conn, err)
	}
}

func (l *linkReceiver) leave() {
	l.cancel()
	<-l.t.links
	l.t.wg.Done()
}

// refuseLink tells the sender why and closes the link.
func (t *Transport) refuseLink(conn net.Conn, err error) {
	t.logRefusal(conn, err)
	if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		_ = conn.SetWriteDeadline(time.Now().Add(reasonTimeout)) // fails only when closed, as the write then does
		reason := err.Error()
		_, _ = io.WriteString(conn, reason[:min(len(reason), maxReasonBytes)]) // the sender may be gone
	}
	_ = conn.Close()
}
