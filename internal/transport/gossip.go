package transport

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"

	"kvstore/internal/fault"
	"kvstore/internal/tlsconf"
)

// TakeGossip makes take the owner of the streams of gossip that come to the
// peer port from now on; until then they are refused. With TLS the other side
// has shown a node's certificate. take must not block, and must bound the life
// of a stream by closing it: gRPC, whose connection it was, resets deadlines.
func (t *Transport) TakeGossip(take func(net.Conn)) { t.gossip.Store(&take) }

// DialGossip opens a stream of gossip to the peer port at addr (host:port). ctx
// bounds connecting and the TLS handshake, Options.HelloTimeout as well.
func (t *Transport) DialGossip(ctx context.Context, addr string) (net.Conn, error) {
	return t.dialNamed(ctx, addr, tlsconf.GossipProtocol)
}

// takeGossip returns ErrConnDispatched when conn has its owner.
func (t *Transport) takeGossip(conn net.Conn) error {
	take := t.gossip.Load()
	if take == nil {
		return fault.New(fault.Unavailable, "gossip does not run on this node")
	}
	(*take)(conn)
	return credentials.ErrConnDispatched
}
