package transport

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"kvstore/internal/pipelink"
	"kvstore/internal/tlsconf"
)

// linkSender writes frames to a link.
type linkSender struct {
	conn  net.Conn
	armed time.Time // when the write deadline was last set
}

// openLink connects, names the protocol and the sender. The link ends with
// ctx; ended receives why it did.
func (p *peer) openLink(ctx context.Context, h *frameHeader) (outgoing, <-chan error, error) {
	conn, err := p.t.dialNamed(ctx, p.addr, tlsconf.FramesProtocol)
	if err != nil {
		return nil, nil, fmt.Errorf("opening a link of frames: %w", err)
	}
	l := &linkSender{conn: conn}
	f := newFrame()
	p.t.stamp(h)
	f.seal(h)
	if err := l.send(f); err != nil {
		_ = conn.Close()
		return nil, nil, fmt.Errorf("naming the sender on a link of frames: %w", err)
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	ended := make(chan error, 1)
	p.t.wg.Go(func() { ended <- awaitReason(conn) })
	return l, ended, nil
}

// dialNamed returns a connection that carries a protocol of the peer port from
// its next byte on.
func (t *Transport) dialNamed(ctx context.Context, addr, protocol string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, t.o.HelloTimeout)
	defer cancel()
	conn, err := dialTCP(ctx, addr)
	if err != nil {
		return nil, err
	}
	if err := setUserTimeout(conn, deadAfter); err != nil {
		_ = conn.Close()
		return nil, err
	}
	named, err := t.nameProtocol(ctx, conn, addr, protocol)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return named, nil
}

func (t *Transport) nameProtocol(ctx context.Context, conn net.Conn, addr, protocol string) (net.Conn, error) {
	if t.o.TLS == nil {
		_ = conn.SetWriteDeadline(time.Now().Add(linkWriteTimeout)) // fails only when closed, as the write then does
		_, err := io.WriteString(conn, protocol+"\n")
		return conn, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	config := t.o.TLS()
	config.NextProtos = []string{protocol}
	config.ServerName = host
	config.DynamicRecordSizingDisabled = true
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	if got := secure.ConnectionState().NegotiatedProtocol; got != protocol {
		return nil, fmt.Errorf("peer speaks the protocol %q instead of %q: %w", got, protocol, pipelink.ErrNoLinks)
	}
	return secure, nil
}

// send writes one frame. After an error the receiver's reason, if one came, is
// what ended tells.
func (l *linkSender) send(f *frame) error {
	defer f.release()
	if now := time.Now(); now.Sub(l.armed) >= time.Second {
		l.armed = now
		_ = l.conn.SetWriteDeadline(now.Add(linkWriteTimeout)) // fails only when closed, as the write then does
	}
	b := *f.buf
	binary.BigEndian.PutUint32(b, uint32(f.size()))
	if _, err := l.conn.Write(b); err != nil {
		_ = l.conn.SetReadDeadline(time.Now().Add(reasonTimeout)) // ends awaitReason
		return fmt.Errorf("writing a frame of %d bytes: %w", f.size(), err)
	}
	return nil
}

// awaitReason returns why the receiver ended the link.
func awaitReason(conn net.Conn) error {
	reason, err := io.ReadAll(io.LimitReader(conn, maxReasonBytes))
	if len(reason) > 0 {
		return fmt.Errorf("the peer ended the link: %s", reason)
	}
	if err == nil {
		err = errors.New("the peer ended the link")
	}
	return err
}
