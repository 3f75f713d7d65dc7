package client

import (
	"context"
	"errors"
	"io"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// Pipeline answers in any order: an operation that is held back does not hold
// up the others.
func (n *fakeNode) Pipeline(s grpc.BidiStreamingServer[api.PipelineRequest, api.PipelineResponse]) error {
	p := &fakePipeline{node: n, stream: s, dropped: make(chan struct{})}
	received := make(chan error, 1)
	go func() { received <- p.receive() }()
	var err error
	select {
	case err = <-received:
	case <-p.dropped:
	}
	select {
	case <-p.dropped: // receive ends then, too
		if p.reason != nil {
			return p.reason
		}
		return status.Error(codes.Unavailable, "fake: stream dropped")
	default:
		p.held.Wait()
		return err
	}
}

type fakePipeline struct {
	node   *fakeNode
	stream grpc.BidiStreamingServer[api.PipelineRequest, api.PipelineResponse]
	held   sync.WaitGroup
	mu     sync.Mutex
	once   sync.Once
	// reason is set before dropped is closed.
	reason  error
	dropped chan struct{}
}

func (p *fakePipeline) receive() error {
	for {
		q, err := p.stream.Recv()
		if err != nil {
			return nil // the client ended the stream
		}
		p.node.wait()
		p.node.frames.Add(1)
		out := &api.PipelineResponse{}
		for _, op := range q.GetOps() {
			p.node.ops.Add(1)
			if r := p.handle(op); r != nil {
				out.Results = append(out.Results, r)
			}
		}
		select {
		case <-p.dropped:
			return nil
		default:
		}
		if len(out.GetResults()) > 0 {
			p.send(out)
		}
	}
}

func (p *fakePipeline) send(out *api.PipelineResponse) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.stream.Send(out) // the client notices on its own
}

// handle returns nil for what is answered later or never.
func (p *fakePipeline) handle(op *api.PipelineOp) *api.PipelineResult {
	var fault opFault
	if f := p.node.fault.Load(); f != nil {
		fault = (*f)(op)
	}
	switch {
	case fault.items != nil:
		out := &api.BatchGetResponse{}
		for range op.GetBatchGet().GetKeys() {
			out.Results = append(out.Results, &api.BatchGetResult{Status: fault.items})
		}
		return &api.PipelineResult{Id: op.GetId(), Result: &api.PipelineResult_BatchGet{BatchGet: out}}
	case fault.status != nil:
		return &api.PipelineResult{Id: op.GetId(), Status: fault.status}
	case fault.dropBefore, fault.dropAfter:
		if fault.dropAfter {
			p.node.execute(op)
		}
		p.once.Do(func() { close(p.dropped) })
		return nil
	case fault.drain:
		p.once.Do(func() {
			p.reason = rpcError(statusOf(CodeUnavailable))
			close(p.dropped)
		})
		return nil
	case fault.mute:
		return nil
	case fault.hold != nil:
		p.held.Go(func() {
			select {
			case <-fault.hold:
				p.send(&api.PipelineResponse{Results: []*api.PipelineResult{p.node.execute(op)}})
			case <-p.stream.Context().Done():
			}
		})
		return nil
	}
	return p.node.execute(op)
}

func (n *fakeNode) Topology(context.Context, *api.TopologyRequest) (*api.TopologyResponse, error) {
	n.topologies.Add(1)
	f := n.cluster
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &api.TopologyResponse{
		Epoch: f.epochOf(n), ClusterId: "fake", MaxValueBytes: f.limits.valueBytes, MaxKeyBytes: uint32(f.limits.keyBytes),
		MaxMessageBytes: uint64(f.limits.messageBytes), Namespaces: map[string]uint32{},
	}
	for name, ns := range f.namespaces {
		t.Namespaces[name] = ns.GetId()
	}
	if f.kept != nil {
		t.ServerTimeMs = fakeServerTime
	}
	var replicas []*api.ReplicaInfo
	for i, m := range f.nodes {
		t.Nodes = append(t.Nodes, &api.NodeInfo{Id: "id-" + m.name, Name: m.name, Grpc: m.addr, Zone: m.zone, Healthy: true})
		replicas = append(replicas, &api.ReplicaInfo{Replica: uint64(i + 1), NodeId: "id-" + m.name, Role: "voter"})
	}
	for g, leader := range f.leaders {
		of := replicas
		if f.alone {
			of = replicas[leader : leader+1]
		}
		t.Groups = append(t.Groups, &api.GroupInfo{Group: uint32(g + 1), LeaderNode: "id-" + f.nodes[leader].name, Replicas: of})
	}
	for slot := range keyspace.SlotCount {
		t.SlotGroups = append(t.SlotGroups, uint32(f.groupOf(slot, n)))
	}
	return t, nil
}

