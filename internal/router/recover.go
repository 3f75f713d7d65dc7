package router

import (
	"context"
	"sync"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Peer.Call methods behind RecoverPlan and Recover: a node answers for itself.
const (
	RecoverNodeMethod = "RecoverNode"
	RecoverStepMethod = "RecoverStep"
)

// recoverAsk bounds the question to a peer, which may be one of the lost ones.
const recoverAsk = 3 * time.Second

// Recovery is the part of the API that needs no quorum anywhere; the node
// itself serves it.
type Recovery interface {
	// RecoverNode describes this node and its replicas.
	RecoverNode(ctx context.Context) (*api.RecoverNode, error)
	// RecoverStep takes one step here.
	RecoverStep(ctx context.Context, req *api.RecoverRequest) (*api.RecoverResponse, error)
}

// SetRecovery names the implementation of the recovery calls. It is called
// once, before the first request.
func (r *Router) SetRecovery(v Recovery) { r.recovery.Store(&v) }

func (r *Router) recoverer() (Recovery, error) {
	if v := r.recovery.Load(); v != nil {
		return *v, nil
	}
	return nil, fault.New(fault.Unavailable, "node is starting")
}

// RecoverPlan returns what this node and every peer that it knows of say of
// their replicas. Those that do not answer have their error there. It is
// answered without any quorum.
func (r *Router) RecoverPlan(ctx context.Context, _ *api.RecoverPlanRequest) (*api.RecoverPlanResponse, error) {
	own, err := r.ServeRecoverNode(ctx, &api.RecoverPlanRequest{})
	if err != nil {
		return nil, err
	}
	names := map[keyspace.NodeID]string{}
	for _, rep := range own.GetReplicas() {
		for _, m := range rep.GetMembers() {
			names[keyspace.NodeID(m.GetNodeId())] = ""
		}
	}
	for _, n := range own.GetKnown() {
		names[keyspace.NodeID(n.GetId())] = n.GetName()
	}
	delete(names, r.o.Node)
	out := &api.RecoverPlanResponse{Nodes: []*api.RecoverNode{own}}
	ctx, cancel := context.WithTimeout(ctx, recoverAsk)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for id, name := range names {
		wg.Go(func() {
			n := r.askRecoverNode(ctx, id, name)
			mu.Lock()
			out.Nodes = append(out.Nodes, n)
			mu.Unlock()
		})
	}
	wg.Wait()
	return out, nil
}

// askRecoverNode asks the node of an id; another one may have its address now.
func (r *Router) askRecoverNode(ctx context.Context, id keyspace.NodeID, name string) *api.RecoverNode {
	n := &api.RecoverNode{}
	err := r.CallPeer(ctx, id, RecoverNodeMethod, &api.RecoverPlanRequest{}, n)
	if err == nil && n.GetNodeId() != string(id) {
		err = fault.New(fault.Unavailable, "another node answers at its address", "node", n.GetNodeId())
	}
	if err != nil {
		return &api.RecoverNode{NodeId: string(id), NodeName: name, Error: err.Error()}
	}
	return n
}

// Recover takes one step of a recovery, or has the node that it is for take it.
func (r *Router) Recover(ctx context.Context, req *api.RecoverRequest) (*api.RecoverResponse, error) {
	node := keyspace.NodeID(req.GetNodeId())
	if node == r.o.Node {
		return r.ServeRecoverStep(ctx, req)
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	out := &api.RecoverResponse{}
	if err := r.CallPeer(ctx, node, RecoverStepMethod, req, out); err != nil {
		return nil, err
	}
	return out, nil
}

// ServeRecoverNode answers RecoverNodeMethod.
func (r *Router) ServeRecoverNode(ctx context.Context, _ *api.RecoverPlanRequest) (*api.RecoverNode, error) {
	v, err := r.recoverer()
	if err != nil {
		return nil, err
	}
	return v.RecoverNode(ctx)
}

// ServeRecoverStep answers RecoverStepMethod.
func (r *Router) ServeRecoverStep(ctx context.Context, req *api.RecoverRequest) (*api.RecoverResponse, error) {
	v, err := r.recoverer()
	if err != nil {
		return nil, err
	}
	if req.GetNodeId() != string(r.o.Node) {
		return nil, fault.New(fault.FailedPrecondition, "the step is for another node", "node", r.o.Node, "want", req.GetNodeId())
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	return v.RecoverStep(ctx, req)
}
