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
// gossip or by a stream of frames, which only nodes with a group in common have,
// and as far as somebody looked: replicas are moved for it, so what was not seen
// does not count. A node that leads the meta group again after hours, or that was
// suspended, last looked long ago; of such a time only mostUnseen counts.
type silence struct {
	self  keyspace.NodeID
	peers func() transport.Stats
	state func(keyspace.NodeID) gossip.State
	clock env.Clock

	mu   sync.Mutex
	seen map[keyspace.NodeID]look
}

// look is the last one at a node.
type look struct {
	at     time.Duration // on clock.Mono
	silent time.Duration
}

const (
	// mostUnseen is what the time between two looks counts at most.
	mostUnseen = 10 * time.Second
	// leastSilence is that of a node that is not heard from at the first look:
	// who asks whether a quorum is alive must not count it.
	leastSilence = time.Millisecond
)

func newSilence(self keyspace.NodeID, peers func() transport.Stats, state func(keyspace.NodeID) gossip.State, clock env.Clock) *silence {
	return &silence{self: self, peers: peers, state: state, clock: clock, seen: make(map[keyspace.NodeID]look)}
}

// of returns 0 for a node that is heard from, and for this one, which is no
// peer of its own.
func (s *silence) of(id keyspace.NodeID) time.Duration {
	if id == s.self {
		return 0
	}
	now, up := s.clock.Mono(), s.up(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	last, known := s.seen[id]
	next := look{at: now}
	switch {
	case up:
	case known:
		next.silent = max(leastSilence, last.silent+min(max(0, now-last.at), mostUnseen))
	default:
		next.silent = leastSilence
	}
	s.seen[id] = next
	return next.silent
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
