package router

import (
	"context"
	"sort"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// NodeReport is what only the node itself knows for Status.
type NodeReport struct {
	Version         string
	UptimeMS        int64
	EffectiveConfig map[string]string
	Storage         *api.StorageStatus
	Ready           bool
	NotReadyReason  string
	RecoveryEpoch   uint64
	// ClockAhead of the median of the peers' clocks and this one; ClockOff: too
	// far to lead.
	ClockAhead time.Duration
	ClockOff   bool
	// HidesReplicas is that of the host.
	HidesReplicas bool
	// Moves of slots that this node drives.
	Moves []MoveProgress
}

// MoveProgress is how far a move of slots is, as who drives it knows.
type MoveProgress struct {
	ID       format.MoveID
	From, To keyspace.GroupID
	Slots    format.SlotSet
	Phase    string
	// Bytes copied, of about Total, at Rate per second; 0 while it is not known.
	Bytes, Total, Rate uint64
	ETA                time.Duration
}

func (m *MoveProgress) status() *api.SlotMoveProgress {
	return &api.SlotMoveProgress{
		Id: uint64(m.ID), From: uint32(m.From), To: uint32(m.To), Slots: m.Slots.String(), Phase: m.Phase,
		Bytes: m.Bytes, Total: m.Total, Rate: m.Rate, EtaMs: uint64(m.ETA.Milliseconds()),
	}
}

// Status describes this node.
func (r *Router) Status(context.Context, *api.StatusRequest) (*api.StatusResponse, error) {
	m := r.o.Directory.Map()
	out := &api.StatusResponse{
		ClusterId: m.ClusterID, ClusterName: m.ClusterName, NodeId: string(r.o.Node), NodeName: r.o.NodeName,
		FormatVersion: format.Version, Nodes: r.nodes(m),
	}
	for _, g := range r.o.Host.Groups() {
		out.Groups = append(out.Groups, groupStatus(&g))
	}
	if r.o.Info != nil {
		n := r.o.Info()
		out.Version, out.UptimeMs, out.EffectiveConfig = n.Version, n.UptimeMS, n.EffectiveConfig
		out.RecoveryEpoch = n.RecoveryEpoch
		out.ClockAheadMs, out.ClockOff, out.HidesReplicas = n.ClockAhead.Milliseconds(), n.ClockOff, n.HidesReplicas
		out.Storage, out.Ready, out.NotReadyReason = n.Storage, n.Ready, n.NotReadyReason
		for i := range n.Moves {
			out.SlotMoves = append(out.SlotMoves, n.Moves[i].status())
		}
	}
	return out, nil
}

func groupStatus(g *host.GroupStatus) *api.GroupStatus {
	out := &api.GroupStatus{
		Group: uint32(g.Group), Replica: uint64(g.Replica), LeaderReplica: uint64(g.Leader), LeaderNode: string(g.LeaderNode),
		Term: uint64(g.Term), Commit: uint64(g.Commit), Applied: uint64(g.Applied), Role: g.Role,
		Clock: uint64(g.Clock), Ceiling: uint64(g.Ceiling), Closed: uint64(g.Closed),
		StateHash: g.Digest.Hash, StateHashIndex: uint64(g.Digest.Index), Copies: uint32(g.Copies),
	}
	for _, m := range g.Members {
		progress := g.Progress[m.Replica]
		out.Replicas = append(out.Replicas, &api.ReplicaInfo{
			Replica: uint64(m.Replica), NodeId: string(m.Node), Role: RoleOf(m.Replica, m.Learner),
			Match: uint64(progress.Match), Active: progress.Active, Progress: progress.State,
			CopiedBytes: uint64(progress.Copy.Sent), CopyBytes: uint64(progress.Copy.Total), CopyRate: progress.Copy.Rate(),
		})
	}
	return out
}

// RoleOf names what a member is: voter, learner or witness, which is a voter
// without data. One that is a learner yet is a learner.
func RoleOf(r keyspace.ReplicaID, learner bool) string {
	switch {
	case learner:
		return "learner"
	case r.Witness():
		return "witness"
	}
	return "voter"
}

func (r *Router) nodes(m *Map) []*api.NodeInfo {
	out := make([]*api.NodeInfo, 0, len(m.Nodes))
	for _, n := range m.Nodes {
		info := n.Info()
		info.Healthy = r.healthy(n.ID)
		if r.o.Heard != nil {
			info.GossipState = r.o.Heard(n.ID)
		}
		out = append(out, info)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out
}

// Info returns the wire form of n.
func (n Node) Info() *api.NodeInfo {
	return &api.NodeInfo{
		Role: n.Role(), Id: string(n.ID), Name: n.Name, Http: n.HTTP, Grpc: n.GRPC, Peer: n.Peer, Gossip: n.Gossip, Zone: n.Zone,
	}
}

// Role is what a node is in the cluster.
func (n Node) Role() string {
	if n.Witness {
		return format.RoleWitness
	}
	return format.RoleData
}

func (r *Router) healthy(id keyspace.NodeID) bool {
	switch {
	case id == r.o.Node:
		return true
	case r.o.Healthy != nil:
		return r.o.Healthy(id)
	}
	return r.link(id).usable()
}

// Topology returns the slot map for clients that write to leaders directly. It
// is empty, but for the epoch, when the caller's epoch is not older.
func (r *Router) Topology(_ context.Context, req *api.TopologyRequest) (*api.TopologyResponse, error) {
	m := r.o.Directory.Map()
	out := &api.TopologyResponse{Epoch: m.Epoch, ServerTimeMs: r.o.Clock.Wall()}
	if req.KnownEpoch != 0 && req.KnownEpoch >= m.Epoch {
		return out, nil
	}
	out.ClusterId = m.ClusterID
	out.MaxKeyBytes, out.MaxValueBytes, out.MaxMessageBytes = keyspace.MaxKeyBytes, keyspace.MaxValueBytes, MaxMessageBytes
	if m.Groups > 0 {
		out.SlotGroups = make([]uint32, keyspace.SlotCount)
		for slot := range out.SlotGroups {
			g, _ := m.GroupOf(keyspace.SlotID(slot))
			out.SlotGroups[slot] = uint32(g)
		}
	}
	for g := range keyspace.GroupID(m.Groups + 1) {
		out.Groups = append(out.Groups, r.groupInfo(m, g))
	}
	out.Nodes = r.nodes(m)
	out.Namespaces = map[string]uint32{
		keyspace.SystemNamespaceName:  uint32(keyspace.SystemNamespace),
		keyspace.DefaultNamespaceName: uint32(keyspace.DefaultNamespace),
	}
	for name, ns := range m.Namespaces {
		out.Namespaces[name] = uint32(ns.ID)
	}
	return out, nil
}

func (r *Router) groupInfo(m *Map, g keyspace.GroupID) *api.GroupInfo {
	leader, _ := r.Leader(g)
	out := &api.GroupInfo{Group: uint32(g), LeaderNode: string(leader)}
	for _, member := range m.Members[g] {
		out.Replicas = append(out.Replicas, member.Info())
	}
	return out
}

// Info returns the wire form of m.
func (m Member) Info() *api.ReplicaInfo {
	return &api.ReplicaInfo{Replica: uint64(m.Replica), NodeId: string(m.Node), Role: RoleOf(m.Replica, m.Learner)}
}
