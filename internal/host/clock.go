package host

import (
	"slices"
	"time"

	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// clockSample is a peer's clock as its last frame showed it. Clocks are compared
// with this node's monotonic one, which nobody sets: so a jump of this node's own
// wall clock shows at its next reading, not when peers are next heard of.
type clockSample struct {
	ahead int64 // of the monotonic clock, in milliseconds, when it arrived
	at    time.Duration
}

// clockFresh is how old a sample may be.
const clockFresh = 2 * time.Second

func (h *Host) observeClock(from keyspace.NodeID, clockMS int64) {
	if clockMS != 0 {
		mono := h.opt.Clock.Mono()
		h.peers[from] = clockSample{ahead: clockMS - mono.Milliseconds(), at: mono}
	}
}

// ownClock is how far the wall clock is ahead of the monotonic one, in milliseconds.
func (h *Host) ownClock(mono time.Duration) int64 { return h.opt.Clock.Wall() - mono.Milliseconds() }

// now reads the clocks for a group: the node's wall clock clipped to the
// median of a fresh quorum of its voters' clocks, plus or minus
// MaxClockOffset. Without a quorum there is no physical time, group time only
// counts (DESIGN 6).
func (h *Host) now(g *group) replica.Now {
	mono := h.opt.Clock.Mono()
	own := h.ownClock(mono)
	median, quorum := h.clockMedian(g, own, mono)
	if !quorum {
		return replica.Now{Mono: mono}
	}
	limit := h.opt.MaxClockOffset.Milliseconds()
	return g.core.Still(replica.Now{Physical: mono.Milliseconds() + min(max(own, median-limit), median+limit), Mono: mono})
}

// clockMedian is how far the median of the voters' clocks is ahead of the
// monotonic one, in milliseconds; quorum is false when too few were heard of lately.
func (h *Host) clockMedian(g *group, own int64, mono time.Duration) (median int64, quorum bool) {
	var buf [8]int64
	clocks := buf[:0]
	voters := 0
	for _, m := range g.core.State().Members {
		if m.Learner {
			continue
		}
		voters++
		if m.Replica == g.replica {
			clocks = append(clocks, own)
		} else if s, ok := h.peers[m.Node]; ok && mono-s.at <= clockFresh {
			clocks = append(clocks, s.ahead)
		}
	}
	if len(clocks) < voters/2+1 {
		return 0, false
	}
	slices.Sort(clocks)
	return clocks[len(clocks)/2], true
}

// noticeClock looks how far this node's clock is from the median of all clocks
// that were heard of lately, its own included, for those who ask.
func (h *Host) noticeClock(mono time.Duration) {
	own := h.ownClock(mono)
	clocks := append(make([]int64, 0, len(h.peers)+1), own)
	for _, s := range h.peers {
		if mono-s.at <= clockFresh {
			clocks = append(clocks, s.ahead)
		}
	}
	slices.Sort(clocks)
	h.clockAhead.Store(own - clocks[len(clocks)/2])
}

// ClockAhead returns how far this node's clock is ahead of the median of its
// peers' and its own, and whether that is too far to lead. Any goroutine may ask.
func (h *Host) ClockAhead() (ahead time.Duration, off bool) {
	ahead = time.Duration(h.clockAhead.Load()) * time.Millisecond
	return ahead, ahead.Abs() > h.opt.MaxClockOffset
}

// clockOff reports whether a member's clock, ours for the own replica, is too
// far from the median to lead.
func (h *Host) clockOff(g *group, id keyspace.ReplicaID) bool {
	mono := h.opt.Clock.Mono()
	clock := h.ownClock(mono)
	median, quorum := h.clockMedian(g, clock, mono)
	if !quorum {
		return false
	}
	if id != g.replica {
		s, ok := h.peers[g.nodes[id]]
		if !ok || mono-s.at > clockFresh {
			return false
		}
		clock = s.ahead
	}
	return max(clock-median, median-clock) > h.opt.MaxClockOffset.Milliseconds()
}
