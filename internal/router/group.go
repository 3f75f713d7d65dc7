package router

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// groupClock confirms the leadership of g and returns its clock, at least
// atLeast, once everything it stamped is applied.
func (r *Router) groupClock(ctx context.Context, g keyspace.GroupID, atLeast keyspace.Revision) (keyspace.Revision, error) {
	var clock keyspace.Revision
	err := r.onGroup(ctx, g, attempt{
		local: func(ctx context.Context) (err error) {
			clock, err = r.o.Host.Clock(ctx, g, atLeast)
			return err
		},
		remote: func(ctx context.Context, _ keyspace.NodeID, peer api.PeerClient) error {
			resp, err := peer.GroupClock(ctx, &api.GroupClockRequest{Group: uint32(g), AtLeast: uint64(atLeast)})
			clock = keyspace.Revision(resp.GetClock())
			return err
		},
	})
	return clock, err
}

// scanPage is one page of one group in wire form.
type scanPage struct {
	records []*api.Record
	next    []byte
	more    bool
	count   uint64
}

// scanGroup reads one page of g on any replica that can serve its revision.
func (r *Router) scanGroup(ctx context.Context, g keyspace.GroupID, nsName string, q host.ScanRequest) (scanPage, error) {
	var page scanPage
	err := r.onGroup(ctx, g, attempt{
		anyReplica: true,
		local: func(ctx context.Context) error {
			p, err := r.o.Host.Scan(ctx, g, q)
			page = scanPage{records: records(p.Items, q.KeysOnly), next: p.Next, more: p.More, count: p.Count}
			return err
		},
		remote: func(ctx context.Context, _ keyspace.NodeID, peer api.PeerClient) error {
			resp, err := peer.GroupScan(ctx, scanRequest(g, nsName, q))
			page = scanPage{records: resp.GetRecords(), next: resp.GetNext(), more: resp.GetMore(), count: resp.GetCount()}
			return err
		},
	})
	return page, err
}

func scanRequest(g keyspace.GroupID, nsName string, q host.ScanRequest) *api.GroupScanRequest {
	return &api.GroupScanRequest{
		Group: uint32(g), NamespaceId: uint32(q.Namespace), Namespace: nsName, Revision: uint64(q.Revision),
		Start: q.Start, End: q.End, Reverse: q.Reverse, KeysOnly: q.KeysOnly, CountOnly: q.CountOnly,
		Limit: uint32(q.Limit), MaxBytes: uint64(q.MaxBytes), Tags: q.Tags,
	}
}

// ServeClock answers Peer.GroupClock from this node's replica.
func (r *Router) ServeClock(ctx context.Context, q *api.GroupClockRequest) (*api.GroupClockResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	g := keyspace.GroupID(q.Group)
	if leader, local, _ := r.o.Host.Leader(g); !local {
		return nil, errWrongLeader(g, leader)
	}
	clock, err := r.o.Host.Clock(ctx, g, keyspace.Revision(q.AtLeast))
	return &api.GroupClockResponse{Clock: uint64(clock)}, err
}

// ServeScan answers Peer.GroupScan from this node's replica.
func (r *Router) ServeScan(ctx context.Context, q *api.GroupScanRequest) (*api.GroupScanResponse, error) {
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	g := keyspace.GroupID(q.Group)
	if !r.o.Host.Hosts(g) {
		return nil, errWrongLeader(g, "")
	}
	p, err := r.o.Host.Scan(ctx, g, scanOf(q))
	if err != nil {
		return nil, err
	}
	return &api.GroupScanResponse{Records: records(p.Items, q.KeysOnly), Next: p.Next, More: p.More, Count: p.Count}, nil
}

// scanOf is the inverse of scanRequest; bounds are those of a message.
func scanOf(q *api.GroupScanRequest) host.ScanRequest {
	return host.ScanRequest{
		Namespace: keyspace.NamespaceID(q.NamespaceId), Revision: keyspace.Revision(q.Revision),
		Start: q.Start, End: q.End, Reverse: q.Reverse, KeysOnly: q.KeysOnly, CountOnly: q.CountOnly,
		Limit: int(min(q.Limit, MaxListLimit)), MaxBytes: int(min(q.MaxBytes, MaxBatchBytes)), Tags: q.Tags,
	}
}

func records(items []host.ScanItem, keysOnly bool) []*api.Record {
	out := make([]*api.Record, len(items))
	for i := range items {
		out[i] = record(items[i].Key, &items[i].Record, keysOnly)
	}
	return out
}
