package node

import (
	"context"
	"fmt"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/config"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/membership"
	"kvstore/internal/placement"
	"kvstore/internal/transport"
)

// newAgent configures the agent that decides how an empty node starts.
func (n *Node) newAgent() (*membership.Agent, error) {
	o := membership.Options{
		Name:    n.config.Node.Name,
		Node:    n.id,
		Cluster: n.config.Cluster.Name,
		First:   firstMembers(n.config),
		Dialer:  n.transport,
		Logger:  n.logger.With("part", "membership"),
		Epoch:   n.recoveryEpoch,
	}
	names := make([]string, 0, len(n.config.Membership))
	for _, m := range n.config.Membership {
		names = append(names, m.NodeID+"@"+m.Zone)
	}
	o.ConfigHash = membership.ConfigHash(o.Cluster, names, n.config.Cluster.Groups, n.config.Cluster.ReplicationFactor)
	if n.cluster != nil {
		o.ClusterID, o.Founded = n.cluster.ID, n.cluster.Founded
	}
	return membership.NewAgent(o)
}

// firstMembers are the peer addresses of the first members by name; this node
// alone when none are configured.
func firstMembers(c *config.Config) map[string]string {
	if len(c.Membership) == 0 {
		return map[string]string{c.Node.Name: c.Advertise.Peer}
	}
	first := make(map[string]string, len(c.Membership))
	for _, m := range c.Membership {
		first[m.NodeID] = m.Address
	}
	return first
}

// settle makes an empty node a member: it founds the cluster with the other
// first members, or joins. It waits for as long as it takes.
func (n *Node) settle(ctx context.Context) error {
	decision, err := n.decide(ctx)
	if err != nil {
		return err
	}
	var fact *clusterFact
	if decision.Action == membership.Found {
		fact, err = n.found(decision)
	} else {
		fact, err = n.join(ctx, decision)
	}
	if err != nil {
		return err
	}
	if err := storeCluster(n.storage.log, fact); err != nil {
		return err
	}
	n.cluster = fact
	n.agent.Settle(fact.ID, fact.Founded)
	return nil
}

// decide says how this node starts: one that was told whom to join never
// founds a cluster.
func (n *Node) decide(ctx context.Context) (membership.Decision, error) {
	if len(n.config.Join) > 0 {
		return membership.Decision{Action: membership.Join, Reason: "join is configured"}, nil
	}
	if n.config.Witness() && n.config.FirstMember() {
		return membership.Decision{}, fault.New(fault.FailedPrecondition, "a witness stores no data and founds no cluster; name members of a running one with --join")
	}
	return n.agent.Run(ctx)
}

// found creates this node's first replicas. The cluster is stored after them:
// a node that ends in between founds again, with the same replicas or not at
// all, and none of them has spoken yet.
func (n *Node) found(d membership.Decision) (*clusterFact, error) {
	seeds, err := n.seeds(d.Members)
	if err != nil {
		return nil, err
	}
	if seeds, err = n.unseeded(seeds); err != nil {
		return nil, err
	}
	if err := n.host.Bootstrap(seeds); err != nil {
		return nil, fmt.Errorf("founding the cluster: %w", err)
	}
	first := firstMembers(n.config)
	book := make(map[keyspace.NodeID]peerAddress, len(d.Members))
	for name, life := range d.Members {
		book[keyspace.NodeID(life)] = peerAddress{Name: name, Peer: first[name]}
	}
	n.book.add(book)
	return &clusterFact{
		ID: d.ClusterID, Name: n.config.Cluster.Name, Founded: d.Members,
		Groups: n.config.Cluster.Groups, ReplicationFactor: n.config.Cluster.ReplicationFactor,
		FoundedMilli: n.clock.Wall(),
	}, nil
}

// seeds places all groups on the members (name -> life).
func (n *Node) seeds(members map[string]string) ([]host.GroupSeed, error) {
	zones := map[string]string{} // only what all first members are configured with alike
	for _, m := range n.config.Membership {
		zones[m.NodeID] = m.Zone
	}
	nodes := make([]placement.Node, 0, len(members))
	for name := range members {
		nodes = append(nodes, placement.Node{Name: name, Zone: zones[name]})
	}
	groups, factor := n.config.Cluster.Groups, n.config.Cluster.ReplicationFactor
	if n.cluster != nil { // what counts is how the cluster was founded
		groups, factor = n.cluster.Groups, n.cluster.ReplicationFactor
	}
	plan, err := placement.Bootstrap(nodes, groups, factor)
	if err != nil {
		return nil, err
	}
	seeds := make([]host.GroupSeed, len(plan))
	for i, a := range plan {
		seeds[i].Group = a.Group
		if a.Group != keyspace.MetaGroup {
			seeds[i].Slots = format.FoundingSlots(a.Group, groups)
		}
		for _, r := range a.Replicas {
			seeds[i].Members = append(seeds[i].Members, format.Member{Replica: r.ID, Node: keyspace.NodeID(members[r.Node])})
			if r.Node == n.config.Node.Name {
				seeds[i].Self = r.ID
			}
		}
	}
	return seeds, nil
}

// unseeded drops the seeds of replicas that an interrupted founding left. One
// that was founded with other members must not be used.
func (n *Node) unseeded(seeds []host.GroupSeed) ([]host.GroupSeed, error) {
	have := map[keyspace.GroupID][]format.Member{}
	for _, g := range n.host.Groups() {
		have[g.Group] = g.Members
	}
	var rest []host.GroupSeed
	for _, s := range seeds {
		members, there := have[s.Group]
		if !there {
			rest = append(rest, s)
			continue
		}
		if !slices.Equal(members, s.Members) {
			return nil, fault.New(fault.FailedPrecondition, "the data directory was left half founded with other members; delete it and start again",
				"data_dir", n.config.Node.DataDir, "group", s.Group)
		}
	}
	return rest, nil
}

// join asks to be admitted. Replicas come later, by raft messages from their
// leaders.
func (n *Node) join(ctx context.Context, d membership.Decision) (*clusterFact, error) {
	a := n.config.Advertise
	resp, err := n.agent.Join(ctx, &api.JoinRequest{
		Http: a.HTTP, Grpc: a.GRPC, Peer: a.Peer, Gossip: a.Gossip, Zone: n.config.Node.Zone,
		Weight: n.config.Node.Weight, LeaderPriority: int32(n.config.Node.LeaderPriority),
		Role: n.config.Node.Role,
	}, append(n.agent.Addresses(d.Through), n.config.Join...)...)
	if err != nil {
		return nil, err
	}
	book := make(map[keyspace.NodeID]peerAddress, len(resp.GetNodes()))
	for _, p := range resp.GetNodes() {
		book[keyspace.NodeID(p.GetId())] = peerAddress{Name: p.GetName(), Peer: p.GetPeer()}
	}
	n.book.add(book)
	fact := &clusterFact{ID: resp.GetClusterId(), Name: n.config.Cluster.Name}
	if epoch := resp.GetRecoveryEpoch(); epoch > 0 {
		fact.Recovery = &transport.Recovery{Epoch: epoch, Survivors: nodeIDs(resp.GetSurvivors())}
	}
	return fact, nil
}
