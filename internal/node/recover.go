package node

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
	"kvstore/internal/transport"
)

// recoverer serves what `kvctl cluster recover` asks of a node, which is done
// step by step from outside, because there is no quorum that could keep track.
//
// The order of a recovery: every survivor is fenced, that is, it notes epoch
// and survivors durably and refuses nodes of lower epochs from then on; the
// best replica of each lost group adopts it, the meta group's first; the other
// survivors' replicas of those groups are discarded; epoch and lost nodes are
// recorded in the cluster's metadata. Each step may be repeated, so that a
// recovery that was interrupted is finished by running it again.
type recoverer struct{ n *Node }

var _ router.Recovery = recoverer{}

// outdated ends a node that is left from before a recovery. Every peer says so.
func (n *Node) outdated(epoch uint64) {
	n.toldOutdated.Do(func() { n.fail(transport.Outdated(epoch)) })
}

// adoptRecovery tells the transport what the stored cluster says.
func (n *Node) adoptRecovery() {
	if n.cluster != nil && n.cluster.Recovery != nil {
		n.transport.SetRecovery(*n.cluster.Recovery)
	}
}

func (n *Node) recoveryEpoch() uint64 { return n.transport.Recovery().Epoch }

func (n *Node) recovery() (epoch uint64, survivors []string) {
	r := n.transport.Recovery()
	for _, id := range r.Survivors {
		survivors = append(survivors, string(id))
	}
	return r.Epoch, survivors
}

// RecoverNode describes this node.
func (r recoverer) RecoverNode(ctx context.Context) (*api.RecoverNode, error) {
	n := r.n
	reports, err := n.host.ReportReplicas(ctx)
	if err != nil {
		return nil, err
	}
	m := n.directory.Map()
	out := &api.RecoverNode{NodeId: string(n.id), NodeName: n.config.Node.Name, ClusterId: n.transport.Cluster(),
		ClusterName: n.config.Cluster.Name, ClockMs: n.clock.Wall(), RecordedEpoch: m.RecoveryEpoch, Groups: uint32(m.Groups)}
	out.Epoch, out.Survivors = n.recovery()
	for i := range reports {
		out.Replicas = append(out.Replicas, recoverReplica(&reports[i]))
	}
	for _, id := range slices.Sorted(maps.Keys(m.Nodes)) {
		out.Known = append(out.Known, m.Nodes[id].Info())
	}
	return out, nil
}

func recoverReplica(r *host.ReplicaReport) *api.RecoverReplica {
	out := &api.RecoverReplica{
		Group: uint32(r.Group), Replica: uint64(r.Replica), Role: r.Role, Quarantined: r.Quarantined,
		LeaderReplica: uint64(r.Leader), LeaderHeardMs: r.HeardMilli, Term: uint64(r.Term),
		LastIndex: uint64(r.Last), LastTerm: uint64(r.LastTerm), Commit: uint64(r.Commit), Applied: uint64(r.Applied),
		LastRevision: uint64(r.LastRev), KeptRevision: uint64(r.KeptRev), NextReplica: uint64(r.NextID), Changing: r.Changing,
	}
	for _, m := range r.Members {
		out.Members = append(out.Members, &api.ReplicaInfo{Replica: uint64(m.Replica), NodeId: string(m.Node), Role: router.RoleOf(m.Replica, m.Learner)})
	}
	for _, id := range r.Voters {
		out.Voters = append(out.Voters, uint64(id))
	}
	for _, id := range r.Outgoing {
		out.VotersOutgoing = append(out.VotersOutgoing, uint64(id))
	}
	return out
}

// RecoverStep takes one step here.
func (r recoverer) RecoverStep(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error) {
	n := r.n
	n.recovering.Lock()
	defer n.recovering.Unlock()
	if q.GetClusterId() != n.transport.Cluster() {
		return nil, fault.New(fault.FailedPrecondition, "this node belongs to another cluster", "cluster_id", n.transport.Cluster(), "actual", q.GetClusterId())
	}
	if q.GetStep() == api.RecoverRequest_FENCE {
		return &api.RecoverResponse{}, n.fence(ctx, q)
	}
	if epoch := n.recoveryEpoch(); epoch == 0 || q.GetEpoch() != epoch {
		return nil, fault.New(fault.FailedPrecondition, "this node takes part in another recovery, or in none", "recovery_epoch", epoch, "actual", q.GetEpoch())
	}
	out := &api.RecoverResponse{}
	group, replica := keyspace.GroupID(q.GetGroup()), keyspace.ReplicaID(q.GetReplica())
	switch q.GetStep() {
	case api.RecoverRequest_ADOPT:
		id, err := n.host.Adopt(ctx, host.Adoption{Group: group, Replica: replica, AboveReplica: keyspace.ReplicaID(q.GetAboveReplica()),
			AboveTerm: keyspace.Term(q.GetAboveTerm()), ClockMilli: q.GetClockMs()})
		out.Replica = uint64(id)
		return out, err
	case api.RecoverRequest_DISCARD:
		return out, n.host.Discard(ctx, group, replica)
	case api.RecoverRequest_RECORD:
		return out, n.meta.RecordRecovery(ctx, q.GetEpoch(), nodeIDs(q.GetLost()))
	default:
		return nil, fault.New(fault.Unsupported, "unknown step of a recovery", "step", q.GetStep())
	}
}

// fence notes the recovery before the transport enforces it.
func (n *Node) fence(ctx context.Context, q *api.RecoverRequest) error {
	now := n.transport.Recovery()
	next := transport.Recovery{Epoch: q.GetEpoch(), Survivors: nodeIDs(q.GetSurvivors())}
	slices.Sort(next.Survivors)
	switch {
	case !slices.Contains(next.Survivors, n.id):
		return fault.New(fault.FailedPrecondition, "this node is not among the survivors", "node", n.id)
	case next.Epoch < now.Epoch || next.Epoch == 0:
		return fault.New(fault.FailedPrecondition, "this node has taken part in a later recovery", "recovery_epoch", now.Epoch, "actual", next.Epoch)
	case next.Epoch == now.Epoch && slices.Equal(next.Survivors, now.Survivors):
		return nil
	case next.Epoch == now.Epoch:
		return fault.New(fault.FailedPrecondition, "this node has taken part in another recovery of this epoch", "recovery_epoch", now.Epoch)
	}
	if err := n.farFrom(next.Survivors); err != nil {
		return err
	}
	fact := *n.cluster
	fact.Recovery = &next
	text, err := json.Marshal(&fact)
	if err != nil {
		return err
	}
	if err := n.host.StoreFact(ctx, metaCluster, text); err != nil {
		return err
	}
	n.cluster.Recovery = &next
	n.transport.SetRecovery(next)
	n.logger.Warn("this node takes part in a recovery of the cluster", "epoch", next.Epoch, "survivors", next.Survivors)
	return nil
}

// farFrom refuses to leave out a node that is connected.
func (n *Node) farFrom(survivors []keyspace.NodeID) error {
	for id, other := range n.directory.Map().Nodes {
		if id != n.id && !slices.Contains(survivors, id) && n.transport.Up(id) {
			return fault.New(fault.FailedPrecondition, "a node that is not among the survivors is connected, or was a moment ago",
				"node", id, "name", other.Name)
		}
	}
	return nil
}

func nodeIDs(texts []string) []keyspace.NodeID {
	out := make([]keyspace.NodeID, len(texts))
	for i, t := range texts {
		out[i] = keyspace.NodeID(t)
	}
	return out
}
