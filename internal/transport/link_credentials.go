package transport

import (
	"errors"
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
// port. They take links, of frames and of forwarded operations, and streams of gossip
// out of its hands and leave every other connection to inner; nil is plaintext. Only a
// node that uses them announces links to its peers.
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
	conn, protocol, err := tlsconf.ProtocolOf(conn, info, tlsconf.FramesProtocol, tlsconf.GossipProtocol, tlsconf.ForwardProtocol)
	if err != nil || protocol == "" {
		return conn, info, err
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive) // fails only when closed, as the read then does
	}
	switch protocol {
	case tlsconf.GossipProtocol:
		return nil, nil, c.t.takeGossip(conn)
	case tlsconf.ForwardProtocol:
		_ = setUserTimeout(raw, deadAfter) // as above; both sides of such a link write
		return nil, nil, c.t.takeForward(conn, info)
	}
	c.t.takeLink(conn)
	return nil, nil, credentials.ErrConnDispatched
}

// Clone implements credentials.TransportCredentials.
func (c *linkCredentials) Clone() credentials.TransportCredentials {
	return &linkCredentials{TransportCredentials: c.TransportCredentials.Clone(), t: c.t}
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
