package sim

import (
	"slices"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// stallLimit is how long a leader may lead on a disk that does not answer (G4).
const stallLimit = 2 * time.Second

// stallDisk keeps a leader's disk, or any, from answering for a while.
func (w *World) stallDisk() {
	w.stats.Stalls++
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	if lead := w.leader(keyspace.GroupID(w.rng.IntN(w.cfg.Groups + 1))); lead != nil && w.chance(0.8) {
		n = lead
	}
	n.stuck = w.now + w.between(500*time.Millisecond, 6*time.Second)
	w.watchStall(n, n.life, w.now, leads(n))
}

// watchStall requires that a node whose sync does not end leads no longer than
// it may, as long as others can lead.
func (w *World) watchStall(n *node, life int, since time.Duration, led int) {
	if n.life != life || n.host == nil {
		return
	}
	if w.disturbed(n) {
		w.calm = w.now
	}
	if n.stuck <= w.now {
		w.stats.Handovers += max(0, led-leads(n))
		return
	}
	if n.host.SyncRunning() > stallLimit && w.now-max(w.calm, since) > stallLimit {
		for _, s := range n.host.Groups() {
			if s.Role == "leader" && w.whole(&s) {
				w.problem("node %d leads group %d while a sync runs for %v", n.index, s.Group, n.host.SyncRunning())
			}
		}
	}
	w.after(tick/2, func() { w.watchStall(n, life, since, led) })
}

// disturbed reports whether anything is wrong but the disk of n.
func (w *World) disturbed(n *node) bool {
	if len(w.cut) > 0 || n.paused > w.now {
		return true
	}
	for _, o := range w.nodes {
		if o != n && (o.host == nil || o.paused > w.now || o.stuck > w.now || o.full) {
			return true
		}
	}
	return n.full
}

// whole reports whether all members of a group are there, and a quorum without
// this one: who is needed for it leads on.
func (w *World) whole(s *host.GroupStatus) bool {
	if others := len(s.Members) - 1; others <= len(s.Members)/2 {
		return false
	}
	if data := slices.DeleteFunc(slices.Clone(s.Members), format.Member.Witness); len(data) < 2 {
		return false // nobody else may lead
	}
	for _, m := range s.Members {
		i, wiped := w.find(m.Node)
		if wiped || m.Learner {
			return false
		}
		if o, ok := statusOf(w.nodes[i], s.Group); !ok || o.Replica != m.Replica || o.Role == "quarantined" {
			return false
		}
	}
	return true
}

func leads(n *node) (groups int) {
	if n.host == nil {
		return 0
	}
	for _, s := range n.host.Groups() {
		if s.Role == "leader" {
			groups++
		}
	}
	return groups
}
