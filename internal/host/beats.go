package host

import (
	"maps"
	"slices"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/keyspace"
)

// readBeats let a leader ask only as many followers to confirm a read as a
// quorum needs.
//
// Raft sends a heartbeat with the read's context to every member, and each
// answer costs both sides a loop; in a group of three, one answer is a quorum. So
// the heartbeats to the others wait. They are dropped when the confirmation is
// there, and sent when it is not after beatPatience; then others are asked first
// from there on. Heartbeats of a tick go to all, so that nothing but a read's
// latency depends on this, and a lost message is one as any other.
type readBeats struct {
	held map[keyspace.ReplicaID]*raftpb.Message
	all  time.Duration // when everybody was asked last
	turn int           // where the search for a quorum begins
	// asked is the quorum without this replica, for of and turn.
	asked []uint64
	of    *voters
	at    int
}

// beatPatience is how long a confirmation may take before everybody is asked.
const beatPatience = 5 * time.Millisecond

// holdBeat keeps m back if it asks a follower who is not needed.
func (h *Host) holdBeat(g *group, m *raftpb.Message) bool {
	if m.GetType() != raftpb.MsgHeartbeat || len(m.GetContext()) == 0 {
		return false
	}
	to := keyspace.ReplicaID(m.GetTo())
	delete(g.beats.held, to)
	if h.ticked || slices.Contains(g.askedFirst(), m.GetTo()) {
		return false
	}
	if g.beats.held == nil {
		g.beats.held = make(map[keyspace.ReplicaID]*raftpb.Message)
	}
	g.beats.held[to] = m
	return true
}

// askedFirst returns the followers that make a quorum with this replica.
func (g *group) askedFirst() []uint64 {
	b, v := &g.beats, g.membership()
	if b.of == v && b.at == b.turn {
		return b.asked
	}
	b.of, b.at, b.asked = v, b.turn, nil
	ids := slices.Concat(v.GetVoters(), v.GetVotersOutgoing())
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id uint64) bool { return id == uint64(g.replica) })
	with := []uint64{uint64(g.replica)}
	for i := range ids {
		if !g.quorum(with...) {
			with = append(with, ids[(b.turn+i)%len(ids)])
		}
	}
	b.asked = with[1:]
	return b.asked
}

// releaseBeats asks everybody where a confirmation took too long.
func (h *Host) releaseBeats() {
	now := h.opt.Clock.Mono()
	for _, g := range h.order {
		b := &g.beats
		at, held := g.beatsAt()
		if !held || now < at {
			continue
		}
		b.turn++
		b.all = now
		for _, to := range slices.Sorted(maps.Keys(b.held)) {
			m := b.held[to]
			if node := g.nodes[to]; node != "" && m.GetTerm() == uint64(g.term) {
				h.sendRaft(g, node, m)
			}
		}
		clear(b.held)
	}
}

// beatsAt is when the held heartbeats go out; held is false when none does. What counts is
// the oldest confirmation under way, and that everybody had time to answer.
func (g *group) beatsAt() (at time.Duration, held bool) {
	if len(g.beats.held) == 0 {
		return 0, false
	}
	for _, b := range g.reads.batches {
		if !b.remote && (!held || b.at < at) {
			at, held = b.at, true
		}
	}
	return max(at, g.beats.all) + beatPatience, held
}

// beatsDue is how long the first of the held heartbeats still waits, 0 when
// none does.
func (h *Host) beatsDue() time.Duration {
	var first time.Duration
	now := h.opt.Clock.Mono()
	for _, g := range h.order {
		at, held := g.beatsAt()
		if left := max(time.Microsecond, at-now); held && (first == 0 || left < first) {
			first = left
		}
	}
	return first
}
