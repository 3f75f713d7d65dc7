package client

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"kvstore/internal/pipelink"
	"kvstore/internal/wirebuf"
)

// link is a Pipeline stream on a connection of its own (package pipelink).
type link struct {
	conn     net.Conn
	in       *bufio.Reader
	maxBytes int
	armed    time.Time // when the deadline of writes was set
	// refused is what the server said instead of taking the stream.
	refused error
}

var _ frameStream = (*link)(nil)

// grpcFor is how long a node that took no link is not asked again.
const grpcFor = time.Minute

func (n *node) linksKnown() bool { return n.client.now() >= time.Duration(n.grpcUntil.Load()) }
func (n *node) noLinks()         { n.grpcUntil.Store(int64(n.client.now() + grpcFor)) }

// openLink connects, names the protocol and waits for the server's word. ctx ends
// the link.
func (p *pipe) openLink(ctx context.Context) (*link, error) {
	cfg := &p.node.client.cfg
	within, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(within, "tcp", p.node.addr)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	// Closing is what ends reads and writes.
	ends := context.AfterFunc(ctx, func() { _ = raw.Close() })
	limit := context.AfterFunc(within, func() { _ = raw.Close() })
	conn, err := nameLink(within, raw, cfg, p.node.addr)
	l := &link{conn: conn, maxBytes: p.node.client.topology().limits.messageBytes}
	if err == nil {
		l.in = bufio.NewReaderSize(conn, pipelink.BufferBytes)
		err = l.greet(p.node.client)
	}
	if err == nil && !limit() {
		err = status.Error(codes.Unavailable, "connecting took too long")
	}
	if err != nil {
		ends()
		_ = raw.Close() // whatever it says, the socket is gone
		return nil, err
	}
	p.conn.hear()
	p.raw.Store(&raw)
	return l, nil
}

// nameLink names the protocol and returns the connection to use.
func nameLink(ctx context.Context, raw net.Conn, cfg *Config, addr string) (net.Conn, error) {
	if cfg.TLS == nil {
		_, err := io.WriteString(raw, pipelink.Magic)
		return pipelink.Direct(raw), pipelink.NotTaken(err)
	}
	config := cfg.TLS.Clone()
	config.NextProtos = []string{pipelink.Protocol}
	if config.ServerName == "" {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, wrapError(CodeInvalidArgument, err, "bad address", "address", addr)
		}
		config.ServerName = host
	}
	conn := tls.Client(pipelink.Direct(raw), config)
	switch err := conn.HandshakeContext(ctx); {
	case pipelink.OtherProtocol(err):
		return nil, pipelink.ErrNoLinks
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	case conn.ConnectionState().NegotiatedProtocol != pipelink.Protocol:
		return nil, pipelink.ErrNoLinks
	}
	return conn, nil
}

// greet says who this is, as gRPC's metadata would, and waits for the answer.
func (l *link) greet(c *Client) error {
	md := metadata.Pairs("user-agent", c.cfg.UserAgent)
	if c.cfg.Token != "" {
		if c.cfg.TLS == nil && !c.cfg.PlaintextToken {
			return newError(CodeUnauthenticated, "a token needs TLS")
		}
		md.Set("authorization", "Bearer "+c.cfg.Token)
	}
	if err := l.write(pipelink.Append(nil, pipelink.Hello, pipelink.AppendMetadata(nil, md))); err != nil {
		return pipelink.NotTaken(err)
	}
	k, buf, err := pipelink.Read(l.in, pipelink.MaxHello)
	if err != nil {
		return pipelink.NotTaken(err)
	}
	defer wirebuf.Pool.Put(buf)
	switch k { //nolint:exhaustive // no frame comes before
	case pipelink.Hello:
		return nil
	case pipelink.Status:
		l.refused = pipelink.Ended(*buf) // that the stream has ended so the receiver gets
		return nil
	}
	return pipelink.ErrNoLinks
}

func (l *link) write(b []byte) error {
	if now := time.Now(); now.Sub(l.armed) >= time.Second {
		l.armed = now
		_ = l.conn.SetWriteDeadline(now.Add(pipelink.WriteTimeout)) // fails only when closed, as the write then does
	}
	_, err := l.conn.Write(b)
	return err
}

// SendMsg sends a frame that has room for its head. Where the connection has ended
// the receiver gets the reason, as with gRPC.
func (l *link) SendMsg(m any) error {
	buf, ok := m.(*[]byte)
	if !ok {
		return fmt.Errorf("link: cannot send %T", m)
	}
	defer wirebuf.Pool.Put(buf)
	if l.refused != nil {
		return io.EOF
	}
	pipelink.PutHead(*buf, pipelink.Frame)
	if err := l.write(*buf); err != nil {
		return io.EOF
	}
	return nil
}

// RecvMsg receives answers.
func (l *link) RecvMsg(m any) error {
	f, ok := m.(*frame)
	if !ok {
		return fmt.Errorf("link: cannot receive %T", m)
	}
	if l.refused != nil {
		return l.refused
	}
	k, buf, err := pipelink.Read(l.in, l.maxBytes)
	if err != nil {
		return status.Error(codes.Unavailable, err.Error())
	}
	if k != pipelink.Frame {
		defer wirebuf.Pool.Put(buf)
		if k == pipelink.Status {
			return pipelink.Ended(*buf)
		}
		return malformed("frame")
	}
	f.buf = mem.NewBuffer(buf, wirebuf.Pool)
	return nil
}
