package meta

import (
	"cmp"
	"context"
	"slices"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// Members returns the cluster's nodes, what is expected of them, and where each
// group is and goes.
func (s *Service) Members(ctx context.Context, _ *api.MembersRequest) (*api.MembersResponse, error) {
	if err := s.dir.Refresh(ctx); err != nil {
		return nil, err
	}
	return s.members(), nil
}

// change runs one write of the cluster's metadata against what is stored now,
// again when somebody else was faster, and returns the outcome.
func (s *Service) change(ctx context.Context, what, name string, write func(ctx context.Context, st *state) error) (*api.MembersResponse, error) {
	ctx = system(ctx)
	for range maxRaces {
		if err := s.dir.Refresh(ctx); err != nil {
			return nil, err
		}
		err := write(ctx, s.dir.current.Load())
		if fault.CodeOf(err) == fault.ConditionFailed {
			continue
		}
		if err != nil {
			return nil, err
		}
		return s.Members(ctx, nil)
	}
	return nil, errRaces(what, name)
}

// ExpectNode announces a node that will join under a name, or takes that back.
func (s *Service) ExpectNode(ctx context.Context, req *api.ExpectNodeRequest) (*api.MembersResponse, error) {
	return s.change(ctx, "pending node", req.GetName(), func(ctx context.Context, st *state) error {
		old, known := st.pending[req.GetName()]
		if req.GetCancel() {
			if !known {
				return fault.New(fault.NotFound, "no node of this name is expected", "name", req.GetName())
			}
			return s.remove(ctx, format.SystemPendingKey(req.GetName()))
		}
		if err := checkNodeName(req.GetName()); err != nil {
			return err
		}
		if n, ok := st.member(req.GetName()); ok {
			return fault.New(fault.FailedPrecondition, "a node of this name is a member already", "name", req.GetName(), "node", n.record.ID)
		}
		if !known && len(st.pending) >= maxPending {
			return fault.New(fault.FailedPrecondition, "too many nodes are expected", "limit", maxPending, "actual", len(st.pending))
		}
		record := format.PendingRecord{Name: req.GetName(), Address: req.GetAddress(), Since: s.o.Clock.Wall()}
		return s.put(ctx, format.SystemPendingKey(req.GetName()), record, atVersion(old.version))
	})
}

// maxPending bounds announced nodes.
const maxPending = 100

// checkNodeName holds names to what a node's configuration allows.
func checkNodeName(name string) error {
	ok := name != "" && len(name) <= 63
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.')
	}
	if !ok {
		return fault.New(fault.InvalidArgument, "node names are 1 to 63 of a-z A-Z 0-9 - _ .", "limit", 63, "actual", len(name), "name", name)
	}
	return nil
}

// find returns the member of a name or id.
func (st *state) find(node string) (stored[format.NodeRecord], error) {
	if n, ok := st.member(node); ok {
		return n, nil
	}
	n, ok := st.nodes[keyspace.NodeID(node)]
	if !ok || n.record.ReplacedBy != "" || n.record.Removed != "" {
		return n, fault.New(fault.NotFound, "no member of the cluster has this name or id", "node", node)
	}
	return n, nil
}

// DrainNode moves all replicas away from a node, or takes that back.
func (s *Service) DrainNode(ctx context.Context, req *api.DrainNodeRequest) (*api.MembersResponse, error) {
	return s.change(ctx, "node", req.GetNode(), func(ctx context.Context, st *state) error {
		n, err := st.find(req.GetNode())
		if err != nil {
			return err
		}
		state := format.NodeDraining
		if req.GetUndo() {
			state = format.NodeActive
		} else if err := st.canLeave(n.record); err != nil {
			return err
		}
		return s.setState(ctx, n, state)
	})
}

func (s *Service) setState(ctx context.Context, n stored[format.NodeRecord], state string) error {
	return s.setDrain(ctx, n, state, "")
}

// setDrain changes a node's state and who takes its place.
func (s *Service) setDrain(ctx context.Context, n stored[format.NodeRecord], state string, to keyspace.NodeID) error {
	if n.record.State == state && n.record.DrainTo == to {
		return nil
	}
	s.o.Logger.Info("a node's state changes", "name", n.record.Name, "node", n.record.ID, "from", n.record.State, "to", state, "drain_to", to)
	n.record.State, n.record.DrainTo = state, to
	return s.put(ctx, format.SystemNodeKey(n.record.ID), n.record, atVersion(n.version))
}

// canLeave reports why a node cannot give up what it has.
func (st *state) canLeave(n format.NodeRecord) error {
	for id, other := range st.view.Nodes {
		if id != n.ID && !other.Draining && !other.Witness || n.Role == format.RoleWitness {
			return nil
		}
	}
	return fault.New(fault.FailedPrecondition, "no other node could take the replicas; add one first", "name", n.Name, "node", n.ID)
}

