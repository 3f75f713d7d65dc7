// Package transport moves messages between nodes: raft messages and read
// confirmations of all groups, snapshots, and clients for the other RPCs of
// the Peer service. It holds no server of its own: HandleHello, HandleFrames
// and HandleSnapshot are called by the Peer service (internal/server/peer), and
// ServerCredentials take links from its gRPC server.
//
// # Frames
//
// Each peer has one sender goroutine, one connection for frames and one
// bounded queue. Send encodes a message at once into the open frame of its
// peer, so nothing of the caller's is kept; what accumulates while the
// previous frame is being written becomes the next frame, up to Options.
// FrameBytes. The queue never blocks: when it is full, messages are dropped
// and counted, which raft tolerates. Small messages (heartbeats, votes,
// acknowledgements) keep a reserve of the queue that large ones cannot take.
//
// A sender dials, says Hello (cluster, node and format version are compared on
// both sides), opens a link (see linkVersion), or a stream to a node that takes
// none, and writes frames until it breaks, then starts again after a jittered delay. What was queued for a peer that cannot be
// reached is dropped after each failed attempt, so that a peer that returns is
// not flooded with the past.
//
// The receiver accepts one stream or link per sending node; a newer one
// ends the older one and waits for it, so frames of one sender are delivered
// in order and never at the same time. Every frame is checked again: cluster,
// sender, addressee, format version.
//
// # Forwarded operations
//
// They have links of their own too, in the form of package pipelink (Forward,
// TakeForwards), or streams of gRPC to nodes that take none.
//
// # Gossip
//
// The streams of gossip (internal/gossip) come to the same port: named like a
// link, by ALPN or by a first line, after the same handshake. This package
// dials and accepts them; what they carry is not its business.
//
// # Snapshots
//
// A snapshot is a stream of its own on a connection of its own, limited in
// number and in bytes per second, so that it never delays a heartbeat.
//
// # Dead peers
//
// Servers ping idle connections every second; clients let the kernel give up
// unacknowledged data after two seconds (TCP_USER_TIMEOUT on Linux) and probe
// idle connections each second. A peer that is cut off is noticed in about two
// seconds on Linux, later elsewhere; a link does without pings, by TCP probes; raft's own timeouts do not depend on it.
package transport
