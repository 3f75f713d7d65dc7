package sim

import (
	"fmt"
	"strings"
	"time"

	"kvstore/internal/balancer"
	"kvstore/internal/engine/mem"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/router"
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
	plan(w.cfg.FullDisks, w.fillDisk)
	plan(w.cfg.Damages, w.damageOne)
	plan(w.cfg.Retargets, w.retarget)
	plan(w.cfg.Stalls, w.stallDisk)
	w.after(time.Second, w.balance)
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
	if w.cfg.Probes {
		w.probe(victim)
	}
}

// probe aims at the moment when a leader that is cut off has not noticed yet
// while another one is elected: it asks the old one to create keys, which it
// refuses when it believes they exist, and deletes them at the new one.
func (w *World) probe(old int) {
	for at := 900 * time.Millisecond; at < 2200*time.Millisecond; at += 20 * time.Millisecond {
		w.after(at, func() {
			g := keyspace.GroupID(1 + w.rng.IntN(w.cfg.Groups))
			w.probeAt(old, g, opCreate)
			for i, n := range w.nodes {
				if st, ok := statusOf(n, g); ok && i != old && st.Role == "leader" {
					w.probeAt(i, g, opDelete)
				}
			}
		})
	}
}

func (w *World) probeAt(node int, g keyspace.GroupID, k kind) {
	c := &client{w: w, id: w.cfg.Clients + node, target: map[keyspace.GroupID]int{g: node}, once: true}
	w.history.values++
	in := input{key: c.key(g), kind: k, value: fmt.Sprintf("v%d", w.history.values)}
	op := operation(in.key, in.value)
	op.Condition.MustNotExist = k == opCreate
	if k == opDelete {
		op.Delete, op.Value = true, nil
	}
	c.submit(g, []input{in}, []replica.Op{op})
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
		if n.host == nil || n.wiped > 0 || n.damaged {
			return // one at a time, and only while the others are whole
		}
	}
	w.wipe(w.nodes[w.rng.IntN(len(w.nodes))])
}

func (w *World) wipe(n *node) {
	w.stats.Wipes++
	n.crash()
	n.wiped++
	n.disk, n.engine = simfs.New(), mem.Open()
	n.boot(false)
}

// balance keeps every group's members as they should be, with the balancer's
// own decisions, as long as the run lasts.
func (w *World) balance() {
	m := &router.Map{ReplicationFactor: min(w.cfg.Nodes, 3), Nodes: make(map[keyspace.NodeID]router.Node),
		Replaced: make(map[keyspace.NodeID]keyspace.NodeID), Targets: w.targets}
	for _, n := range w.nodes {
		n.obeyAdvice()
		m.Nodes[n.id()] = router.Node{ID: n.id(), Witness: n.witness()}
		for life := range n.wiped {
			m.Replaced[nodeID(n.index, life)] = nodeID(n.index, life+1)
		}
	}
	for g := range w.cfg.Groups + 1 {
		w.balanceGroup(keyspace.GroupID(g), m)
	}
	w.after(300*time.Millisecond, w.balance)
}

func (w *World) balanceGroup(g keyspace.GroupID, m *router.Map) {
	for _, n := range w.nodes {
		if n.host != nil && len(w.targets[g].Nodes) > 0 {
			n.host.Guide(g, m.Wanted(g))
		}
	}
	lead := w.leader(g)
	if lead == nil || lead.paused > w.now {
		return
	}
	st, _ := statusOf(lead, g)
	if st.Copies == 1 && len(st.Members) > 1 {
		w.stats.OneCopy++
	}
	if step, ok := balancer.Decide(&st, m); ok {
		if len(st.Lost) > 0 && step.Change.AddLearner != "" {
			w.stats.Rebuilt++
		}
		lead.host.ChangeMembersAsync(g, step.Change, func(_ keyspace.ReplicaID, err error) {
			if err == nil {
				w.stats.Changes++
			}
		})
		lead.wake()
	}
}

// retarget sends a group's voters to nodes drawn anew, as a plan would. Where
// disks are lost, three of them hold a group at least.
func (w *World) retarget() {
	w.stats.Retargets++
	least := 1
	if w.cfg.Wipes+w.cfg.Damages > 0 {
		least = min(3, len(w.nodes))
	}
	order := w.rng.Perm(w.dataNodes())[:least+w.rng.IntN(w.dataNodes()-least+1)]
	var t router.Target
	for _, n := range order {
		t.Nodes = append(t.Nodes, nodeID(n, 0))
	}
	if w.cfg.Witness && len(order)%2 == 0 {
		t.Nodes = append(t.Nodes, nodeID(w.cfg.Nodes-1, 0))
	}
	w.targets[keyspace.GroupID(w.rng.IntN(w.cfg.Groups+1))] = t
}

// fillDisk leaves a node a few kilobytes for a while.
func (w *World) fillDisk() {
	w.stats.FullDisks++
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	disk := n.disk
	n.full = true
	disk.SetCapacity(disk.Used() + w.rng.Int64N(100_000))
	w.after(w.between(500*time.Millisecond, 4*time.Second), func() {
		for _, n := range w.nodes {
			n.disk.SetCapacity(0)
			n.full = false
		}
	})
}

// damageOne crashes a node and flips a bit in its log; what was durable is
// lost there and comes back from the others under new replica ids.
func (w *World) damageOne() {
	for _, n := range w.nodes {
		if n.host == nil || n.wiped > 0 || n.damaged {
			return // one at a time, and only while the others are whole
		}
	}
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	n.damaged = true
	n.crash()
	var logs []string
	for _, f := range n.disk.Files() {
		if strings.HasSuffix(f, ".log") {
			logs = append(logs, f)
		}
	}
	if len(logs) > 0 {
		// The head of a segment, where checkpoints and hard states are.
		if err := n.disk.FlipBit(logs[w.rng.IntN(len(logs))], 512+w.rng.Int64N(8<<10), uint(w.rng.IntN(8))); err == nil {
			w.stats.Damaged++
		}
	}
	n.boot(false)
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