// RemoveNode ends a node's membership for good.
func (s *Service) RemoveNode(ctx context.Context, req *api.RemoveNodeRequest) (*api.MembersResponse, error) {
	return s.change(ctx, "node", req.GetNode(), func(ctx context.Context, st *state) error {
		n, err := st.find(req.GetNode())
		if err != nil {
			return err
		}
		if err := s.canRemove(ctx, st, n.record, req.GetForce()); err != nil {
			return err
		}
		s.o.Logger.Info("a node is removed", "name", n.record.Name, "node", n.record.ID)
		n.record.State, n.record.DrainTo, n.record.Removed = format.NodeActive, "", "by an operator"
		n.record.RemovedAt = s.o.Clock.Wall()
		return s.put(ctx, format.SystemNodeKey(n.record.ID), n.record, atVersion(n.version))
	})
}

// canRemove refuses to remove a node that still holds something: alive ones are
// drained first; of dead ones the groups must have a quorum without them.
func (s *Service) canRemove(ctx context.Context, st *state, n format.NodeRecord, force bool) error {
	if err := st.canLeave(n); err != nil {
		return err
	}
	held := st.view.HeldBy(n.ID)
	switch {
	case len(held) == 0:
		return nil
	case !force:
		return fault.New(fault.FailedPrecondition, "the node holds replicas; drain it first, or force the removal of a dead one",
			"name", n.Name, "node", n.ID, "groups", held)
	case s.o.Alive(ctx, n):
		return fault.New(fault.FailedPrecondition, "the node is running; drain it, only a dead one is removed by force",
			"name", n.Name, "node", n.ID, "groups", held)
	}
	for _, g := range held {
		if !st.quorumWithout(g, n.ID, s.o.Silent) {
			return fault.New(fault.FailedPrecondition, "a group would have no quorum of nodes that are alive; see kvctl cluster recover",
				"name", n.Name, "node", n.ID, "group", g)
		}
	}
	return nil
}

// quorumWithout reports whether the other voters of a group that are alive are
// a quorum of what it has now.
func (st *state) quorumWithout(g keyspace.GroupID, gone keyspace.NodeID, silent func(keyspace.NodeID) time.Duration) bool {
	voters, alive := 0, 0
	for _, m := range st.view.Members[g] {
		if m.Learner {
			continue
		}
		voters++
		if m.Node != gone && silent(m.Node) == 0 {
			alive++
		}
	}
	return alive > voters/2
}

// ReplaceNode drains a node to another: the order is recorded on the node, and
// the placement (package balancer) turns its groups' targets as it does all
// others, a few at a time, whoever leads the metadata.
func (s *Service) ReplaceNode(ctx context.Context, req *api.ReplaceNodeRequest) (*api.MembersResponse, error) {
	return s.change(ctx, "node", req.GetNode(), func(ctx context.Context, st *state) error {
		n, err := st.find(req.GetNode())
		if err != nil {
			return err
		}
		with, err := st.find(req.GetWith())
		switch {
		case err != nil:
			return err
		case n.record.ID == with.record.ID:
			return fault.New(fault.InvalidArgument, "a node cannot replace itself", "name", n.record.Name)
		case n.record.Role != with.record.Role:
			return fault.New(fault.FailedPrecondition, "a witness and a node with data cannot take each other's place",
				"name", n.record.Name, "role", cmp.Or(n.record.Role, format.RoleData), "with", with.record.Name)
		case with.record.State != format.NodeActive:
			return fault.New(fault.FailedPrecondition, "the replacing node is itself being drained", "name", with.record.Name)
		case s.o.Silent(with.record.ID) > 0:
			return fault.New(fault.FailedPrecondition, "the replacing node is not connected", "name", with.record.Name, "node", with.record.ID)
		}
		return s.setDrain(ctx, n, format.NodeDraining, with.record.ID)
	})
}

// Configure changes the replication factor, how replicas may be moved and how
// many data groups there should be.
func (s *Service) Configure(ctx context.Context, req *api.ConfigureRequest) (*api.MembersResponse, error) {
	if err := checkConfigure(req); err != nil {
		return nil, err
	}
	return s.change(ctx, "cluster record", "", func(ctx context.Context, st *state) error {
		var writes []*api.PutRequest
		if f := req.ReplicationFactor; f != nil && int(*f) != st.cluster.record.ReplicationFactor {
			if st.cluster.version == 0 {
				return fault.New(fault.Unavailable, "the cluster's record is not written yet")
			}
			c := st.cluster.record
			c.ReplicationFactor = int(*f)
			writes = append(writes, item(format.SystemClusterKey, c, atVersion(st.cluster.version)))
		}
		b := st.balance.record
		if req.Paused != nil {
			b.Paused = *req.Paused
		}
		if req.MaxMoves != nil {
			b.MaxMoves = int(*req.MaxMoves)
		}
		if req.CopyRate != nil {
			b.CopyRate = int64(*req.CopyRate)
		}
		if req.Groups != nil {
			if *req.Groups < uint32(st.view.Groups) {
				return fault.New(fault.FailedPrecondition, "the number of data groups only grows",
					"limit_min", st.view.Groups, "actual", *req.Groups)
			}
			b.Groups = int(*req.Groups)
		}
		if req.Split != "" {
			b.SplitOff = req.Split == splitOff
		}
		if req.HoldSlots != nil {
			b.HoldSlots = *req.HoldSlots
		}
		if b != st.balance.record {
			writes = append(writes, item(format.SystemBalanceKey, b, atVersion(st.balance.version)))
		}
		if len(writes) == 0 {
			return nil
		}
		return s.putAll(ctx, writes...)
	})
}

