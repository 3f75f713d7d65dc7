package transport

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/credentials"

	"kvstore/internal/env"
	"kvstore/internal/keyspace"
)

// MaxMessageBytes is the largest gRPC message on the peer port, both ways: a
// 16 MB value with its overhead.
const MaxMessageBytes = 20 << 20

// Options configure a Transport. The zero value of a limit means its default.
type Options struct {
	// Node is this node; required.
	Node keyspace.NodeID
	// Version is the build shown to peers.
	Version string
	// Clock stamps frames; required.
	Clock  env.Clock
	Logger *slog.Logger
	// Credentials secure outgoing connections; nil means plaintext.
	Credentials credentials.TransportCredentials
	// TLS returns a configuration, which the caller may change, for one
	// outgoing link of frames; it belongs to Credentials. With Credentials
	// alone frames go by gRPC.
	TLS func() *tls.Config

	// QueueBytes bounds the encoded messages that wait for one peer; 32 MB.
	QueueBytes int
	// QueueMessages bounds their number; 16,384.
	QueueMessages int
	// FrameBytes is the size up to which messages share a frame; 1 MB. A
	// larger message travels alone.
	FrameBytes int

	// SendSnapshots bounds the snapshots sent at the same time; 2.
	SendSnapshots int
	// ReceiveSnapshots bounds the snapshots received at the same time; 2.
	ReceiveSnapshots int
	// SnapshotBytesPerSecond bounds all outgoing snapshots together; 128 MB.
	// Negative means no limit.
	SnapshotBytesPerSecond int64
	// SnapshotStall ends a snapshot when its other side made no progress for
	// this long; 30 s.
	SnapshotStall time.Duration

	// HelloTimeout bounds connecting and greeting; 3 s.
	HelloTimeout time.Duration
	// MaxRedial is the longest pause between attempts; 1 s.
	MaxRedial time.Duration

	// OnUp and OnDown are told about the stream of frames to a peer, in turn,
	// on the sender's goroutine. They must not block and must not call the
	// Transport. err says why the stream ended.
	OnUp   func(peer keyspace.NodeID)
	OnDown func(peer keyspace.NodeID, err error)
	// OnOutdated is told that the cluster was recovered without this node, which
	// must not go on. It must not block; it may come more than once.
	OnOutdated func(epoch uint64)
	// OnGone is told that this node does not belong to the cluster any more. It
	// must not block; it comes again with every attempt to connect.
	OnGone func(text string)
}

func (o Options) withDefaults() (Options, error) {
	if o.Node == "" || o.Clock == nil {
		return o, fmt.Errorf("transport: options need a node id and a clock (node %q)", o.Node)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	defaultTo(&o.QueueBytes, 32<<20)
	defaultTo(&o.QueueMessages, 16<<10)
	defaultTo(&o.FrameBytes, 1<<20)
	defaultTo(&o.SendSnapshots, 2)
	defaultTo(&o.ReceiveSnapshots, 2)
	defaultTo(&o.SnapshotBytesPerSecond, 128<<20)
	defaultTo(&o.SnapshotStall, 30*time.Second)
	defaultTo(&o.HelloTimeout, 3*time.Second)
	defaultTo(&o.MaxRedial, time.Second)
	return o, nil
}

func defaultTo[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}
