package router

import (
	"sync"

	"kvstore/internal/keyspace"
)

// hints remembers who was last said to lead groups that are not hosted here.
type hints struct {
	leaders sync.Map // keyspace.GroupID -> keyspace.NodeID
}

func (h *hints) get(g keyspace.GroupID) (keyspace.NodeID, bool) {
	v, ok := h.leaders.Load(g)
	if !ok {
		return "", false
	}
	return v.(keyspace.NodeID), true
}

func (h *hints) set(g keyspace.GroupID, node keyspace.NodeID) {
	if old, ok := h.get(g); !ok || old != node {
		h.leaders.Store(g, node)
	}
}

// drop forgets node as leader of g, unless another was named meanwhile.
func (h *hints) drop(g keyspace.GroupID, node keyspace.NodeID) {
	h.leaders.CompareAndDelete(g, node)
}

// Leader returns the node that leads g as far as this node knows.
func (r *Router) Leader(g keyspace.GroupID) (keyspace.NodeID, bool) {
	if node, local, known := r.o.Host.Leader(g); known {
		if local {
			return r.o.Node, true
		}
		return node, true
	}
	return r.hints.get(g)
}
