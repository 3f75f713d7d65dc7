package sim

import (
	"time"

	"kvstore/internal/engine/mem"
	"kvstore/internal/env/simfs"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// faultWindow is when faults begin; they last longer.
const faultWindow = 8 * time.Second

// planFaults spreads the run's faults over its first seconds.
func (w *World) planFaults() {
	plan := func(n int, f func()) {
		for range n {
			w.after(w.between(time.Second, faultWindow), func() {
				if w.faultsOn {
					f()
				}
			})
		}
	}
	plan(w.cfg.Crashes, w.crashSome)
	plan(w.cfg.Partitions, w.partition)
	plan(w.cfg.Pauses, w.pauseOne)
	plan(w.cfg.ClockJumps, w.jumpClock)
	plan(w.cfg.Wipes, w.wipeOne)
}

// crashSome crashes one node, sometimes all at once.
func (w *World) crashSome() {
	w.stats.Crashes++
	victims := []*node{w.nodes[w.rng.IntN(len(w.nodes))]}
	if w.chance(0.2) {
		victims = w.nodes
	}
	for _, n := range victims {
		n.crash()
		life := n.life
		w.after(w.between(50*time.Millisecond, 3*time.Second), func() {
			if n.life == life && n.host == nil {
				n.boot(false)
			}
		})
	}
}

// partition cuts one node off, in both directions or one.
func (w *World) partition() {
	w.stats.Partitions++
	victim := w.rng.IntN(len(w.nodes))
	in, out := true, true
	if w.chance(0.4) {
		in = w.chance(0.5)
		out = !in
	}
	for i := range w.nodes {
		if i == victim {
			continue
		}
		if in {
			w.cut[[2]int{i, victim}] = true
		}
		if out {
			w.cut[[2]int{victim, i}] = true
		}
	}
	w.after(w.between(300*time.Millisecond, 4*time.Second), func() { clear(w.cut) })
}

func (w *World) pauseOne() {
	w.stats.Pauses++
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	n.paused = w.now + w.between(200*time.Millisecond, 4*time.Second)
}

func (w *World) jumpClock() {
	w.stats.ClockJumps++
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	n.skew = w.rng.Int64N(40_000) - 20_000
}

// wipeOne loses one directory; its replicas are replaced by new ones.
func (w *World) wipeOne() {
	for _, n := range w.nodes {
		if n.host == nil || n.wiped > 0 {
			return // one at a time, and only while the others are whole
		}
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	old := n.id()
	w.stats.Wipes++
	n.crash()
	n.wiped++
	n.disk, n.engine = simfs.New(), mem.Open()
	n.boot(false)
	w.after(time.Second, func() { w.replaceAll(old, n) })
}

// replaceAll asks every group's leader to give the wiped node new replicas,
// again and again until it is done, as the balancer does.
func (w *World) replaceAll(old keyspace.NodeID, n *node) {
	left := false
	for g := range w.cfg.Groups + 1 {
		left = w.replaceIn(keyspace.GroupID(g), old, n) || left
	}
	if left {
		w.after(300*time.Millisecond, func() { w.replaceAll(old, n) })
	}
}

// replaceIn takes the next step in one group; false when nothing is left.
func (w *World) replaceIn(g keyspace.GroupID, old keyspace.NodeID, n *node) bool {
	lead := w.leader(g)
	if lead == nil {
		return true
	}
	var st host.GroupStatus
	for _, s := range lead.host.Groups() {
		if s.Group == g {
			st = s
		}
	}
	var gone, learner keyspace.ReplicaID
	for _, m := range st.Members {
		switch {
		case m.Node == old:
			gone = m.Replica
		case m.Node == n.id() && m.Learner:
			learner = m.Replica
		}
	}
	ignore := func(keyspace.ReplicaID, error) {}
	switch {
	case gone == 0:
		return false
	case learner == 0:
		lead.host.ChangeMembersAsync(g, host.MemberChange{AddLearner: n.id()}, ignore)
	case st.Progress[learner].Match+10 >= st.Commit:
		lead.host.ChangeMembersAsync(g, host.MemberChange{Promote: learner, Replace: gone}, ignore)
	}
	lead.wake()
	return true
}

// leader returns the node that serves a group.
func (w *World) leader(g keyspace.GroupID) *node {
	for _, n := range w.nodes {
		if n.host == nil {
			continue
		}
		for _, s := range n.host.Groups() {
			if s.Group == g && s.Serving {
				return n
			}
		}
	}
	return nil
}
