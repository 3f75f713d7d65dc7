package gossip

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const (
	// maxMembers bounds whom memberlist is allowed to know.
	maxMembers = 1024
	// maxIDBytes bounds a node id; UUIDs have 36.
	maxIDBytes = 64
	// defaultRejoin is the interval of rejoining.
	defaultRejoin = 30 * time.Second
	// forgetAfter drops a member that is gone and not in the address book.
	forgetAfter = 10 * time.Minute
)

// Options of a Gossip. Node, Cluster, Packets, Dial, Clock and Rand are
// required.
type Options struct {
	Node keyspace.NodeID
	// Cluster is the name of the cluster; nodes of another are not heard.
	Cluster string
	// Packets receives and sends; Gossip closes it.
	Packets net.PacketConn
	// Dial opens a stream of gossip at a peer address
	// (transport.Transport.DialGossip).
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Peers are the peer addresses of the nodes that are known to belong to the
	// cluster; nil means none.
	Peers func() map[keyspace.NodeID]string
	// KeyFile names the file of keys; "" means that nothing is encrypted.
	KeyFile string
	// OnChange is told about each member that is new or changed its state or
	// Meta, in turn, from one goroutine. It must not block for long, and may
	// call Members but not Close.
	OnChange func(Member)

	Clock  env.Clock
	Rand   env.Rand
	Logger *slog.Logger

	// Interval is how often one member is probed; 1 s. The other intervals
	// follow it: gossip every fifth, suspicion at least four, an exchange of
	// whole lists every thirty.
	Interval time.Duration
	// Rejoin is how often nodes that are known and not heard are joined,
	// jittered by a quarter; 30 s, sooner while nobody is heard at all.
	Rejoin time.Duration
	// KeyPoll is how often KeyFile is read; 2 s.
	KeyPoll time.Duration
}

func (o Options) withDefaults() (Options, error) {
	if !isID(string(o.Node)) {
		return o, fault.New(fault.InvalidArgument, "gossip: a node id is 1 to 64 of 0-9 a-z -", "actual", o.Node)
	}
	if o.Cluster == "" || o.Packets == nil || o.Dial == nil || o.Clock == nil || o.Rand == nil {
		return o, fmt.Errorf("gossip: options need a cluster, packets, a dialer, a clock and random numbers (cluster %q)", o.Cluster)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Peers == nil {
		o.Peers = func() map[keyspace.NodeID]string { return nil }
	}
	if o.OnChange == nil {
		o.OnChange = func(Member) {}
	}
	for _, d := range []struct {
		v         *time.Duration
		otherwise time.Duration
	}{{&o.Interval, time.Second}, {&o.Rejoin, defaultRejoin}, {&o.KeyPoll, 2 * time.Second}} {
		if *d.v <= 0 {
			*d.v = d.otherwise
		}
	}
	return o, nil
}

// isID judges a member's name.
func isID(s string) bool {
	return s != "" && len(s) <= maxIDBytes && strings.IndexFunc(s, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && r != '-'
	}) < 0
}
