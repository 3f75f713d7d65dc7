package rest

import (
	"net/http"
	"net/url"
	"strconv"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// version is one version of a key; of a deletion it has neither value nor record.
type version struct {
	Revision  revision `json:"revision"`
	UpdatedAt string   `json:"updated_at"`
	Deleted   bool     `json:"deleted,omitempty"`
	Reason    string   `json:"reason,omitempty"`
	Record    *record  `json:"record,omitempty"`
}

// versions answers a history, newest first. Next is absent on the last page.
type versions struct {
	Versions []version `json:"versions"`
	Next     *revision `json:"next_revision,omitempty"`
	Floor    revision  `json:"floor"`
}

// history answers with one page; the Link header names the next one.
func (s *Server) history(q *request) error {
	if err := keyspace.ValidateKey(q.param); err != nil {
		return err
	}
	req := &api.HistoryRequest{Namespace: q.query.text("namespace"), Key: q.param}
	until, err := q.query.number("until_revision", 64)
	if err != nil {
		return err
	}
	if until != nil {
		req.UntilRevision = *until
	}
	limit, err := q.query.number("limit", 32)
	if err != nil {
		return err
	}
	if limit != nil {
		if *limit == 0 {
			return badParam("limit", "must be positive", "0")
		}
		req.Limit = uint32(*limit)
	}
	if req.KeysOnly, err = q.query.flag("keys_only"); err != nil {
		return err
	}
	res, err := s.b.History(q.ctx(), req)
	if err != nil {
		return err
	}
	return writeHistory(q, req, res)
}

func writeHistory(q *request, req *api.HistoryRequest, res *api.HistoryResponse) error {
	out := versions{Versions: make([]version, len(res.GetVersions())), Floor: revision(res.GetFloor())}
	for i, v := range res.GetVersions() {
		rec := v.GetRecord()
		out.Versions[i] = version{Revision: revision(rec.GetRevision()), UpdatedAt: formatTime(rec.GetUpdatedAtMs()),
			Deleted: v.GetDeleted(), Reason: v.GetReason()}
		if !v.GetDeleted() {
			out.Versions[i].Record = new(listed(rec, req.KeysOnly))
		}
	}
	if next := res.GetNextRevision(); next != 0 {
		out.Next = new(revision(next))
		query := url.Values(q.query)
		query.Set("until_revision", strconv.FormatUint(next, 10))
		q.w.Header().Set("Link", "<"+q.r.URL.EscapedPath()+"?"+query.Encode()+`>; rel="next"`)
	}
	return writeJSON(q, http.StatusOK, out)
}
