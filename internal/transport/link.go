package transport

import (
	"time"

	"kvstore/internal/tlsconf"
)

// A link is a connection of its own for the frames of one sender, beside gRPC
// on the peer port: an HTTP/2 stream costs several goroutine switches a frame,
// a link one write here and one read there.
//
// The dialer names the protocol, with TLS by ALPN, else by linkMagic, which no
// HTTP/2 preface starts with. Then come frames only: four bytes of length (big
// endian), api.Frame. The first has no messages and names the sender. The
// receiver writes nothing but, when it refuses the link, a text why before it
// closes.
const (
	// linkVersion is announced in the answer to Hello; 0 is a node that takes
	// frames by gRPC only.
	linkVersion = 1
	// forwardsVersion announces that forwarded operations have links too.
	forwardsVersion = 2
	linkMagic       = tlsconf.FramesProtocol + "\n"
	// gossipMagic begins a stream of gossip without TLS. It is as long as
	// linkMagic, so that one read tells them apart.
	gossipMagic = tlsconf.GossipProtocol + "\n"
	// prefixBytes is the length before each frame.
	prefixBytes = 4

	linkBuffer = 128 << 10
	// linkWriteTimeout ends a link whose receiver reads nothing for so long;
	// a write has at least a second less.
	linkWriteTimeout = 10 * time.Second
	// linkReadTimeout bounds the wait for the rest of a frame that has begun.
	linkReadTimeout = 30 * time.Second
	// reasonTimeout bounds telling why a link is refused, on either side.
	reasonTimeout = time.Second
	// maxReasonBytes bounds that text.
	maxReasonBytes = 512

	// nameTimeout bounds the time until a connection of the peer port has
	// named its protocol, with TLS its node, and on a link its sender.
	nameTimeout = 5 * time.Second
	// maxUnnamed bounds connections that have not done so; more are closed.
	maxUnnamed = 256
	// maxLinks bounds incoming links; more are refused.
	maxLinks = 1024
)
