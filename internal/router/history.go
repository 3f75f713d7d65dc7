package router

import (
	"context"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// HistoryMethod is the Peer.Call method behind History.
const HistoryMethod = "History"

const (
	defaultHistoryLimit = 100
	maxHistoryLimit     = 1000
)

// History returns a page of the versions of one key inside the history window,
// newest first; the first page has all that was acknowledged before it began.
func (r *Router) History(ctx context.Context, req *api.HistoryRequest) (*api.HistoryResponse, error) {
	if err := validateHistory(req); err != nil {
		return nil, err
	}
	ctx, cancel := r.bounded(ctx)
	defer cancel()
	ns, m, err := r.resolveNow(ctx, req.Namespace)
	if err != nil {
		return nil, err
	}
	for n := 1; ; n++ {
		g, ok := m.GroupOfKey(ns, req.Key)
		if !ok {
			return nil, fault.New(fault.Unavailable, "the cluster's layout is not known yet").WithRetry(time.Second)
		}
		page, err := r.historyOf(ctx, g, ns, req)
		if fault.CodeOf(err) != fault.WrongGroup || Forwarded(ctx) {
			return page, err
		}
		// The key's slot has moved.
		newer, refreshed := r.refreshNewer(ctx, m.Epoch)
		if (refreshed != nil || newer.Epoch <= m.Epoch) && !r.pause(ctx, r.backoff(n)) {
			return nil, err
		}
		m = newer
	}
}

// ServeHistory answers HistoryMethod from this node's replica.
func (r *Router) ServeHistory(ctx context.Context, req *api.HistoryRequest) (*api.HistoryResponse, error) {
	return r.History(WithForwarded(ctx), req)
}

func validateHistory(req *api.HistoryRequest) error {
	if req.GetLimit() > maxHistoryLimit {
		return fault.New(fault.InvalidArgument, "limit is too large", "limit", maxHistoryLimit, "actual", req.Limit)
	}
	return keyspace.ValidateKey(req.GetKey())
}

// historyOf reads the page in one group.
func (r *Router) historyOf(ctx context.Context, g keyspace.GroupID, ns keyspace.NamespaceID, req *api.HistoryRequest) (page *api.HistoryResponse, err error) {
	var moved error
	err = r.onGroup(ctx, g, attempt{
		anyReplica: true,
		local: func(ctx context.Context) (err error) {
			if page, err = r.readHistory(ctx, g, ns, req); fault.CodeOf(err) == fault.WrongGroup {
				moved, err = err, nil
			}
			return err
		},
		remote: func(ctx context.Context, node keyspace.NodeID, _ api.PeerClient) error {
			page = &api.HistoryResponse{}
			err := r.CallPeer(ctx, node, HistoryMethod, req, page)
			if fault.CodeOf(err) == fault.WrongGroup {
				moved, err = err, nil
			}
			return err
		},
	})
	if moved != nil {
		return nil, moved
	}
	return page, err
}

func (r *Router) readHistory(ctx context.Context, g keyspace.GroupID, ns keyspace.NamespaceID, req *api.HistoryRequest) (*api.HistoryResponse, error) {
	point, err := r.confirmed(ctx, g)
	if err != nil {
		return nil, err
	}
	q := host.VersionsRequest{Namespace: ns, Key: req.Key, Until: keyspace.Revision(req.UntilRevision), KeysOnly: req.KeysOnly,
		Limit: int(req.Limit), MaxBytes: r.o.PageBytes}
	defaultTo(&q.Limit, defaultHistoryLimit)
	found, err := r.o.Host.Versions(ctx, point, q)
	if err != nil {
		return nil, err
	}
	out := &api.HistoryResponse{Floor: uint64(found.Floor)}
	for i := range found.Versions {
		out.Versions = append(out.Versions, keyVersion(req.Key, &found.Versions[i], req.KeysOnly))
		if found.More {
			out.NextRevision = uint64(found.Versions[i].Revision) - 1
		}
	}
	return out, nil
}

// confirmed is a linearizable point of this node's replica.
func (r *Router) confirmed(ctx context.Context, g keyspace.GroupID) (host.ReadPoint, error) {
	type answer struct {
		point host.ReadPoint
		err   error
	}
	answered := make(chan answer, 1)
	r.o.Host.ReadIndexAll([]host.Read{{Group: g, Deadline: r.o.Clock.Mono() + r.timeout(ctx, 0),
		Done: func(p host.ReadPoint, err error) { answered <- answer{p, err} }}})
	select {
	case a := <-answered:
		return a.point, a.err
	case <-ctx.Done():
		return host.ReadPoint{}, fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "the read was not confirmed in time", "group", g)
	}
}

func keyVersion(key string, rec *format.Record, keysOnly bool) *api.KeyVersion {
	v := &api.KeyVersion{Record: &api.Record{}}
	if rec.Flags&format.FlagTombstone == 0 {
		fillRecord(v.Record, key, rec, keysOnly)
		return v
	}
	v.Record.Key, v.Record.Revision, v.Record.UpdatedAtMs = key, uint64(rec.Revision), rec.Revision.UnixMilli()
	v.Deleted, v.Reason = true, "deleted"
	if rec.Flags&format.FlagExpired != 0 {
		v.Reason = "expired"
	}
	return v
}
