package rest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	api "kvstore/api/kvstore/v1"
)

// page answers a list. The token is absent on the last page.
type page struct {
	Records  []record `json:"records"`
	Token    string   `json:"continuation_token,omitempty"`
	Revision revision `json:"revision"`
	Count    *uint64  `json:"count,omitempty"`
	// Consistency and Age say how the snapshot was chosen.
	Consistency string `json:"consistency"`
	Age         int64  `json:"age_ms"`
}

// listKeys answers with one page; the Link header names the next one, which is
// of the same snapshot.
func (s *Server) listKeys(q *request) error {
	req, err := listRequest(q)
	if err != nil {
		return err
	}
	res, err := s.b.List(q.ctx(), req)
	if err != nil {
		return err
	}
	out := page{Records: make([]record, len(res.GetRecords())), Token: res.GetContinuationToken(), Revision: revision(res.GetRevision()),
		Consistency: consistencyName(res.GetConsistency()), Age: res.GetAgeMs()}
	h := q.w.Header()
	h.Set(headerConsistency, out.Consistency)
	h.Set(headerReadRevision, strconv.FormatUint(res.GetRevision(), 10))
	h.Set(headerAge, strconv.FormatInt(out.Age, 10))
	for i, rec := range res.GetRecords() {
		out.Records[i] = listed(rec, req.KeysOnly)
	}
	if req.CountOnly {
		count := res.GetCount()
		out.Count = &count
	}
	if out.Token != "" {
		next := url.Values(q.query)
		next.Set("continuation_token", out.Token)
		h.Set("Link", "<"+keysPath+"?"+next.Encode()+`>; rel="next"`)
	}
	return writeJSON(q, http.StatusOK, out)
}

func listRequest(q *request) (*api.ListRequest, error) {
	p := q.query
	req := &api.ListRequest{
		Namespace: p.text("namespace"), Prefix: p.text("prefix"), Start: p.text("start"), End: p.text("end"),
		ContinuationToken: p.text("continuation_token"),
	}
	limit, err := p.number("limit", 32)
	if err != nil {
		return nil, err
	}
	if limit != nil {
		if *limit == 0 {
			return nil, badParam("limit", "must be positive", "0")
		}
		req.Limit = uint32(*limit)
	}
	for _, f := range []struct {
		name string
		to   *bool
	}{{"keys_only", &req.KeysOnly}, {"reverse", &req.Reverse}, {"count_only", &req.CountOnly}} {
		if *f.to, err = p.flag(f.name); err != nil {
			return nil, err
		}
	}
	at, err := p.moment()
	if err != nil {
		return nil, err
	}
	req.AtRevision, req.AtTimeMs = at.Revision, at.TimeMs
	if req.Consistency, req.MaxStalenessMs, err = p.listConsistency(); err != nil {
		return nil, err
	}
	req.Tags, err = tagFilter(url.Values(p)["tag"])
	return req, err
}

// tagFilter reads tag=name=value parameters.
func tagFilter(all []string) (map[string]string, error) {
	if len(all) == 0 {
		return nil, nil
	}
	tags := make(map[string]string, len(all))
	for _, t := range all {
		name, value, ok := strings.Cut(t, "=")
		if _, twice := tags[name]; !ok || twice {
			return nil, badParam("tag", "must be name=value, each name once", t)
		}
		tags[name] = value
	}
	return tags, nil
}
