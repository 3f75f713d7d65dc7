package router

import (
	"context"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// What package watch needs of the cluster's metadata.

// WatchedNamespace returns the id of a namespace whose keys can be watched.
func (r *Router) WatchedNamespace(ctx context.Context, name string) (keyspace.NamespaceID, error) {
	ns, _, err := r.resolveNow(ctx, name)
	if err == nil && ns == keyspace.SystemNamespace {
		err = fault.New(fault.Unsupported, "the cluster's own keys cannot be watched", "namespace", name)
	}
	return ns, err
}

// GroupOf returns the group that owns a slot, false before that is known.
func (r *Router) GroupOf(slot keyspace.SlotID) (keyspace.GroupID, bool) {
	return r.o.Directory.Map().GroupOf(slot)
}

// DataGroups returns the groups that own slots, in order; none before they are
// known.
func (r *Router) DataGroups() (groups []keyspace.GroupID) {
	m := r.o.Directory.Map()
	for slot := range keyspace.SlotID(keyspace.SlotCount) {
		if g, ok := m.GroupOf(slot); ok && !slices.Contains(groups, g) {
			groups = append(groups, g)
		}
	}
	slices.Sort(groups)
	return groups
}

// Owned returns the slots that a group owns by the map.
func (r *Router) Owned(g keyspace.GroupID) format.SlotSet { return r.o.Directory.Map().Owned(g) }

// Refresh reads the map again.
func (r *Router) Refresh(ctx context.Context) error { return r.o.Directory.Refresh(ctx) }

// Holders returns the nodes that may have a replica of g, without this one.
func (r *Router) Holders(g keyspace.GroupID) []keyspace.NodeID {
	return slices.DeleteFunc(r.o.Directory.Map().hosts(g), func(id keyspace.NodeID) bool { return id == r.o.Node })
}

// ReadClocks reads the clocks of groups where they are led, moved to at least a
// revision, with one request per node. Groups that did not answer are left out.
func (r *Router) ReadClocks(ctx context.Context, groups []keyspace.GroupID, atLeast keyspace.Revision) []host.ClockReading {
	if !r.hold() {
		return nil
	}
	defer r.wg.Done()
	asks := make([]clockAsk, len(groups))
	for i, g := range groups {
		asks[i].ClockAsk = host.ClockAsk{Group: g, AtLeast: atLeast}
	}
	got := make(map[keyspace.GroupID]clockReading, len(groups))
	r.clockRound(ctx, asks, got)
	out := make([]host.ClockReading, 0, len(got))
	for _, c := range got {
		out = append(out, c.ClockReading)
	}
	return out
}

// PeerError is the fault behind the error of a call to a node, nil for nil.
func PeerError(err error, node keyspace.NodeID) error { return rpcError(err, node) }
