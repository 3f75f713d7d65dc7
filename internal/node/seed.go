package node

import (
	"context"
	"maps"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/meta"
)

// self is this node's record.
func (n *Node) self() format.NodeRecord {
	a := n.config.Advertise
	role := ""
	if n.config.Witness() {
		role = format.RoleWitness
	}
	return format.NodeRecord{Role: role,
		ID: n.id, Name: n.config.Node.Name, HTTP: a.HTTP, GRPC: a.GRPC, Peer: a.Peer, Gossip: a.Gossip, Zone: n.config.Node.Zone,
		Weight: n.config.Node.Weight, Priority: n.config.Node.LeaderPriority,
	}
}

// seed is what this node knows of the cluster before it has read any record:
// how it was founded, where the others were, and who is in its groups. A node
// that joined knows no shape; it waits for the record.
func (n *Node) seed() meta.Seed {
	s := meta.Seed{Nodes: []format.NodeRecord{n.self()}, Members: map[keyspace.GroupID][]format.MemberRecord{}}
	if f := n.cluster; f.Founded != nil {
		s.Cluster = format.ClusterRecord{ID: f.ID, Name: f.Name, Groups: f.Groups, ReplicationFactor: f.ReplicationFactor, Created: f.FoundedMilli}
		n.seedFounding(s.Members)
	}
	for id, p := range n.book.all() {
		if id != n.id {
			s.Nodes = append(s.Nodes, format.NodeRecord{ID: id, Name: p.Name, Peer: p.Peer})
		}
	}
	for _, g := range n.host.Groups() {
		if len(g.Members) > 0 {
			s.Members[g.Group] = memberRecords(g.Members)
		}
	}
	return s
}

// seedFounding adds the members that groups had at the start.
func (n *Node) seedFounding(members map[keyspace.GroupID][]format.MemberRecord) {
	seeds, err := n.seeds(n.cluster.Founded)
	if err != nil {
		n.logger.Warn("the founding placement cannot be computed", "error", err)
		return
	}
	for _, g := range seeds {
		members[g.Group] = memberRecords(g.Members)
	}
}

func memberRecords(members []format.Member) []format.MemberRecord {
	out := make([]format.MemberRecord, len(members))
	for i, m := range members {
		out[i] = format.MemberRecord(m)
	}
	return out
}

// all returns a copy of the book.
func (b *addressBook) all() map[keyspace.NodeID]peerAddress {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.peers)
}

// addresses returns where the nodes of the book are.
func (b *addressBook) addresses() map[keyspace.NodeID]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make(map[keyspace.NodeID]string, len(b.peers))
	for id, p := range b.peers {
		out[id] = p.Peer
	}
	return out
}

// alive asks the node at a record's address whether it still is that node.
func (n *Node) alive(ctx context.Context, r format.NodeRecord) bool {
	c, err := n.transport.ClientAt(r.Peer)
	if err != nil {
		return false
	}
	resp, err := c.Probe(ctx, &api.ProbeRequest{ClusterName: n.config.Cluster.Name, NodeName: n.config.Node.Name})
	return err == nil && resp.GetLife() == string(r.ID)
}
