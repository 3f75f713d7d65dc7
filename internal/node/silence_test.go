package node

import (
	"testing"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/gossip"
	"kvstore/internal/keyspace"
	"kvstore/internal/transport"
)

// handClock is moved by the test.
type handClock struct {
	env.Clock
	now time.Duration
}

func (c *handClock) Mono() time.Duration { return c.now }

// look asks about a node once per second for a while and returns the last
// answer, as the loop of the balancer would have it.
func (c *handClock) look(s *silence, id keyspace.NodeID, d time.Duration) (last time.Duration) {
	for end := c.now + d; c.now < end; {
		c.now += time.Second
		last = s.of(id)
	}
	return last
}

// silenceOf is that of node a, which is connected to b while up is true and
// hears "heard" by gossip.
func silenceOf(clock *handClock, up *bool) *silence {
	return newSilence("a", func() transport.Stats {
		return transport.Stats{Peers: []transport.PeerStatus{{Node: "b", Up: *up}}}
	}, func(id keyspace.NodeID) gossip.State {
		if id == "heard" {
			return gossip.Alive
		}
		return gossip.Dead
	}, clock)
}

func TestSilence(t *testing.T) {
	clock, up := &handClock{now: time.Hour}, true
	s := silenceOf(clock, &up)
	if got := clock.look(s, "a", 10*time.Minute); got != 0 {
		t.Errorf("this node is silent for %v to itself", got)
	}
	if got := clock.look(s, "b", 10*time.Minute); got != 0 {
		t.Errorf("a connected node is silent for %v", got)
	}
	up = false
	if got := clock.look(s, "b", 2*time.Minute); got != 2*time.Minute {
		t.Errorf("silent for %v, want 2m", got)
	}
	if got := clock.look(s, "never seen", time.Minute); got.Round(time.Second) != 59*time.Second {
		t.Errorf("a node that was never seen is silent for %v, want 59s since it was asked first", got)
	}
	if got := s.of("asked once"); got == 0 {
		t.Error("a node that is not connected counts as alive at the first look")
	}
	if got := clock.look(s, "heard", time.Minute); got != 0 {
		t.Errorf("a node that gossip hears is silent for %v", got)
	}
	up = true
	if got := clock.look(s, "b", time.Second); got != 0 {
		t.Errorf("back, and silent for %v", got)
	}
}

// Nobody looked for an hour, as on a node that did not lead the meta group, or
// that was suspended: what was not seen is no silence.
func TestSilenceIsWhatWasSeen(t *testing.T) {
	clock, up := &handClock{now: time.Hour}, true
	s := silenceOf(clock, &up)
	clock.look(s, "b", time.Minute)
	clock.now += time.Hour
	up = false
	if got := clock.look(s, "b", 10*time.Second); got > 10*time.Second+mostUnseen {
		t.Errorf("silent for %v, seen to be so for 10s", got)
	}
}
