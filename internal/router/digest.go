package router

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// digestPoll is the pause between two looks at a replica's digest.
const digestPoll = 50 * time.Millisecond

// GroupDigestMethod is the Peer.Call method behind Digest: an api.GroupDigest
// with index 0 asks the leader to start one and answers with its index; with
// an index it waits for the replica of the node that is asked.
const GroupDigestMethod = "GroupDigest"

// Digest makes every replica of every group hash its records at one log index
// and compares. A replica that cannot be asked or stays behind until the
// deadline has its error in the answer, and its group is not equal.
func (r *Router) Digest(ctx context.Context, _ *api.DigestRequest) (*api.DigestResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	m := r.o.Directory.Map()
	if m.Groups == 0 {
		return nil, fault.New(fault.Unavailable, "the cluster's layout is not known yet")
	}
	out := &api.DigestResponse{Groups: make([]*api.GroupDigest, m.Groups+1), Equal: true}
	var eg errgroup.Group
	for g := range keyspace.GroupID(m.Groups + 1) {
		eg.Go(func() error {
			out.Groups[g] = r.digestGroup(ctx, g, m.Members[g])
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, err
	}
	for _, g := range out.Groups {
		out.Equal = out.Equal && g.Equal
	}
	return out, nil
}

func (r *Router) digestGroup(ctx context.Context, g keyspace.GroupID, members []Member) *api.GroupDigest {
	out := &api.GroupDigest{Group: uint32(g)}
	for _, m := range members {
		if m.Witness() {
			continue
		}
		out.Replicas = append(out.Replicas, &api.ReplicaDigest{NodeId: string(m.Node), Replica: uint64(m.Replica)})
	}
	index, err := r.startDigest(ctx, g)
	if err != nil {
		for _, rep := range out.Replicas {
			rep.Error = err.Error()
		}
		return out
	}
	out.Index = uint64(index)
	var eg errgroup.Group
	for _, rep := range out.Replicas {
		eg.Go(func() error {
			r.digestReplica(ctx, g, index, rep)
			return nil
		})
	}
	_ = eg.Wait() // the functions report through rep
	out.Equal = equalDigests(out.Replicas)
	return out
}

func equalDigests(replicas []*api.ReplicaDigest) bool {
	for _, rep := range replicas {
		if rep.Error != "" || rep.Hash != replicas[0].Hash || rep.Keys != replicas[0].Keys {
			return false
		}
	}
	return len(replicas) > 0
}

// startDigest has the leader start a digest and returns its index.
func (r *Router) startDigest(ctx context.Context, g keyspace.GroupID) (index keyspace.Index, err error) {
	req := &api.GroupDigest{Group: uint32(g)}
	err = r.onGroup(ctx, g, attempt{
		patient: true,
		local: func(ctx context.Context) error {
			d, err := r.ServeDigest(ctx, req)
			index = keyspace.Index(d.GetIndex())
			return err
		},
		remote: func(ctx context.Context, node keyspace.NodeID, _ api.PeerClient) error {
			resp := &api.GroupDigest{}
			err := r.CallPeer(ctx, node, GroupDigestMethod, req, resp)
			index = keyspace.Index(resp.Index)
			return err
		},
	})
	return index, err
}

// digestReplica fills rep with the digest of one replica at index.
func (r *Router) digestReplica(ctx context.Context, g keyspace.GroupID, index keyspace.Index, rep *api.ReplicaDigest) {
	req := &api.GroupDigest{Group: uint32(g), Index: uint64(index)}
	var resp *api.GroupDigest
	var err error
	if node := keyspace.NodeID(rep.NodeId); node == r.o.Node {
		resp, err = r.ServeDigest(ctx, req)
	} else {
		resp = &api.GroupDigest{}
		err = r.CallPeer(ctx, node, GroupDigestMethod, req, resp)
	}
	switch {
	case err != nil:
		rep.Error = err.Error()
	case len(resp.Replicas) != 1:
		rep.Error = "peer answered without a digest"
	default:
		rep.Hash, rep.Keys = resp.Replicas[0].Hash, resp.Replicas[0].Keys
	}
}

// ServeDigest answers GroupDigestMethod from this node's replica.
func (r *Router) ServeDigest(ctx context.Context, req *api.GroupDigest) (*api.GroupDigest, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	g := keyspace.GroupID(req.Group)
	index := keyspace.Index(req.Index)
	if index == 0 {
		var err error
		if index, err = r.o.Host.RequestDigest(ctx, g); err != nil {
			return nil, err
		}
	}
	d, err := r.awaitDigest(ctx, g, index)
	if err != nil {
		return nil, err
	}
	return &api.GroupDigest{
		Group: req.Group, Index: uint64(d.Index),
		Replicas: []*api.ReplicaDigest{{NodeId: string(r.o.Node), Hash: d.Hash, Keys: d.Keys}},
	}, nil
}

// awaitDigest waits until the replica here has hashed its records at index.
func (r *Router) awaitDigest(ctx context.Context, g keyspace.GroupID, index keyspace.Index) (host.Digest, error) {
	for {
		if d, ok := r.o.Host.DigestAt(g, index); ok {
			return d, nil
		}
		if !r.o.Host.Hosts(g) {
			return host.Digest{}, fault.New(fault.Unavailable, "replica is not running on this node", "group", g, "node", r.o.Node)
		}
		if !r.pause(ctx, digestPoll) {
			return host.Digest{}, fault.New(fault.DeadlineExceeded, "replica did not reach the digest in time",
				"group", g, "node", r.o.Node, "index", index)
		}
	}
}
