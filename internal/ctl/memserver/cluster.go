package memserver

import (
	"context"
	"slices"

	api "kvstore/api/kvstore/v1"
)

const nodeID = "11111111-1111-4111-8111-111111111111"

func (s *Server) node() *api.NodeInfo {
	return &api.NodeInfo{Id: nodeID, Name: "node-1", Http: "127.0.0.1:8080", Grpc: s.Addr, Peer: "127.0.0.1:7946", Healthy: true, GossipState: "alive"}
}

// Status is the service's method.
func (s *Server) Status(context.Context, *api.StatusRequest) (*api.StatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &api.StatusResponse{
		ClusterId: "22222222-2222-4222-8222-222222222222", ClusterName: "mem", NodeId: nodeID, NodeName: "node-1",
		Version: "v0", FormatVersion: 1, UptimeMs: 61_000, Ready: true, RecoveryEpoch: 2,
		Nodes: []*api.NodeInfo{s.node()},
		Groups: []*api.GroupStatus{
			{Group: 0, Replica: 1, LeaderReplica: 1, LeaderNode: nodeID, Term: 2, Commit: 42, Applied: 42, Role: "leader", Copies: 1, Replicas: s.shape.replicas(0)},
			{Group: 1, Replica: 1, LeaderReplica: 1, LeaderNode: nodeID, Term: 2, Commit: 7, Applied: 6, Role: "leader", Replicas: s.shape.replicas(1)},
		},
		Storage:         &api.StorageStatus{LsmBytes: 1 << 20, ValueLogBytes: 2 << 20, RaftLogBytes: 64 << 20, DeltaBytes: 512, MemoryBudgetBytes: 1 << 30},
		SlotMoves:       s.shape.moves(),
		EffectiveConfig: map[string]string{"badger_config.compression": "snappy"},
	}, nil
}

// Topology is the service's method: one node leads one group of all slots.
func (s *Server) Topology(context.Context, *api.TopologyRequest) (*api.TopologyResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.TopologyResponse{
		Epoch: 1, ClusterId: "22222222-2222-4222-8222-222222222222", SlotGroups: make([]uint32, slots),
		Groups: []*api.GroupInfo{{Group: 1, LeaderNode: nodeID, Replicas: []*api.ReplicaInfo{{Replica: 1, NodeId: nodeID, Role: "voter", Active: true}}}},
		Nodes:  []*api.NodeInfo{s.node()}, MaxValueBytes: maxValueBytes, MaxKeyBytes: maxKeyBytes, MaxMessageBytes: maxMessageBytes,
		Namespaces: map[string]uint32{},
	}
	for i := range out.SlotGroups {
		out.SlotGroups[i] = 1
	}
	for name, sp := range s.spaces {
		out.Namespaces[name] = sp.info.GetId()
	}
	return out, nil
}

// Digest is the service's method.
func (s *Server) Digest(context.Context, *api.DigestRequest) (*api.DigestResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := uint64(len(s.spaces["default"].records))
	return &api.DigestResponse{Equal: true, Groups: []*api.GroupDigest{
		{Group: 1, Index: 7, Equal: true, Replicas: []*api.ReplicaDigest{{NodeId: nodeID, Replica: 1, Hash: 0xfeed, Keys: n}}},
	}}, nil
}

// CreateNamespace is the service's method.
func (s *Server) CreateNamespace(_ context.Context, r *api.CreateNamespaceRequest) (*api.Namespace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.spaces[r.GetName()]; ok {
		return nil, Errorf("namespace_exists", "namespace exists", "namespace", r.GetName())
	}
	return s.create(r.GetName()), nil
}

// ListNamespaces is the service's method.
func (s *Server) ListNamespaces(context.Context, *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &api.ListNamespacesResponse{}
	for _, sp := range s.spaces {
		out.Namespaces = append(out.Namespaces, sp.info)
	}
	slices.SortFunc(out.Namespaces, func(a, b *api.Namespace) int { return int(a.GetId()) - int(b.GetId()) })
	return out, nil
}

// DescribeNamespace is the service's method.
func (s *Server) DescribeNamespace(_ context.Context, r *api.DescribeNamespaceRequest) (*api.Namespace, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp, err := s.space(r.GetName())
	if err != nil {
		return nil, err
	}
	return sp.info, nil
}

// DeleteNamespace is the service's method; its job is done when it is first
// described.
func (s *Server) DeleteNamespace(_ context.Context, r *api.DeleteNamespaceRequest) (*api.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sp, err := s.space(r.GetName())
	if err != nil {
		return nil, err
	}
	delete(s.spaces, r.GetName())
	n := uint64(len(sp.records))
	job := &api.Job{Id: "job-1", Kind: "delete-namespace", State: "running", Total: n, StartedAtMs: milli(s.revision)}
	s.jobs[job.GetId()] = &api.Job{Id: job.GetId(), Kind: job.GetKind(), State: "done", Done: n, Total: n, StartedAtMs: job.GetStartedAtMs(), FinishedAtMs: milli(s.next())}
	return job, nil
}
