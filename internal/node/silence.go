package node

import (
	"sync"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/keyspace"
	"kvstore/internal/transport"
)

// silence says for how long nobody at this node heard from another one: since
// it was last seen connected, or since somebody asked first.
type silence struct {
	peers func() transport.Stats
	clock env.Clock

	mu    sync.Mutex
	heard map[keyspace.NodeID]time.Duration // on clock.Mono
}

// of returns 0 for a node that is connected.
func (s *silence) of(id keyspace.NodeID) time.Duration {
	now := s.clock.Mono()
	up := false
	for _, p := range s.peers().Peers {
		if p.Node == id {
			up = p.Up
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.heard[id]
	if up || !known {
		s.heard[id], last = now, now
	}
	return now - last
}
