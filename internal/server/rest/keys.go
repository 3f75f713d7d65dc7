package rest

import (
	"net/http"
	"strconv"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// getKey answers with the raw value, or with its envelope.
func (s *Server) getKey(q *request) error { return s.readKey(q, false) }

// headKey answers with the headers of getKey; the value is not read.
func (s *Server) headKey(q *request) error { return s.readKey(q, true) }

func (s *Server) readKey(q *request, head bool) error {
	envelope, err := wantsEnvelope(q)
	if err != nil {
		return err
	}
	match, err := parseTags(q.r.Header, "If-Match")
	if err != nil {
		return err
	}
	none, err := parseTags(q.r.Header, "If-None-Match")
	if err != nil {
		return err
	}
	resp, err := s.fetch(q, head)
	if err != nil {
		return err
	}
	rec := resp.GetRecord()
	if match.present && !match.holds(rec.GetRevision(), envelope, false) {
		return preconditionFailed(q.param, "If-Match names no current revision")
	}
	h := q.w.Header()
	writeRecord(h, rec, envelope)
	h.Set(headerConsistency, consistencyName(resp.GetConsistency()))
	h.Set(headerReadRevision, strconv.FormatUint(resp.GetReadRevision(), 10))
	h.Set(headerAge, strconv.FormatInt(resp.GetAgeMs(), 10))
	if none.present && none.holds(rec.GetRevision(), envelope, true) {
		q.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	return writeValue(q, resp, envelope, head)
}

// fetch runs the Get of a request.
func (s *Server) fetch(q *request, head bool) (*api.GetResponse, error) {
	if err := keyspace.ValidateKey(q.param); err != nil {
		return nil, err
	}
	level, stale, err := q.query.consistency()
	if err != nil {
		return nil, err
	}
	get := &api.GetRequest{Namespace: q.query.text("namespace"), Key: q.param, Consistency: level, MaxStalenessMs: stale, KeysOnly: head}
	at, err := q.query.number("at_revision", 64)
	if err != nil {
		return nil, err
	}
	if at != nil {
		get.AtRevision = *at
	}
	then, err := q.query.moment()
	switch {
	case err != nil:
		return nil, err
	case at != nil && q.query.has("at"):
		return nil, badParam("at", "excludes at_revision", q.query.text("at"))
	case at == nil:
		get.AtRevision, get.AtTimeMs = then.Revision, then.TimeMs
	}
	res, err := s.do(q.ctx(), &api.PipelineOp{Op: &api.PipelineOp_Get{Get: get}})
	if err != nil {
		return nil, err
	}
	if res.GetGet().GetRecord() == nil {
		return nil, fault.New(fault.Internal, "a read without a record", "key", q.param)
	}
	return res.GetGet(), nil
}

func writeValue(q *request, resp *api.GetResponse, envelope, head bool) error {
	rec, h := resp.GetRecord(), q.w.Header()
	if envelope && !head {
		return writeJSON(q, http.StatusOK, getEnvelope{
			record: envelopeOf(rec), Consistency: consistencyName(resp.GetConsistency()),
			ReadRevision: revision(resp.GetReadRevision()), AgeMS: resp.GetAgeMs(),
		})
	}
	if envelope {
		h.Set("Content-Type", "application/json")
		q.w.WriteHeader(http.StatusOK)
		return nil
	}
	writeContent(h, rec)
	size := rec.GetSize()
	if !head {
		size = uint64(len(rec.GetValue()))
	}
	h.Set("Content-Length", strconv.FormatUint(size, 10))
	q.w.WriteHeader(http.StatusOK)
	if !head {
		_, _ = q.w.Write(rec.GetValue()) // the client is gone: nobody to tell
	}
	return nil
}

// putKey writes the body as the key's value. Everything that can be refused
// before the body is read is refused then.
func (s *Server) putKey(q *request) error {
	put := &api.PutRequest{Namespace: q.query.text("namespace"), Key: q.param, RequestId: q.r.Header.Get(headerRequestID)}
	if err := keyspace.ValidateKey(put.Key); err != nil {
		return err
	}
	envelope, err := wantsEnvelope(q)
	if err != nil {
		return err
	}
	if err := readRecord(q, put); err != nil {
		return err
	}
	if q.r.Header.Get("Content-Range") != "" {
		return fault.New(fault.InvalidArgument, "a value is written whole; Content-Range is not supported", "header", "Content-Range")
	}
	if put.Condition, err = s.writeCondition(q, put.Key); err != nil {
		return err
	}
	if put.Fence, err = readFence(q); err != nil {
		return err
	}
	if put.Value, err = readBody(q, keyspace.MaxValueBytes, valueTooLarge(put.Key)); err != nil {
		return err
	}
	res, err := s.do(q.ctx(), &api.PipelineOp{Op: &api.PipelineOp_Put{Put: put}})
	if err != nil {
		return err
	}
	return writePut(q, res.GetPut(), envelope)
}

func writePut(q *request, res *api.PutResponse, envelope bool) error {
	writeRecord(q.w.Header(), &api.Record{
		Version: res.GetVersion(), Revision: res.GetRevision(), Checksum: res.GetChecksum(),
		CreatedAtMs: res.GetCreatedAtMs(), UpdatedAtMs: res.GetUpdatedAtMs(), ExpiresAtMs: res.GetExpiresAtMs(),
	}, false)
	code := http.StatusOK
	if res.GetVersion() == 1 {
		code = http.StatusCreated
		q.w.Header().Set("Location", q.r.URL.EscapedPath())
	}
	if envelope {
		return writeJSON(q, code, putEnvelopeOf(res))
	}
	if code == http.StatusOK {
		code = http.StatusNoContent
	} else {
		q.w.Header().Set("Content-Length", "0")
	}
	q.w.WriteHeader(code)
	return nil
}

// touchKey gives a key another deadline; its value stays.
func (s *Server) touchKey(q *request) error {
	touch := &api.TouchRequest{Namespace: q.query.text("namespace"), Key: q.param}
	if err := keyspace.ValidateKey(touch.Key); err != nil {
		return err
	}
	envelope, err := wantsEnvelope(q)
	if err != nil {
		return err
	}
	if err := readTouch(q, touch); err != nil {
		return err
	}
	if touch.Condition, err = s.writeCondition(q, touch.Key); err != nil {
		return err
	}
	res, err := s.do(q.ctx(), &api.PipelineOp{Op: &api.PipelineOp_Touch{Touch: touch}})
	if err != nil {
		return err
	}
	return writePut(q, res.GetTouch(), envelope)
}

// readTouch reads what is to become of the deadline, from the query or headers. A
// body means something else, a new value perhaps: it must not seem to be taken.
func readTouch(q *request, touch *api.TouchRequest) (err error) {
	const takes = "the query parameters ttl_seconds, expires_at and persist"
	if _, err = readBody(q, 0, func(int64, string) error {
		return fault.New(fault.InvalidArgument, "a PATCH has no body; it takes "+takes)
	}); err != nil {
		return err
	}
	if touch.TtlSeconds, touch.ExpiresAtMs, err = readExpiry(q); err != nil {
		return err
	}
	if touch.Persist, err = q.query.flag("persist"); err != nil {
		return err
	}
	switch expires := touch.TtlSeconds != 0 || touch.ExpiresAtMs != 0; {
	case touch.Persist && expires:
		return fault.New(fault.InvalidArgument, "persist excludes ttl_seconds and expires_at")
	case !touch.Persist && !expires:
		return fault.New(fault.InvalidArgument, "a PATCH needs one of "+takes)
	}
	return nil
}

// deleteKey removes a key. A key that is not there is no error: the outcome is
// what was asked for.
func (s *Server) deleteKey(q *request) error {
	del := &api.DeleteRequest{Namespace: q.query.text("namespace"), Key: q.param, RequestId: q.r.Header.Get(headerRequestID)}
	if err := keyspace.ValidateKey(del.Key); err != nil {
		return err
	}
	envelope, err := wantsEnvelope(q)
	if err != nil {
		return err
	}
	if del.Condition, err = s.writeCondition(q, del.Key); err != nil {
		return err
	}
	if del.Fence, err = readFence(q); err != nil {
		return err
	}
	res, err := s.do(q.ctx(), &api.PipelineOp{Op: &api.PipelineOp_Delete{Delete: del}})
	if err != nil {
		return err
	}
	out := res.GetDelete()
	h := q.w.Header()
	h.Set(headerExisted, strconv.FormatBool(out.GetExisted()))
	if out.GetRevision() != 0 {
		h.Set(headerRevision, strconv.FormatUint(out.GetRevision(), 10))
	}
	if envelope {
		return writeJSON(q, http.StatusOK, deleteEnvelope{Existed: out.GetExisted(), Revision: revision(out.GetRevision())})
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}
