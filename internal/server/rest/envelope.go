package rest

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/server/status"
)

// revision is a 64-bit number as a JSON string: JavaScript's numbers cannot
// hold it. It is read from a string or a number.
type revision uint64

func (r revision) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.FormatUint(uint64(r), 10)), nil
}

func (r *revision) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseUint(string(bytes.Trim(b, `"`)), 10, 64)
	if err != nil {
		return fault.New(fault.InvalidArgument, "a revision must be a whole number, or one as a string", "actual", clip(string(b)))
	}
	*r = revision(n)
	return nil
}

// record is the JSON envelope of a record. A value that is UTF-8 is in value,
// any other in value_base64; a record without its value has neither.
type record struct {
	Key         string            `json:"key"`
	Value       *string           `json:"value,omitempty"`
	ValueBase64 []byte            `json:"value_base64,omitempty"`
	Size        uint64            `json:"size"`
	ContentType string            `json:"content_type,omitempty"`
	Encoding    string            `json:"encoding,omitempty"`
	Checksum    string            `json:"checksum"`
	CreatedAt   string            `json:"created_at,omitempty"`
	UpdatedAt   string            `json:"updated_at,omitempty"`
	ExpiresAt   string            `json:"expires_at,omitempty"`
	Version     uint64            `json:"version"`
	Revision    revision          `json:"revision"`
	Created     revision          `json:"created_revision"`
	ETag        string            `json:"etag"`
	Lease       string            `json:"lease,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	Metadata    map[string]string `json:"metadata,omitempty"`
}

func envelopeOf(rec *api.Record) record {
	e := bareEnvelopeOf(rec)
	if value := rec.GetValue(); utf8.Valid(value) {
		text := string(value)
		e.Value = &text
	} else {
		e.ValueBase64 = value
	}
	return e
}

// bareEnvelopeOf leaves the value out.
func bareEnvelopeOf(rec *api.Record) record {
	return record{
		Key: rec.GetKey(), Size: rec.GetSize(), ContentType: rec.GetContentType(), Encoding: rec.GetEncoding(),
		Checksum: formatChecksum(rec.GetChecksum()), CreatedAt: formatTime(rec.GetCreatedAtMs()),
		UpdatedAt: formatTime(rec.GetUpdatedAtMs()), ExpiresAt: formatTime(rec.GetExpiresAtMs()),
		Version: rec.GetVersion(), Revision: revision(rec.GetRevision()), ETag: etag(rec.GetRevision(), false),
		Created: revision(rec.GetCreatedRevision()), Lease: rec.GetLease(), Tags: rec.GetTags(), Metadata: rec.GetMetadata(),
	}
}

// getEnvelope answers a GET of a key.
type getEnvelope struct {
	record
	Consistency  string   `json:"consistency"`
	ReadRevision revision `json:"read_revision"`
	AgeMS        int64    `json:"age_ms"`
}

// putEnvelope answers a PUT.
type putEnvelope struct {
	Version   uint64   `json:"version"`
	Revision  revision `json:"revision"`
	ETag      string   `json:"etag"`
	CreatedAt string   `json:"created_at,omitempty"`
	UpdatedAt string   `json:"updated_at,omitempty"`
	ExpiresAt string   `json:"expires_at,omitempty"`
	Checksum  string   `json:"checksum"`
}

func putEnvelopeOf(p *api.PutResponse) putEnvelope {
	return putEnvelope{
		Version: p.GetVersion(), Revision: revision(p.GetRevision()), ETag: etag(p.GetRevision(), false),
		CreatedAt: formatTime(p.GetCreatedAtMs()), UpdatedAt: formatTime(p.GetUpdatedAtMs()),
		ExpiresAt: formatTime(p.GetExpiresAtMs()), Checksum: formatChecksum(p.GetChecksum()),
	}
}

// deleteEnvelope answers a DELETE.
type deleteEnvelope struct {
	Existed  bool     `json:"existed"`
	Revision revision `json:"revision"`
}

// itemError is the problem of one item of a batch.
func itemError(s *api.Status) *problem {
	err := status.FromItem(s)
	if err == nil {
		return nil
	}
	p := problemOf(err)
	return &p
}