func (n *fakeNode) List(_ context.Context, q *api.ListRequest) (*api.ListResponse, error) {
	n.cluster.mu.Lock()
	defer n.cluster.mu.Unlock()
	return n.cluster.list(q), nil
}

func (n *fakeNode) PutStream(s grpc.ClientStreamingServer[api.PutChunk, api.PutResponse]) error {
	first, err := s.Recv()
	if err != nil {
		return err
	}
	q := first.GetRequest()
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		q.Value = append(q.Value, chunk.GetData()...)
	}
	if uint64(len(q.GetValue())) != first.GetSize() {
		return rpcError(statusOf(CodeInvalidArgument))
	}
	n.cluster.mu.Lock()
	r, st := n.cluster.put(q.GetNamespace(), q)
	n.cluster.mu.Unlock()
	if st != nil {
		return rpcError(st)
	}
	return s.SendAndClose(r)
}

func (n *fakeNode) GetStream(q *api.GetRequest, s grpc.ServerStreamingServer[api.GetChunk]) error {
	n.cluster.mu.Lock()
	r, st := n.cluster.get(q.GetNamespace(), q.GetKey(), false)
	n.cluster.mu.Unlock()
	if st != nil {
		return rpcError(st)
	}
	value := r.GetValue()
	r.Value = nil
	if err := s.Send(&api.GetChunk{Response: &api.GetResponse{Record: r}}); err != nil {
		return err
	}
	for len(value) > 0 {
		piece := value[:min(len(value), 1000)]
		value = value[len(piece):]
		if err := s.Send(&api.GetChunk{Data: piece}); err != nil {
			return err
		}
		// A refusal in the middle of a stream is a node that fails there.
		if err := n.check(s.Context(), "GetStream piece"); err != nil {
			return err
		}
	}
	return nil
}

func (n *fakeNode) Status(context.Context, *api.StatusRequest) (*api.StatusResponse, error) {
	return &api.StatusResponse{NodeId: "id-" + n.name, NodeName: n.name, ClusterId: "fake", Ready: true}, nil
}

func (n *fakeNode) Digest(context.Context, *api.DigestRequest) (*api.DigestResponse, error) {
	return &api.DigestResponse{Equal: true}, nil
}

func (n *fakeNode) CreateNamespace(_ context.Context, q *api.CreateNamespaceRequest) (*api.Namespace, error) {
	f := n.cluster
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.namespaces[q.GetName()] != nil {
		return nil, rpcError(statusOf(CodeNamespaceExists, "namespace", q.GetName()))
	}
	ns := &api.Namespace{Name: q.GetName(), Id: uint32(15 + len(f.namespaces)), State: "active"}
	f.namespaces[q.GetName()] = ns
	return ns, nil
}

func (n *fakeNode) ListNamespaces(context.Context, *api.ListNamespacesRequest) (*api.ListNamespacesResponse, error) {
	f := n.cluster
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &api.ListNamespacesResponse{}
	for _, ns := range f.namespaces {
		out.Namespaces = append(out.Namespaces, ns)
	}
	return out, nil
}

func (n *fakeNode) DescribeNamespace(_ context.Context, q *api.DescribeNamespaceRequest) (*api.Namespace, error) {
	f := n.cluster
	f.mu.Lock()
	defer f.mu.Unlock()
	if ns := f.namespaces[q.GetName()]; ns != nil {
		return ns, nil
	}
	return nil, rpcError(statusOf(CodeNamespaceNotFound, "namespace", q.GetName()))
}

func (n *fakeNode) DeleteNamespace(_ context.Context, q *api.DeleteNamespaceRequest) (*api.Job, error) {
	f := n.cluster
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.namespaces, q.GetName())
	return &api.Job{Id: "job-1", Kind: "delete-namespace", State: "running"}, nil
}

func (n *fakeNode) DescribeJob(_ context.Context, q *api.DescribeJobRequest) (*api.Job, error) {
	return &api.Job{Id: q.GetId(), Kind: "delete-namespace", State: "done"}, nil
}
