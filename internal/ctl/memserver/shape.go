package memserver

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

const otherID = "33333333-3333-4333-8333-333333333333"

// shape is the Cluster service: node-1 holds groups 0 and 1, and group 1 is
// being copied to node-2. Nothing moves by itself.
type shape struct {
	api.UnimplementedClusterServer
	s *Server
	m *api.MembersResponse // guarded by s.mu
}

func newShape(s *Server) *shape {
	other := &api.NodeInfo{Id: otherID, Name: "node-2", Http: "127.0.0.1:8082", Grpc: "127.0.0.1:7002", Peer: "127.0.0.1:7948", Zone: "z2"}
	return &shape{s: s, m: &api.MembersResponse{
		ClusterId: "22222222-2222-4222-8222-222222222222", ClusterName: "mem", ReplicationFactor: 1, RecoveryEpoch: 2,
		Nodes: []*api.ClusterNode{
			{Info: s.node(), State: "active", Weight: 1, Replicas: 2, TargetReplicas: 1, PreferredLeads: 1},
			{Info: other, State: "active", Weight: 1.5, LeaderPriority: -1, Replicas: 1, TargetReplicas: 1, PreferredLeads: 1, SilentMs: 95_000},
		},
		Groups: []*api.GroupPlacement{
			{Group: 0, Replicas: []*api.ReplicaInfo{voterHere()}, Target: []string{nodeID}},
			{Group: 1, Replicas: []*api.ReplicaInfo{voterHere(), learnerThere()}, Target: []string{otherID}, Reason: "balance", SinceMs: milli(firstRevision),
				GivenUp: []*api.GivenUpCopy{{NodeId: otherID, Reason: "no progress for 2m0s", SinceMs: milli(firstRevision)}}},
		},
		Balance:   &api.BalanceSettings{MaxMoves: 2, CopyRate: 20 << 20, GroupsWanted: 2, Split: "auto"},
		SlotEpoch: 3,
		SlotOwners: []*api.SlotOwner{
			{Group: 1, Slots: "0-2999", Count: 3000}, {Group: 2, Slots: "3000-4095", Count: 1096},
		},
		SlotMoves: []*api.SlotMove{
			{Id: 4, From: 1, To: 2, Slots: "2048-2999", Count: 952, SinceMs: milli(firstRevision), Reason: "growth"},
		},
	}}
}

func voterHere() *api.ReplicaInfo {
	return &api.ReplicaInfo{Replica: 1, NodeId: nodeID, Role: "voter", Match: 42, Active: true}
}

func learnerThere() *api.ReplicaInfo {
	return &api.ReplicaInfo{Replica: 2, NodeId: otherID, Role: "learner", Active: true, CopiedBytes: 3 << 20, CopyBytes: 4 << 20, CopyRate: 512 << 10}
}

// moves are what the node says of the moves of slots that it drives; called with
// s.mu held.
func (c *shape) moves() (out []*api.SlotMoveProgress) {
	for _, m := range c.m.SlotMoves {
		out = append(out, &api.SlotMoveProgress{
			Id: m.Id, From: m.From, To: m.To, Slots: m.Slots, Phase: "copying", Bytes: 1 << 20, Total: 4 << 20, Rate: 512 << 10, EtaMs: 6000,
		})
	}
	return out
}

// replicas are what the leader of a group says; called with s.mu held.
func (c *shape) replicas(group uint32) []*api.ReplicaInfo { return c.m.Groups[group].GetReplicas() }

// change runs f and answers with what is then.
func (c *shape) change(f func() error) (*api.MembersResponse, error) {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if err := f(); err != nil {
		return nil, err
	}
	return proto.CloneOf(c.m), nil
}

func (c *shape) find(name string) (*api.ClusterNode, error) {
	for _, n := range c.m.Nodes {
		if n.GetInfo().GetName() == name || n.GetInfo().GetId() == name {
			return n, nil
		}
	}
	return nil, Errorf("not_found", "no member of the cluster has this name or id", "node", name)
}

// Members is the service's method.
func (c *shape) Members(context.Context, *api.MembersRequest) (*api.MembersResponse, error) {
	return c.change(func() error { return nil })
}

// ExpectNode is the service's method.
func (c *shape) ExpectNode(_ context.Context, r *api.ExpectNodeRequest) (*api.MembersResponse, error) {
	return c.change(func() error {
		if _, err := c.find(r.GetName()); err == nil {
			return Errorf("failed_precondition", "a node of this name is a member already", "name", r.GetName())
		}
		c.pending("add_node", r.GetName(), r.GetAddress(), r.GetCancel())
		return nil
	})
}

// pending notes a change of the nodes, or takes it back.
func (c *shape) pending(operation, name, address string, undo bool) {
	c.m.Pending = slices.DeleteFunc(c.m.Pending, func(p *api.PendingChange) bool { return p.GetNodeId() == name })
	if !undo {
		c.m.Pending = append(c.m.Pending, &api.PendingChange{Operation: operation, NodeId: name, Address: address, Role: "voter"})
	}
	slices.SortFunc(c.m.Pending, func(a, b *api.PendingChange) int { return cmp.Compare(a.GetNodeId(), b.GetNodeId()) })
}

