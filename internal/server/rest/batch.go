package rest

import (
	"net/http"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// Bodies of the batch routes. Items happen whole per group; with atomic set the
// whole batch does.

type batchPutBody struct {
	Items  []putItem `json:"items"`
	Atomic bool      `json:"atomic"`
}

type putItem struct {
	Key         string            `json:"key"`
	Value       *string           `json:"value"`
	ValueBase64 *string           `json:"value_base64"`
	ContentType string            `json:"content_type"`
	Encoding    string            `json:"encoding"`
	Checksum    string            `json:"checksum"`
	TTLSeconds  int64             `json:"ttl_seconds"`
	ExpiresAt   string            `json:"expires_at"`
	Tags        map[string]string `json:"tags"`
	Metadata    map[string]string `json:"metadata"`
	Condition   *conditionBody    `json:"condition"`
	Lease       *string           `json:"lease"`
}

type conditionBody struct {
	VersionMatch      *uint64   `json:"version_match"`
	RevisionMatch     *revision `json:"revision_match"`
	MustExist         bool      `json:"must_exist"`
	MustNotExist      bool      `json:"must_not_exist"`
	ValueEquals       *string   `json:"value_equals"`
	ValueEqualsBase64 *string   `json:"value_equals_base64"`
	CreatedMatch      *revision `json:"created_match"`
	LeaseMatch        *string   `json:"lease_match"`
}

type batchGetBody struct {
	Keys     []string `json:"keys"`
	KeysOnly bool     `json:"keys_only"`
}

type batchDeleteBody struct {
	Items  []deleteItem `json:"items"`
	Keys   []string     `json:"keys"`
	Atomic bool         `json:"atomic"`
}

type deleteItem struct {
	Key       string         `json:"key"`
	Condition *conditionBody `json:"condition"`
}

// Results, one per item in the order of the request. Error is absent on
// success.

type putResult struct {
	Key   string   `json:"key"`
	Error *problem `json:"error,omitempty"`
	*putEnvelope
}

type getResult struct {
	Key    string   `json:"key"`
	Error  *problem `json:"error,omitempty"`
	Record *record  `json:"record,omitempty"`
}

type deleteResult struct {
	Key   string   `json:"key"`
	Error *problem `json:"error,omitempty"`
	*deleteEnvelope
}

type results[T any] struct {
	Results []T `json:"results"`
}

func (s *Server) batchPut(q *request) error {
	var body batchPutBody
	if err := readJSON(q, maxBatchBody, &body); err != nil {
		return err
	}
	req := &api.BatchPutRequest{Namespace: q.query.text("namespace"), Atomic: body.Atomic, RequestId: q.r.Header.Get(headerRequestID)}
	for i := range body.Items {
		put, err := body.Items[i].request(i)
		if err != nil {
			return err
		}
		req.Items = append(req.Items, put)
	}
	fence, err := readFence(q)
	if err != nil {
		return err
	}
	req.Fence = fence
	res, err := s.do(q.ctx(), &api.PipelineOp{Op: &api.PipelineOp_BatchPut{BatchPut: req}})
	if err != nil {
		return err
	}
	all := res.GetBatchPut().GetResults()
	out := results[putResult]{Results: make([]putResult, len(all))}
	for i, r := range all {
		out.Results[i] = putResult{Key: req.Items[i].Key, Error: itemError(r.GetStatus())}
		if out.Results[i].Error == nil {
			e := putEnvelopeOf(r.GetPut())
			out.Results[i].putEnvelope = &e
		}
	}
	return writeJSON(q, http.StatusOK, out)
}

// request turns item i into a put.
func (p *putItem) request(i int) (*api.PutRequest, error) {
	put := &api.PutRequest{
		Key: p.Key, ContentType: p.ContentType, Encoding: p.Encoding,
		TtlSeconds: p.TTLSeconds, Tags: p.Tags, Metadata: p.Metadata,
	}
	if p.Lease != nil {
		if put.Lease = *p.Lease; put.Lease == "" {
			return nil, badItem(i, "lease", "is empty")
		}
	}
	if (p.Value == nil) == (p.ValueBase64 == nil) {
		return nil, badItem(i, "value", "needs exactly one of value and value_base64")
	}
	value, _, err := eitherValue(p.Value, p.ValueBase64)
	if err != nil {
		return nil, badItem(i, "value_base64", "is not base64")
	}
	put.Value = value
	if p.Checksum != "" {
		sum, ok := parseChecksum(p.Checksum)
		if !ok {
			return nil, badItem(i, "checksum", "must be 8 hexadecimal digits")
		}
		put.Checksum = &sum
	}
	if p.ExpiresAt != "" {
		ms, ok := parseTime(p.ExpiresAt)
		if !ok {
			return nil, badItem(i, "expires_at", "must be a time as in 2027-01-31T12:00:00Z")
		}
		put.ExpiresAtMs = ms
		if p.TTLSeconds != 0 {
			return nil, badItem(i, "expires_at", "excludes ttl_seconds")
		}
	}
	put.Condition, err = p.Condition.condition(i)
	return put, err
}

func (c *conditionBody) condition(i int) (*api.Condition, error) {
	if c == nil {
		return nil, nil
	}
	out := &api.Condition{VersionMatch: c.VersionMatch, RevisionMatch: (*uint64)(c.RevisionMatch), MustExist: c.MustExist, MustNotExist: c.MustNotExist,
		CreatedMatch: (*uint64)(c.CreatedMatch), LeaseMatch: c.LeaseMatch}
	value, set, err := eitherValue(c.ValueEquals, c.ValueEqualsBase64)
	if err != nil {
		return nil, badItem(i, "condition", "takes one of value_equals and value_equals_base64 (base64)")
	}
	if set {
		out.ValueEquals = value
	}
	return out, nil
}

// eitherValue returns the bytes given as text or as base64.
func eitherValue(text, encoded *string) (value []byte, set bool, err error) {
	switch {
	case text != nil && encoded != nil:
		return nil, false, fault.New(fault.InvalidArgument, "given twice")
	case text != nil:
		return []byte(*text), true, nil
	case encoded != nil:
		value, err = decodeBase64(*encoded)
		return value, true, err
	}
	return nil, false, nil
}

func badItem(i int, member, problem string) error {
	return fault.New(fault.InvalidArgument, member+" of the batch item "+problem, "item", i, "member", member)
}

func (s *Server) batchGet(q *request) error {
	var body batchGetBody
	if err := readJSON(q, maxBatchBody, &body); err != nil {
		return err
	}
	level, stale, err := q.query.consistency()
	if err != nil {
		return err
	}
	at, err := q.query.moment()
	if err != nil {
		return err
	}
	req := &api.BatchGetRequest{Namespace: q.query.text("namespace"), Keys: body.Keys, KeysOnly: body.KeysOnly,
		Consistency: level, MaxStalenessMs: stale, AtRevision: at.Revision, AtTimeMs: at.TimeMs}
	res, err := s.do(q.ctx(), &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: req}})
	if err != nil {
		return err
	}
	all := res.GetBatchGet().GetResults()
	out := results[getResult]{Results: make([]getResult, len(all))}
	for i, r := range all {
		out.Results[i] = getResult{Key: req.Keys[i], Error: itemError(r.GetStatus())}
		if out.Results[i].Error == nil {
			e := listed(r.GetRecord(), req.KeysOnly)
			out.Results[i].Record = &e
		}
	}
	return writeJSON(q, http.StatusOK, out)
}

