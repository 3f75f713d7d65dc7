package host

import (
	"slices"
	"time"

	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// clockSample is a peer's clock as its last frame showed it.
type clockSample struct {
	offsetMS int64 // peer's wall clock minus ours when it arrived
	at       time.Duration
}

// clockFresh is how old a sample may be.
const clockFresh = 2 * time.Second

func (h *Host) observeClock(from keyspace.NodeID, clockMS int64) {
	if clockMS != 0 {
		h.peers[from] = clockSample{offsetMS: clockMS - h.opt.Clock.Wall(), at: h.opt.Clock.Mono()}
	}
}

// now reads the clocks for a group: the node's wall clock clipped to the
// median of a fresh quorum of its voters' clocks, plus or minus
// MaxClockOffset. Without a quorum there is no physical time, group time only
// counts (DESIGN 6).
func (h *Host) now(g *group) replica.Now {
	mono := h.opt.Clock.Mono()
	median, quorum := h.clockMedian(g, mono)
	if !quorum {
		return replica.Now{Mono: mono}
	}
	limit := h.opt.MaxClockOffset.Milliseconds()
	return replica.Now{Physical: h.opt.Clock.Wall() + min(max(0, median-limit), median+limit), Mono: mono}
}

// clockMedian is how far the median of the voters' clocks is ahead of ours, in
// milliseconds; quorum is false when too few were heard of lately.
func (h *Host) clockMedian(g *group, mono time.Duration) (median int64, quorum bool) {
	var buf [8]int64
	offsets := buf[:0]
	voters := 0
	for _, m := range g.core.State().Members {
		if m.Learner {
			continue
		}
		voters++
		if m.Replica == g.replica {
			offsets = append(offsets, 0)
		} else if s, ok := h.peers[m.Node]; ok && mono-s.at <= clockFresh {
			offsets = append(offsets, s.offsetMS)
		}
	}
	if len(offsets) < voters/2+1 {
		return 0, false
	}
	slices.Sort(offsets)
	return offsets[len(offsets)/2], true
}

// clockOff reports whether a member's clock, ours for the own replica, is too
// far from the median to lead.
func (h *Host) clockOff(g *group, id keyspace.ReplicaID) bool {
	mono := h.opt.Clock.Mono()
	median, quorum := h.clockMedian(g, mono)
	if !quorum {
		return false
	}
	var offset int64
	if id != g.replica {
		s, ok := h.peers[g.nodes[id]]
		if !ok || mono-s.at > clockFresh {
			return false
		}
		offset = s.offsetMS
	}
	limit := h.opt.MaxClockOffset.Milliseconds()
	return offset-median > limit || median-offset > limit
}
