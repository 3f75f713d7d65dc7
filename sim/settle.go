package sim

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// settled reports whether every group has a serving leader and all its members
// have applied the same.
func (w *World) settled() bool {
	for g := range w.cfg.Groups + 1 {
		if !w.groupSettled(keyspace.GroupID(g)) {
			return false
		}
	}
	return w.slotsSettled()
}

func (w *World) groupSettled(g keyspace.GroupID) bool {
	lead := w.leader(g)
	if lead == nil {
		return false
	}
	st, _ := statusOf(lead, g)
	if st.Applied != st.Commit {
		return false
	}
	if len(st.Lost) > 0 || len(st.Prepared) > 0 {
		return false
	}
	if t := w.targets[g].Nodes; len(t) > 0 && len(t) != len(st.Members) {
		return false
	}
	if w.strays(g, st.Members) {
		return false
	}
	for _, m := range st.Members {
		i, wiped := w.find(m.Node)
		if wiped || m.Learner || !w.targeted(g, i) {
			return false
		}
		other, ok := statusOf(w.nodes[i], g)
		if !ok || other.Role == "quarantined" || other.Applied != st.Applied && !m.Witness() {
			return false
		}
	}
	return true
}

// strays reports whether a node still has a replica that is no member: one that
// was away while it was removed must learn of it.
func (w *World) strays(g keyspace.GroupID, members []format.Member) bool {
	for _, n := range w.nodes {
		st, ok := statusOf(n, g)
		if ok && !slices.ContainsFunc(members, func(m format.Member) bool { return m.Replica == st.Replica }) {
			return true
		}
	}
	return false
}

// targeted reports whether a group should have a voter on a node.
func (w *World) targeted(g keyspace.GroupID, node int) bool {
	t := w.targets[g].Nodes
	return len(t) == 0 || slices.Contains(t, nodeID(node, 0))
}

func statusOf(n *node, g keyspace.GroupID) (host.GroupStatus, bool) {
	if n.host == nil {
		return host.GroupStatus{}, false
	}
	for _, s := range n.host.Groups() {
		if s.Group == g {
			return s, true
		}
	}
	return host.GroupStatus{}, false
}

// checkReplicas requires equal state at equal index.
func (w *World) checkReplicas() {
	for g := range w.cfg.Groups + 1 {
		id := keyspace.GroupID(g)
		byIndex := make(map[keyspace.Index]host.Digest)
		for _, n := range w.nodes {
			if _, ok := statusOf(n, id); !ok || n.witness() {
				continue
			}
			d, err := n.host.StateHash(context.Background(), id)
			if err != nil {
				w.problem("node %d group %d: hashing: %v", n.index, id, err)
				continue
			}
			if seen, ok := byIndex[d.Index]; ok && seen != d {
				w.problem("group %d: replicas differ at index %d: %x (%d keys) and %x (%d keys) on node %d",
					id, d.Index, seen.Hash, seen.Keys, d.Hash, d.Keys, n.index)
			}
			byIndex[d.Index] = d
			w.note("digest", uint64(d.Index), d.Hash)
		}
	}
}

func (w *World) describe() string {
	var b strings.Builder
	for g, t := range w.targets {
		fmt.Fprintf(&b, "g%d to %v; ", g, t.Nodes)
	}
	for _, n := range w.nodes {
		if n.host == nil {
			fmt.Fprintf(&b, "node %d down; ", n.index)
			continue
		}
		for _, s := range n.host.Groups() {
			fmt.Fprintf(&b, "n%d/g%d %s term %d applied %d/%d leader %d members %v; ", n.index, s.Group, s.Role, s.Term, s.Applied, s.Commit, s.Leader, s.Members)
		}
	}
	return b.String()
}