func (s *Server) batchDelete(q *request) error {
	var body batchDeleteBody
	if err := readJSON(q, maxBatchBody, &body); err != nil {
		return err
	}
	req := &api.BatchDeleteRequest{Namespace: q.query.text("namespace"), Atomic: body.Atomic, RequestId: q.r.Header.Get(headerRequestID)}
	for i, item := range body.Items {
		c, err := item.Condition.condition(i)
		if err != nil {
			return err
		}
		req.Items = append(req.Items, &api.DeleteRequest{Key: item.Key, Condition: c})
	}
	for _, key := range body.Keys {
		req.Items = append(req.Items, &api.DeleteRequest{Key: key})
	}
	fence, err := readFence(q)
	if err != nil {
		return err
	}
	req.Fence = fence
	res, err := s.do(q.ctx(), &api.PipelineOp{Op: &api.PipelineOp_BatchDelete{BatchDelete: req}})
	if err != nil {
		return err
	}
	all := res.GetBatchDelete().GetResults()
	out := results[deleteResult]{Results: make([]deleteResult, len(all))}
	for i, r := range all {
		out.Results[i] = deleteResult{Key: req.Items[i].Key, Error: itemError(r.GetStatus())}
		if out.Results[i].Error == nil {
			out.Results[i].deleteEnvelope = &deleteEnvelope{Existed: r.GetDelete().GetExisted(), Revision: revision(r.GetDelete().GetRevision())}
		}
	}
	return writeJSON(q, http.StatusOK, out)
}

// listed is the envelope of a record of a list or batch.
func listed(rec *api.Record, keysOnly bool) record {
	if keysOnly {
		return bareEnvelopeOf(rec)
	}
	return envelopeOf(rec)
}
