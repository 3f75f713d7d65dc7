package transport

import (
	"time"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const (
	// directIdle closes a connection made by ClientAt when it is not used.
	directIdle = time.Minute
	// maxDirect bounds the addresses ClientAt remembers.
	maxDirect = 256
)

// directConn is a connection to an address whose node is not known yet.
type directConn struct {
	conn   *grpc.ClientConn
	client api.PeerClient
}

func (d *directConn) close() { _ = d.conn.Close() }

// Client returns a client for the other RPCs of a peer (Call, GroupClock,
// GroupScan, Join, and Forward where Transport.Forward finds no links). It shares one connection per peer, which is
// not the one of frames. RPCs fail fast with Unavailable while the peer is
// down. An unknown node is fault.Unavailable.
func (t *Transport) Client(id keyspace.NodeID) (api.PeerClient, error) {
	p := (*t.peers.Load())[id]
	if p == nil {
		return nil, errUnknownPeer(id)
	}
	return p.client, nil
}

// ClientAt returns a client for whatever node listens at addr; for Probe and
// Join, before node ids are known. It works before Start.
func (t *Transport) ClientAt(addr string) (api.PeerClient, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed()
	}
	if d := t.direct[addr]; d != nil {
		return d.client, nil
	}
	if len(t.direct) >= maxDirect {
		return nil, fault.New(fault.Overloaded, "too many addresses are in use", "limit", maxDirect, "addr", addr)
	}
	conn, err := t.dial(addr, directIdle)
	if err != nil {
		return nil, badAddress(addr, err)
	}
	d := &directConn{conn: conn, client: api.NewPeerClient(conn)}
	t.direct[addr] = d
	return d.client, nil
}

func badAddress(addr string, err error) error {
	return fault.Wrap(fault.InvalidArgument, err, "peer address cannot be used", "addr", addr)
}
