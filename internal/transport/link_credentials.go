package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"kvstore/internal/fault"
	"kvstore/internal/tlsconf"
)

// ServerCredentials returns the credentials for the gRPC server of the peer
// port. They take links of frames and streams of gossip out of its hands
// and leave every other connection to inner; nil is plaintext. Only a node that uses them announces
// links to its peers.
func (t *Transport) ServerCredentials(inner credentials.TransportCredentials) credentials.TransportCredentials {
	if inner == nil {
		inner = insecure.NewCredentials()
	}
	t.takesLinks.Store(true)
	return &linkCredentials{TransportCredentials: inner, t: t}
}

// linkCredentials tell links from gRPC in the handshake, which gRPC runs on a
// goroutine of each new connection.
type linkCredentials struct {
	credentials.TransportCredentials
	t *Transport
}

// ServerHandshake implements credentials.TransportCredentials. The caller
// closes raw after any error but ErrConnDispatched.
func (c *linkCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.handshake(raw)
	if err != nil && !errors.Is(err, credentials.ErrConnDispatched) {
		c.t.logRefusal(raw, err)
	}
	return conn, info, err
}

func (c *linkCredentials) handshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	select {
	case c.t.unnamed <- struct{}{}:
		defer func() { <-c.t.unnamed }()
	default:
		return nil, nil, fault.New(fault.Overloaded, "too many connections have not named themselves", "limit", maxUnnamed)
	}
	if err := raw.SetDeadline(time.Now().Add(nameTimeout)); err != nil {
		return nil, nil, err
	}
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	conn, protocol, err := protocolOf(conn, info)
	if err != nil || protocol == "" {
		return conn, info, err
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive) // fails only when closed, as the read then does
	}
	if protocol == tlsconf.GossipProtocol {
		return nil, nil, c.t.takeGossip(conn)
	}
	c.t.takeLink(conn)
	return nil, nil, credentials.ErrConnDispatched
}

// Clone implements credentials.TransportCredentials.
func (c *linkCredentials) Clone() credentials.TransportCredentials {
	return &linkCredentials{TransportCredentials: c.TransportCredentials.Clone(), t: c.t}
}

// protocolOf reads what the dialer named: FramesProtocol, GossipProtocol, or ""
// for gRPC. The connection it returns has all bytes that belong to the protocol.
func protocolOf(conn net.Conn, info credentials.AuthInfo) (_ net.Conn, protocol string, err error) {
	if secure, ok := info.(credentials.TLSInfo); ok {
		switch p := secure.State.NegotiatedProtocol; p {
		case tlsconf.FramesProtocol, tlsconf.GossipProtocol:
			return conn, p, nil
		}
		return conn, "", nil
	}
	named := make([]byte, len(linkMagic))
	if _, err := io.ReadFull(conn, named[:1]); err != nil {
		return nil, "", err
	}
	if named[0] != linkMagic[0] {
		return &begun{Conn: conn, head: named[:1]}, "", nil
	}
	if _, err := io.ReadFull(conn, named[1:]); err != nil {
		return nil, "", fmt.Errorf("reading the name of a protocol: %w", err)
	}
	switch string(named) {
	case linkMagic:
		return conn, tlsconf.FramesProtocol, nil
	case gossipMagic:
		return conn, tlsconf.GossipProtocol, nil
	}
	return nil, "", fault.New(fault.InvalidArgument, "connection names no protocol of this port", "actual", fmt.Sprintf("%q", named))
}

// begun is a connection of which head was read.
type begun struct {
	net.Conn
	head []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.head) == 0 {
		return b.Conn.Read(p)
	}
	n := copy(p, b.head)
	b.head = b.head[n:]
	return n, nil
}

// refusals counts connections of the peer port that were closed for what they
// sent, and logs one a second.
type refusals struct {
	mu sync.Mutex
	// mu must be held for these.
	logged time.Time
	silent int // since logged
}

// logRefusal logs why a connection is closed, except that it was closed
// without a word, as port probes do.
func (t *Transport) logRefusal(conn net.Conn, err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return
	}
	r := &t.refusals
	r.mu.Lock()
	silent := r.silent
	worth := time.Since(r.logged) >= time.Second
	if worth {
		r.logged, r.silent = time.Now(), 0
	} else {
		r.silent++
	}
	r.mu.Unlock()
	if worth {
		t.o.Logger.Warn("closed a connection of the peer port", "addr", conn.RemoteAddr(), "error", err, "not_logged_before", silent)
	}
}
