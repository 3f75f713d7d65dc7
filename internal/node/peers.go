package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"kvstore/internal/config"
	"kvstore/internal/keyspace"
	"kvstore/internal/transport"
)

// addressBook tells the transport where other nodes are. Three sources, later
// ones winning: what this node knew when it ran last (peers.json), the
// cluster's metadata, and the configured address of a first member for the
// newest node of that name, so that a whole cluster can be moved to other
// addresses by its configuration.
type addressBook struct {
	self      keyspace.NodeID
	file      string
	fixed     map[string]string // name -> configured peer address
	transport *transport.Transport
	logger    *slog.Logger
	// name returns the name of a node in the cluster's metadata.
	name func(keyspace.NodeID) string
	// selfGone is told that this node does not belong to the cluster any more.
	selfGone func(text string)

	mu    sync.Mutex
	peers map[keyspace.NodeID]peerAddress
}

type peerAddress struct {
	Name string `json:"name"`
	Peer string `json:"peer"`
}

func openAddressBook(c *config.Config, self keyspace.NodeID, t *transport.Transport, name func(keyspace.NodeID) string, logger *slog.Logger) *addressBook {
	b := &addressBook{
		self: self, file: filepath.Join(c.Node.DataDir, "peers.json"), fixed: map[string]string{},
		transport: t, logger: logger, name: name, peers: map[keyspace.NodeID]peerAddress{},
	}
	for _, m := range c.Membership {
		b.fixed[m.NodeID] = m.Address
	}
	text, err := os.ReadFile(b.file)
	if errors.Is(err, fs.ErrNotExist) {
		return b
	}
	if err == nil {
		err = json.Unmarshal(text, &b.peers)
	}
	if err != nil { // it is a cache: what it knew is learned again
		logger.Warn("address book is not usable", "file", b.file, "error", err)
	}
	if err != nil || b.peers == nil { // null is JSON
		b.peers = map[keyspace.NodeID]peerAddress{}
	}
	for id, p := range b.peers {
		b.connect(id, p)
	}
	return b
}

// connect hands one address to the transport.
func (b *addressBook) connect(id keyspace.NodeID, p peerAddress) {
	if id == b.self || p.Peer == "" {
		return
	}
	if err := b.transport.SetPeer(id, p.Peer); err != nil {
		b.logger.Warn("peer cannot be reached", "node", id, "name", p.Name, "address", p.Peer, "error", err)
	}
}

// add records nodes beside those known.
func (b *addressBook) add(nodes map[keyspace.NodeID]peerAddress) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := maps.Clone(b.peers)
	maps.Copy(next, nodes)
	b.replace(next)
}

// SetPeer records where a node is, as the cluster's metadata says.
func (b *addressBook) SetPeer(id keyspace.NodeID, addr string) error {
	name := b.name(id)
	if fixed := b.fixed[name]; fixed != "" {
		addr = fixed
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	next := maps.Clone(b.peers)
	next[id] = peerAddress{Name: name, Peer: addr}
	b.replace(next)
	return nil
}

// RemovePeer forgets a node that does not belong to the cluster any more.
func (b *addressBook) RemovePeer(id keyspace.NodeID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := maps.Clone(b.peers)
	delete(next, id)
	b.replace(next)
}

// SetGone names the nodes that do not belong to the cluster any more.
func (b *addressBook) SetGone(gone map[keyspace.NodeID]string) {
	b.transport.SetGone(gone)
	if text := gone[b.self]; text != "" {
		b.selfGone(text)
	}
}

// replace is called with mu held.
func (b *addressBook) replace(next map[keyspace.NodeID]peerAddress) {
	if maps.Equal(next, b.peers) {
		return
	}
	for id := range b.peers {
		if _, stays := next[id]; !stays {
			b.transport.RemovePeer(id)
		}
	}
	for id, p := range next {
		b.connect(id, p)
	}
	b.peers = next
	if err := b.save(); err != nil {
		b.logger.Warn("address book was not saved", "error", err)
	}
}

func (b *addressBook) save() error {
	text, err := json.MarshalIndent(b.peers, "", "  ")
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	tmp := b.file + ".new"
	if err := os.WriteFile(tmp, append(text, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, b.file)
}
