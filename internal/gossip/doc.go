// Package gossip lets the nodes of a cluster hear about each other all the
// time, by github.com/hashicorp/memberlist (SWIM): who is alive, suspect, dead
// or left, and a short note of each about itself (Meta).
//
// # Hints only
//
// Nothing that raft or routing need for safety may depend on what is heard
// here: it may be late, lost, or a lie of whoever holds a key. It is good for
// what humans look at, for choosing among equals, and for noticing sooner what
// a timeout would tell. Who belongs to the cluster is said by its metadata.
//
// # Names are node ids
//
// A member's name is its node id, and the id alone addresses it. memberlist
// takes an address for part of a member's identity: the same name elsewhere is
// a conflict until the old one has been dead for a while. So memberlist is told
// an address that is computed from the id (addressOf) and never changes, and
// the wire below it sends to wherever the member itself said that it is, in its
// Meta, or, for streams, where the address book has it. A node that comes back
// elsewhere is a change of Meta like any other: it takes over within a round of
// gossip, nobody has to be declared dead first. memberlist's own means for
// this, DeadNodeReclaimTime and the conflict delegate, would make it wait until
// the others suspected and buried its old address.
//
// After a restart a node's first messages are older than what others remember
// of its previous life, and are ignored; joining, it hears what they remember,
// and refutes it.
//
// # Wire
//
// Packets are UDP on listen.gossip. Streams (the exchange of whole lists, and
// the ping that is tried when packets get lost) go to the peer port, after its
// handshake (package transport): with TLS only a node's certificate opens one.
// Both carry a label, the cluster's name, so that packets of another cluster
// are dropped; Meta carries a hash of the cluster's id, so that two clusters of
// the same name do not merge when addresses are used again.
//
// With gossip.key_file packets and streams are sealed by AES-GCM. The first key
// seals, all of them open; the file is read again while the node runs (keys),
// which is what makes it possible to exchange keys without a gap: add the new
// one everywhere, put it first everywhere, remove the old one everywhere.
//
// Whatever comes in is bounded before memberlist sees it (wire: size of a
// packet, number, bytes and life of streams) and judged before it is believed
// (judge: id, address, versions, Meta, number of members). What is refused is
// counted by reason. Without keys everyone who reaches the UDP port can lie
// about others; with keys, whoever holds one. Sealed bytes of a kind that make
// memberlist panic are not let through to it (stream.judge).
//
// # Seeing the list
//
// memberlist tells its embedder who joined and who is gone, but neither who is
// suspect nor whether somebody left or died, and its node structures change
// under their readers. What it does say exactly is what it sends to a peer that
// exchanges lists with it. So a second, silent memberlist within the process
// (view) does that over a pipe, as often as something happened and at least
// once per interval, and drops what it got after reading it. It introduces
// itself as somebody who has left, which the list ignores. One goroutine looks,
// compares with the last look, tells Options.OnChange and keeps Members. A
// state that comes and goes between two looks is not seen.
//
// Reading the suspicions from memberlist's log, or reaching into its structures
// by unsafe, was dropped: both would break silently.
//
// # Partitions
//
// memberlist forgets the dead after a while, and then nothing joins the halves
// of a partition again. So every node keeps on joining the nodes that the
// address book knows and that it does not hear (rejoin).
package gossip
