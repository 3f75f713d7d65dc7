package balancer

import (
	"slices"

	"kvstore/internal/keyspace"
	"kvstore/internal/placement"
	"kvstore/internal/router"
)

// handedOver is present with the replacements of drained nodes in their places,
// for the plan to go on from: what it leaves so is then written as the targets
// of a few groups at a time, like all that moves. Zones and evenness may still
// send a replica elsewhere. A group that an operator holds stays as it is, and
// so does one that has a replica on the replacement: it takes no second.
func handedOver(m *router.Map, present []placement.Present) []placement.Present {
	out := slices.Clone(present)
	for i, p := range out {
		if m.Targets[p.Group].Held {
			continue
		}
		for at, name := range p.Replicas {
			to, ok := replacement(m, name)
			if !ok || slices.Contains(out[i].Replicas, to) {
				continue
			}
			out[i].Replicas = slices.Clone(out[i].Replicas)
			out[i].Replicas[at] = to
		}
	}
	return out
}

// replacement is the node that takes the place of a drained one, while it can.
func replacement(m *router.Map, name string) (to string, ok bool) {
	n := m.Nodes[keyspace.NodeID(name)]
	if !n.Draining || n.DrainTo == "" {
		return "", false
	}
	id := m.Successor(n.DrainTo)
	other, member := m.Nodes[id]
	return string(id), member && !other.Draining && !m.Dead[id]
}

// replaces reports whether a change puts a replacement where a drained node was.
func replaces(m *router.Map, old, next []string) bool {
	return slices.ContainsFunc(old, func(name string) bool {
		to, ok := replacement(m, name)
		return ok && !slices.Contains(next, name) && !slices.Contains(old, to) && slices.Contains(next, to)
	})
}
