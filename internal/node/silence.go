package node

import (
	"sync"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/gossip"
	"kvstore/internal/keyspace"
	"kvstore/internal/transport"
)

// silence says for how long nobody at this node heard from another one, by
// gossip or by a stream of frames, which only nodes with a group in common have:
// since it was last heard from, or since somebody asked first.
type silence struct {
	peers func() transport.Stats
	state func(keyspace.NodeID) gossip.State
	clock env.Clock

	mu    sync.Mutex
	heard map[keyspace.NodeID]time.Duration // on clock.Mono
}

// of returns 0 for a node that is heard from.
func (s *silence) of(id keyspace.NodeID) time.Duration {
	now, up := s.clock.Mono(), s.up(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.heard[id]
	if up || !known {
		s.heard[id], last = now, now
	}
	return now - last
}

func (s *silence) up(id keyspace.NodeID) bool {
	if s.state(id) == gossip.Alive {
		return true
	}
	for _, p := range s.peers().Peers {
		if p.Node == id {
			return p.Up
		}
	}
	return false
}
