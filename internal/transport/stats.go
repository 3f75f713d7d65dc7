package transport

import (
	"sort"
	"sync/atomic"
	"time"

	"kvstore/internal/keyspace"
)

// PeerStatus describes the stream of frames to one peer. Counters grow for as
// long as the peer stays at its address.
type PeerStatus struct {
	Node keyspace.NodeID
	Addr string
	// Version is the peer's build, once it has answered.
	Version string
	Up      bool
	// Since is when Up last changed, or when the last attempt failed.
	Since     time.Time
	LastError string
	Sessions  int64

	// Sent.
	Frames, Messages, Bytes int64
	// Waiting.
	QueuedMessages, QueuedBytes int
	// Dropped messages: the queue was full, the message was above
	// MaxMessageBytes, the peer was not connected.
	DroppedFull, DroppedTooLarge, DroppedDown int64
}

// Stats are the counters of a Transport.
type Stats struct {
	// Peers, sorted by node id.
	Peers []PeerStatus
	// DroppedUnknown are messages for nodes that are not peers.
	DroppedUnknown int64
	// ReceivedFrames, ReceivedMessages were delivered; RefusedFrames ended
	// their streams.
	ReceivedFrames, ReceivedMessages, RefusedFrames int64
	// Snapshots now and so far.
	SnapshotsSending, SnapshotsReceiving  int64
	SnapshotsSent, SnapshotsReceived      int64
	SnapshotsSendFailed, SnapshotsRefused int64
	SnapshotBytesSent, SnapshotBytesRecv  int64
}

type snapshotCounters struct {
	sending, receiving, sent, received, sendFailed, refused, bytesSent, bytesRecv atomic.Int64
}

// Stats returns the current counters.
func (t *Transport) Stats() Stats {
	c := &t.snapStats
	s := Stats{
		DroppedUnknown:      t.unknown.Load(),
		ReceivedFrames:      t.streams.frames.Load(),
		ReceivedMessages:    t.streams.messages.Load(),
		RefusedFrames:       t.streams.refused.Load(),
		SnapshotsSending:    c.sending.Load(),
		SnapshotsReceiving:  c.receiving.Load(),
		SnapshotsSent:       c.sent.Load(),
		SnapshotsReceived:   c.received.Load(),
		SnapshotsSendFailed: c.sendFailed.Load(),
		SnapshotsRefused:    c.refused.Load(),
		SnapshotBytesSent:   c.bytesSent.Load(),
		SnapshotBytesRecv:   c.bytesRecv.Load(),
	}
	for _, p := range *t.peers.Load() {
		s.Peers = append(s.Peers, p.currentStatus())
	}
	sort.Slice(s.Peers, func(i, j int) bool { return s.Peers[i].Node < s.Peers[j].Node })
	return s
}

// Up reports whether frames flow to a node.
func (t *Transport) Up(id keyspace.NodeID) bool {
	p := (*t.peers.Load())[id]
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status.Up
}

func (p *peer) currentStatus() PeerStatus {
	bytes, messages, dropped := p.queue.depth()
	p.mu.Lock()
	s := p.status
	p.mu.Unlock()
	s.Node, s.Addr = p.id, p.addr
	s.QueuedBytes, s.QueuedMessages = bytes, messages
	s.DroppedFull, s.DroppedTooLarge, s.DroppedDown = dropped.full, dropped.tooLarge, dropped.down
	return s
}
