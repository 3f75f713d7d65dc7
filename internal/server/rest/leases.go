package rest

import (
	"net/http"
	"net/url"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/router"
	"kvstore/internal/txnform"
)

// Headers of writes: the lease that a key is attached to, and the fence.
const (
	headerLease           = "X-Kvstore-Lease"
	headerFence           = "X-Kvstore-Fence"
	headerCreatedRevision = "X-Kvstore-Created-Revision"
)

// readFence reads NAMESPACE/KEY@REVISION, with the key percent-encoded; nil without
// the header.
func readFence(q *request) (*api.Fence, error) {
	text := q.r.Header.Get(headerFence)
	if text == "" {
		return nil, nil
	}
	fence, problem := txnform.ParseFence(text)
	if problem != "" {
		return nil, badHeader(headerFence, problem, text)
	}
	return fence, nil
}

// lease is the JSON of api.Lease.
type lease struct {
	ID          string     `json:"id"`
	TTLSeconds  int64      `json:"ttl_seconds"`
	ExpiresAt   string     `json:"expires_at"`
	RemainingMS int64      `json:"remaining_ms"`
	Revision    revision   `json:"revision"`
	Keys        []leaseKey `json:"keys,omitempty"`
	KeysMore    bool       `json:"keys_more,omitempty"`
}

type leaseKey struct {
	Namespace string `json:"namespace"`
	Key       string `json:"key"`
}

func leaseOf(l *api.Lease) lease {
	out := lease{
		ID: l.GetId(), TTLSeconds: l.GetTtlSeconds(), ExpiresAt: formatTime(l.GetExpiresAtMs()),
		RemainingMS: l.GetRemainingMs(), Revision: revision(l.GetRevision()), KeysMore: l.GetKeysMore(),
	}
	for _, k := range l.GetKeys() {
		out.Keys = append(out.Keys, leaseKey{Namespace: k.GetNamespace(), Key: k.GetKey()})
	}
	return out
}

// withLeases runs a handler that needs leases.
func (s *Server) withLeases(handle func(*request, Leases) error) func(*request) error {
	return func(q *request) error {
		if s.o.Leases == nil {
			return fault.New(fault.Unsupported, "this server has no leases")
		}
		q.r = q.r.WithContext(router.WithIdentity(q.ctx(), guard.Identity(q.ctx())))
		return handle(q, s.o.Leases)
	}
}

func (s *Server) grantLease(q *request, leases Leases) error {
	var body struct {
		ID         string `json:"id"`
		TTLSeconds int64  `json:"ttl_seconds"`
	}
	if err := readJSON(q, maxSmallBody, &body); err != nil {
		return err
	}
	res, err := leases.Grant(q.ctx(), &api.LeaseGrantRequest{Id: body.ID, TtlSeconds: body.TTLSeconds})
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", leasesPath+"/"+url.PathEscape(res.GetId()))
	return writeJSON(q, http.StatusCreated, leaseOf(res))
}

func (s *Server) listLeases(q *request, leases Leases) error {
	req := &api.LeaseListRequest{ContinuationToken: q.query.text("continuation_token")}
	limit, err := q.query.number("limit", 32)
	if err != nil {
		return err
	}
	if limit != nil {
		req.Limit = uint32(*limit)
	}
	res, err := leases.List(q.ctx(), req)
	if err != nil {
		return err
	}
	out := struct {
		Leases            []lease `json:"leases"`
		ContinuationToken string  `json:"continuation_token,omitempty"`
	}{make([]lease, len(res.GetLeases())), res.GetContinuationToken()}
	for i, l := range res.GetLeases() {
		out.Leases[i] = leaseOf(l)
	}
	return writeJSON(q, http.StatusOK, out)
}

func (s *Server) describeLease(q *request, leases Leases) error {
	keys, err := q.query.flag("keys")
	if err != nil {
		return err
	}
	res, err := leases.Describe(q.ctx(), &api.LeaseDescribeRequest{Id: q.param, Keys: keys})
	if err != nil {
		return err
	}
	return writeJSON(q, http.StatusOK, leaseOf(res))
}

func (s *Server) keepAlive(q *request, leases Leases) error {
	res, err := leases.KeepAlive(q.ctx(), &api.LeaseKeepAliveRequest{Id: q.param})
	if err != nil {
		return err
	}
	return writeJSON(q, http.StatusOK, leaseOf(res))
}

func (s *Server) revokeLease(q *request, leases Leases) error {
	res, err := leases.Revoke(q.ctx(), &api.LeaseRevokeRequest{Id: q.param})
	if err != nil {
		return err
	}
	return writeJSON(q, http.StatusOK, map[string]uint64{"deleted": res.GetDeleted()})
}
