package meta

import (
	"cmp"
	"context"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// HoldGroup cancels a group's move: its voters stay where they are now, until
// it is released or one of their nodes is gone.
func (s *Service) HoldGroup(ctx context.Context, req *api.HoldGroupRequest) (*api.MembersResponse, error) {
	g := keyspace.GroupID(req.GetGroup())
	return s.change(ctx, "target of a group", "", func(ctx context.Context, st *state) error {
		if len(st.view.Members[g]) == 0 {
			return fault.New(fault.NotFound, "the cluster has no such group", "group", g, "limit", st.view.Groups)
		}
		t := st.targets[g]
		if req.GetRelease() {
			if !t.record.Held {
				return fault.New(fault.FailedPrecondition, "the group is not held", "group", g)
			}
			t.record.Held, t.record.Reason = false, "released"
		} else {
			t.record = format.TargetRecord{Nodes: s.heldVoters(&st.view, g), Held: true, Reason: "held"}
		}
		t.record.Since = s.o.Clock.Wall()
		return s.put(ctx, format.SystemTargetKey(g), t.record, atVersion(t.version))
	})
}

// heldVoters are the voters that a group keeps when its move is cancelled, the
// preferred leader first. Between two steps of a move it may have more than it
// should: those stay that answer, then those that are not drained, then those
// that were there before the move, whose replicas are the older ones.
func (s *Service) heldVoters(m *router.Map, g keyspace.GroupID) []keyspace.NodeID {
	voters := slices.DeleteFunc(slices.Clone(m.Members[g]), func(v router.Member) bool { return v.Learner })
	rank := func(v router.Member) int {
		switch {
		case m.Dead[v.Node] || m.Removed[v.Node] || s.o.Silent(v.Node) > 0:
			return 2
		case m.Nodes[v.Node].Draining:
			return 1
		}
		return 0
	}
	order := slices.Clone(voters)
	slices.SortStableFunc(order, func(a, b router.Member) int {
		return cmp.Or(rank(a)-rank(b), cmp.Compare(a.Replica, b.Replica))
	})
	var nodes []keyspace.NodeID
	for _, v := range order {
		if len(nodes) < max(m.ReplicationFactor, 1) && !slices.Contains(nodes, v.Node) {
			nodes = append(nodes, v.Node)
		}
	}
	place := func(id keyspace.NodeID) int { // the preferred leader's, else that among the voters
		if wanted := m.Wanted(g); len(wanted) > 0 && wanted[0] == id {
			return -1
		}
		return slices.IndexFunc(voters, func(v router.Member) bool { return v.Node == id })
	}
	slices.SortStableFunc(nodes, func(a, b keyspace.NodeID) int { return place(a) - place(b) })
	return nodes
}