// Bounds of what Configure takes.
const (
	mostMoves = 64
	leastRate = 64 << 10
	mostRate  = 100 << 30
)

func checkConfigure(req *api.ConfigureRequest) error {
	if f := req.ReplicationFactor; f != nil && (*f != 1 && *f != 3 && *f != 5) {
		return fault.New(fault.InvalidArgument, "the replication factor is 1, 3 or 5", "actual", *f)
	}
	if n := req.MaxMoves; n != nil && (*n < 1 || *n > mostMoves) {
		return fault.New(fault.InvalidArgument, "groups that move at a time are 1 to the limit", "limit", mostMoves, "actual", *n)
	}
	if r := req.CopyRate; r != nil && (*r < leastRate || *r > mostRate) {
		return fault.New(fault.InvalidArgument, "bytes per second of copies are out of range", "limit_min", leastRate, "limit", int64(mostRate), "actual", *r)
	}
	if n := req.Groups; n != nil && (*n < 1 || *n > format.MaxGroups) {
		return fault.New(fault.InvalidArgument, "data groups are 1 to the limit", "limit", format.MaxGroups, "actual", *n)
	}
	if s := req.Split; s != "" && s != splitAuto && s != splitOff {
		return fault.New(fault.InvalidArgument, "split is auto or off", "actual", s)
	}
	return nil
}

// members describes the current copy.
func (s *Service) members() *api.MembersResponse {
	st := s.dir.current.Load()
	m := &st.view
	out := &api.MembersResponse{
		ClusterId: m.ClusterID, ClusterName: m.ClusterName, ReplicationFactor: uint32(m.ReplicationFactor),
		Balance: balanceSettings(m), RecoveryEpoch: m.RecoveryEpoch,
	}
	out.Groups = placements(m)
	describeSlots(m, out)
	for _, n := range m.Nodes {
		out.Nodes = append(out.Nodes, s.clusterNode(m, n))
	}
	slices.SortFunc(out.Nodes, func(a, b *api.ClusterNode) int { return cmp.Compare(a.Info.Name, b.Info.Name) })
	out.Pending = pendingChanges(st)
	return out
}

func (s *Service) clusterNode(m *router.Map, n router.Node) *api.ClusterNode {
	c := &api.ClusterNode{Info: n.Info(), State: "active", Weight: cmp.Or(n.Weight, 1), LeaderPriority: int32(n.Priority)}
	if n.Draining {
		c.State = format.NodeDraining
		c.DrainTo = m.Nodes[m.Successor(n.DrainTo)].Name
	}
	if m.Dead[n.ID] {
		c.State = "dead"
	}
	if n.ID != s.o.Self.ID {
		c.SilentMs = uint64(s.o.Silent(n.ID).Milliseconds())
	}
	c.Info.Healthy = c.SilentMs == 0
	c.Replicas = uint32(len(m.HeldBy(n.ID)))
	for g := range keyspace.GroupID(m.Groups + 1) {
		nodes := m.Wanted(g)
		if slices.Contains(nodes, n.ID) {
			c.TargetReplicas++
		}
		if len(nodes) > 0 && nodes[0] == n.ID {
			c.PreferredLeads++
		}
	}
	return c
}

func placements(m *router.Map) []*api.GroupPlacement {
	var out []*api.GroupPlacement
	for g := range keyspace.GroupID(m.Groups + 1) {
		p := &api.GroupPlacement{Group: uint32(g), Held: m.Targets[g].Held, Reason: m.Targets[g].Reason, SinceMs: m.Targets[g].Since}
		slots := m.Owned(g)
		p.Slots = uint32(slots.Count())
		for _, member := range m.Members[g] {
			p.Replicas = append(p.Replicas, member.Info())
		}
		for _, u := range m.GivenUp[g] {
			p.GivenUp = append(p.GivenUp, &api.GivenUpCopy{NodeId: string(u.Node), Reason: u.Reason, SinceMs: u.Since, UntilMs: u.Until})
		}
		for _, id := range m.Wanted(g) {
			p.Target = append(p.Target, string(id))
		}
		out = append(out, p)
	}
	return out
}

// pendingChanges are S3.12's pending_config: nodes that are expected, and those
// that leave.
func pendingChanges(st *state) []*api.PendingChange {
	var out []*api.PendingChange
	for _, p := range st.pending {
		out = append(out, &api.PendingChange{Operation: "add_node", NodeId: p.record.Name, Address: p.record.Address, Role: "voter"})
	}
	for _, n := range st.view.Nodes {
		if n.Draining {
			out = append(out, &api.PendingChange{Operation: "remove_node", NodeId: n.Name, Address: n.Peer, Role: "voter"})
		}
	}
	slices.SortFunc(out, func(a, b *api.PendingChange) int { return cmp.Compare(a.NodeId, b.NodeId) })
	return out
}
