package host

import "kvstore/internal/keyspace"

// EstimateBytes is about what a group's records take on this node, 0 when it has
// no replica here.
func (h *Host) EstimateBytes(id keyspace.GroupID) int64 {
	g := h.lookup(id)
	if g == nil {
		return 0
	}
	if p := g.published.Load(); p != nil {
		return h.opt.Store.EstimateBytes(p.instance.id)
	}
	return 0
}
