package meta

import (
	"cmp"
	"context"
	"fmt"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// Join admits a node: one that is new, one that moved, or one that lost its
// disk and comes back under its name with a new id. In the last case the old
// id is marked as replaced in the same write, and the leaders of its groups
// replace its replicas under new replica ids; the old ones never vote again.
// The new node creates its replicas when their leaders first write to it.
func (s *Service) Join(ctx context.Context, req *api.JoinRequest) (*api.JoinResponse, error) {
	ctx = system(ctx)
	record := format.NodeRecord{
		ID: keyspace.NodeID(req.GetNodeId()), Name: req.GetNodeName(), HTTP: req.GetHttp(), GRPC: req.GetGrpc(),
		Peer: req.GetPeer(), Gossip: req.GetGossip(), Zone: req.GetZone(),
		Weight: req.GetWeight(), Priority: int(req.GetLeaderPriority()),
	}
	if req.GetRole() == format.RoleWitness {
		record.Role = format.RoleWitness
	}
	if err := s.validateJoin(req, record); err != nil {
		return nil, err
	}
	for range maxRaces {
		if err := s.dir.Refresh(ctx); err != nil {
			return nil, err
		}
		err := s.admit(ctx, record)
		if fault.CodeOf(err) == fault.ConditionFailed {
			continue
		}
		if err != nil {
			return nil, err
		}
		return s.welcome(ctx)
	}
	return nil, errRaces("node", record.Name)
}

func (s *Service) validateJoin(req *api.JoinRequest, n format.NodeRecord) error {
	m := s.dir.Map()
	switch {
	case n.ID == "" || n.Name == "" || n.Peer == "":
		return fault.New(fault.InvalidArgument, "a node joins with its id, name and peer address",
			"node", n.ID, "name", n.Name, "peer", n.Peer)
	case m.ClusterID == "":
		return fault.New(fault.Unavailable, "the cluster's metadata is not known here yet")
	case req.ClusterName != m.ClusterName:
		return fault.New(fault.FailedPrecondition, fmt.Sprintf("the cluster is named %q, the node's cluster.name is %q", m.ClusterName, req.ClusterName))
	case req.FormatVersion < format.MinVersion || req.FormatVersion > format.Version:
		return fault.New(fault.FailedPrecondition, "node's format version does not fit the cluster's",
			"limit_min", format.MinVersion, "limit", format.Version, "actual", req.FormatVersion)
	}
	return nil
}

func errRemoved(n format.NodeRecord) error {
	return fault.New(fault.FailedPrecondition, "this node was removed from the cluster and must not come back; delete its data directory to join anew",
		"name", n.Name, "node", n.ID, "removed", n.Removed)
}

// admit writes the node's record and, with it, marks the node it replaces.
func (s *Service) admit(ctx context.Context, n format.NodeRecord) error {
	st := s.dir.current.Load()
	own, known := st.nodes[n.ID]
	switch {
	case known && own.record.ReplacedBy != "":
		return fault.New(fault.FailedPrecondition, "this node was replaced under its name and must not come back",
			"name", n.Name, "node", n.ID, "replaced_by", own.record.ReplacedBy)
	case known && own.record.Removed != "":
		return errRemoved(own.record)
	case known && own.record.Role != n.Role:
		return fault.New(fault.FailedPrecondition, "a node keeps its role; delete its data directory to join in another one",
			"name", n.Name, "node", n.ID, "role", cmp.Or(own.record.Role, format.RoleData), "actual", cmp.Or(n.Role, format.RoleData))
	}
	n.State, n.DrainTo = own.record.State, own.record.DrainTo
	if known && own.record == n {
		return nil
	}
	old, ok := st.named(n.Name)
	replaces := ok && old.record.ID != n.ID
	if replaces && !known {
		n.State, n.DrainTo = old.record.State, old.record.DrainTo // an order outlives the disk
	}
	writes := []*api.PutRequest{item(format.SystemNodeKey(n.ID), n, atVersion(own.version))}
	if replaces {
		if old.record.Removed == "" && s.o.Alive(ctx, old.record) {
			return fault.New(fault.FailedPrecondition, "another node with this name is running",
				"name", n.Name, "node", n.ID, "running", old.record.ID)
		}
		old.record.ReplacedBy = n.ID
		writes = append(writes, item(format.SystemNodeKey(old.record.ID), old.record, atVersion(old.version)))
		s.o.Logger.Info("a node came back with an empty disk", "name", n.Name, "node", n.ID, "replaces", old.record.ID)
	}
	if err := s.putAll(ctx, writes...); err != nil {
		return err
	}
	if _, expected := st.pending[n.Name]; expected {
		return s.remove(ctx, format.SystemPendingKey(n.Name))
	}
	return nil
}

// welcome tells a new member where everybody is.
func (s *Service) welcome(ctx context.Context) (*api.JoinResponse, error) {
	if err := s.dir.Refresh(ctx); err != nil {
		return nil, err
	}
	m := s.dir.Map()
	out := &api.JoinResponse{ClusterId: m.ClusterID}
	out.RecoveryEpoch, out.Survivors = s.o.Recovery()
	for _, n := range m.Nodes {
		out.Nodes = append(out.Nodes, n.Info())
	}
	return out, nil
}