// DrainNode is the service's method.
func (c *shape) DrainNode(_ context.Context, r *api.DrainNodeRequest) (*api.MembersResponse, error) {
	return c.change(func() error { return c.drain(r.GetNode(), r.GetUndo()) })
}

func (c *shape) drain(node string, undo bool) error {
	n, err := c.find(node)
	if err != nil {
		return err
	}
	n.DrainTo = ""
	if n.State = "draining"; undo {
		n.State = "active"
	}
	c.pending("remove_node", n.GetInfo().GetName(), n.GetInfo().GetPeer(), undo)
	return nil
}

// RemoveNode is the service's method.
func (c *shape) RemoveNode(_ context.Context, r *api.RemoveNodeRequest) (*api.MembersResponse, error) {
	return c.change(func() error {
		n, err := c.find(r.GetNode())
		if err != nil {
			return err
		}
		if n.GetReplicas() > 0 && !r.GetForce() {
			return Errorf("failed_precondition", "the node holds replicas; drain it first, or force the removal of a dead one", "name", n.GetInfo().GetName())
		}
		c.m.Nodes = slices.DeleteFunc(c.m.Nodes, func(o *api.ClusterNode) bool { return o == n })
		c.pending("", n.GetInfo().GetName(), "", true)
		for _, g := range c.m.Groups {
			c.stay(g.GetGroup(), false)
		}
		return nil
	})
}

// ReplaceNode is the service's method.
func (c *shape) ReplaceNode(_ context.Context, r *api.ReplaceNodeRequest) (*api.MembersResponse, error) {
	return c.change(func() error {
		with, err := c.find(r.GetWith())
		if err != nil {
			return err
		}
		if err := c.drain(r.GetNode(), false); err != nil {
			return err
		}
		n, err := c.find(r.GetNode())
		if err != nil {
			return err
		}
		n.DrainTo = with.GetInfo().GetName()
		for _, g := range c.m.Groups {
			g.Target, g.Reason = []string{with.GetInfo().GetId()}, "node is replaced"
		}
		return nil
	})
}

// Configure is the service's method.
func (c *shape) Configure(_ context.Context, r *api.ConfigureRequest) (*api.MembersResponse, error) {
	return c.change(func() error {
		if f := r.ReplicationFactor; f != nil {
			if *f != 1 && *f != 3 && *f != 5 {
				return Errorf("invalid_argument", "the replication factor is 1, 3 or 5")
			}
			c.m.ReplicationFactor = *f
		}
		if r.Paused != nil {
			c.m.Balance.Paused = *r.Paused
		}
		if r.MaxMoves != nil {
			c.m.Balance.MaxMoves = *r.MaxMoves
		}
		if r.CopyRate != nil {
			c.m.Balance.CopyRate = *r.CopyRate
		}
		return c.split(r)
	})
}

// split sets what is wanted of the number of groups.
func (c *shape) split(r *api.ConfigureRequest) error {
	if r.Groups != nil {
		c.m.Balance.Groups = *r.Groups
		c.m.Balance.GroupsWanted = max(c.m.Balance.GroupsWanted, *r.Groups)
	}
	switch r.Split {
	case "":
	case "auto", "off":
		c.m.Balance.Split = r.Split
	default:
		return Errorf("invalid_argument", "split is auto or off", "actual", r.Split)
	}
	if r.HoldSlots != nil {
		c.m.Balance.HoldSlots = *r.HoldSlots
	}
	return nil
}

// CancelSlotMove is the service's method.
func (c *shape) CancelSlotMove(_ context.Context, r *api.CancelSlotMoveRequest) (*api.MembersResponse, error) {
	return c.change(func() error {
		for _, m := range c.m.SlotMoves {
			if r.GetAll() || m.GetId() == r.GetId() {
				m.Cancelled, c.m.Balance.HoldSlots = true, true
				return nil
			}
		}
		return Errorf("not_found", "no move of slots has this id", "move", fmt.Sprint(r.GetId()))
	})
}

// HoldGroup is the service's method.
func (c *shape) HoldGroup(_ context.Context, r *api.HoldGroupRequest) (*api.MembersResponse, error) {
	return c.change(func() error {
		if int(r.GetGroup()) >= len(c.m.Groups) {
			return Errorf("not_found", "the cluster has no such group")
		}
		c.stay(r.GetGroup(), !r.GetRelease())
		return nil
	})
}

// stay ends the move of a group where its voter is.
func (c *shape) stay(group uint32, held bool) {
	g := c.m.Groups[group]
	g.GivenUp = nil
	g.Replicas, g.Target, g.Held, g.Reason = []*api.ReplicaInfo{voterHere()}, []string{nodeID}, held, ""
}
