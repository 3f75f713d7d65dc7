package transport

import (
	"context"
	"fmt"

	"google.golang.org/grpc"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// negotiate returns the format version two nodes speak: the older of the
// newest that each knows.
func negotiate(theirs uint32) (uint32, error) {
	version := min(theirs, format.Version)
	if version < format.MinVersion {
		return 0, fault.New(fault.FailedPrecondition, "peer speaks only format versions that are too old",
			"oldest_supported", format.MinVersion, "actual", theirs)
	}
	return version, nil
}

// checkFormat judges the version a frame or snapshot is written in.
func checkFormat(version uint32) error {
	if version < format.MinVersion || version > format.Version {
		return fault.New(fault.FailedPrecondition, "format version is not supported",
			"oldest_supported", format.MinVersion, "newest_supported", format.Version, "actual", version)
	}
	return nil
}

// HandleHello serves Peer.Hello. Errors carry fault codes: Unavailable before
// the cluster is known, FailedPrecondition for another cluster, an unsupported
// format version, or a later recovery. A peer from before a recovery is told of
// it by the answer.
func (t *Transport) HandleHello(_ context.Context, req *api.HelloRequest) (*api.HelloResponse, error) {
	if err := t.checkCluster(req.GetClusterId()); err != nil {
		return nil, err
	}
	if req.GetNodeId() == "" {
		return nil, fault.New(fault.InvalidArgument, "hello without a node id")
	}
	if _, err := negotiate(req.GetFormatVersion()); err != nil {
		return nil, err
	}
	mine := t.Recovery()
	if err := t.judgeRecovery(req.GetRecoveryEpoch(), req.GetSurvivors()); err != nil {
		if req.GetRecoveryEpoch() > mine.Epoch {
			return nil, err
		}
		t.o.Logger.Warn("refused a peer", "peer", req.GetNodeId(), "error", err)
	}
	resp := &api.HelloResponse{
		RecoveryEpoch: mine.Epoch,
		Survivors:     mine.survivors(),
		FormatVersion: format.Version,
		ClusterId:     t.Cluster(),
		NodeId:        string(t.o.Node),
		Version:       t.o.Version,
		Gone:          t.goneText(req.GetNodeId()),
	}
	switch {
	case t.takesLinks.Load() && t.forwards.serve.Load() != nil:
		resp.FramesVersion = forwardsVersion
	case t.takesLinks.Load():
		resp.FramesVersion = linkVersion
	}
	return resp, nil
}

// checkCluster compares a peer's cluster id with ours.
func (t *Transport) checkCluster(theirs string) error {
	mine := t.Cluster()
	if mine == "" {
		return fault.New(fault.Unavailable, "this node is not part of a cluster yet")
	}
	if theirs != mine {
		return fault.New(fault.FailedPrecondition, "peer belongs to another cluster", "cluster_id", mine, "actual", theirs)
	}
	return nil
}

// checkAddress judges the header of a frame or snapshot.
func (t *Transport) checkAddress(cluster, from, to string, version uint32) error {
	if err := t.checkParties(cluster, from, to); err != nil {
		return err
	}
	return checkFormat(version)
}

// checkParties judges who speaks to whom.
func (t *Transport) checkParties(cluster, from, to string) error {
	if err := t.checkCluster(cluster); err != nil {
		return err
	}
	if to != string(t.o.Node) {
		return fault.New(fault.FailedPrecondition, "message is addressed to another node", "node_id", t.o.Node, "actual", to)
	}
	if from == "" || from == to {
		return fault.New(fault.InvalidArgument, "message has no valid sender", "from", from)
	}
	return t.checkGone(from)
}

// greet says Hello on the connection of frames and checks the answer. It
// returns the format version to write and the version of links the peer takes.
func (p *peer) greet(ctx context.Context) (version, links uint32, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.t.o.HelloTimeout)
	defer cancel()
	mine := p.t.Recovery()
	r, err := api.NewPeerClient(p.frames).Hello(ctx, &api.HelloRequest{
		RecoveryEpoch: mine.Epoch,
		Survivors:     mine.survivors(),
		FormatVersion: format.Version,
		ClusterId:     p.t.Cluster(),
		NodeId:        string(p.t.o.Node),
		Version:       p.t.o.Version,
	}, grpc.WaitForReady(true))
	if err != nil {
		return 0, 0, fmt.Errorf("hello: %w", err)
	}
	if err := p.t.checkCluster(r.GetClusterId()); err != nil {
		return 0, 0, err
	}
	if keyspace.NodeID(r.GetNodeId()) != p.id {
		return 0, 0, fault.New(fault.FailedPrecondition, "another node answers at the peer's address",
			"addr", p.addr, "node_id", p.id, "actual", r.GetNodeId())
	}
	if err := p.t.judgeRecovery(r.GetRecoveryEpoch(), r.GetSurvivors()); err != nil {
		return 0, 0, err
	}
	if err := p.t.judgeGone(r.GetGone()); err != nil {
		return 0, 0, err
	}
	p.noteVersion(r.GetVersion())
	p.learnForwards(r.GetFramesVersion())
	version, err = negotiate(r.GetFormatVersion())
	return version, r.GetFramesVersion(), err
}

func (p *peer) noteVersion(version string) {
	p.mu.Lock()
	p.status.Version = version
	p.mu.Unlock()
}
