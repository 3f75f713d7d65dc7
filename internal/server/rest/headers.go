package rest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

// Headers of a record. Tags and metadata are forms (a=b&c=d, percent-encoded),
// since header names have neither case nor UTF-8.
const (
	headerVersion      = "X-Kvstore-Version"
	headerRevision     = "X-Kvstore-Revision"
	headerChecksum     = "X-Kvstore-Checksum" // CRC32C of the stored bytes, 8 hex digits
	headerTags         = "X-Kvstore-Tags"
	headerMetadata     = "X-Kvstore-Metadata"
	headerTTL          = "X-Kvstore-Ttl" // seconds
	headerExpiresAt    = "X-Kvstore-Expires-At"
	headerCreatedAt    = "X-Kvstore-Created-At"
	headerUpdatedAt    = "X-Kvstore-Updated-At"
	headerExisted      = "X-Kvstore-Existed"
	headerConsistency  = "X-Kvstore-Consistency"
	headerReadRevision = "X-Kvstore-Read-Revision"
	headerAge          = "X-Kvstore-Age-Ms"
	headerRequestID    = "Request-Id"
)

const defaultContentType = "application/octet-stream"

// readRecord fills a put from the headers and query of a request.
func readRecord(q *request, put *api.PutRequest) error {
	h := q.r.Header
	put.ContentType = strings.Join(h.Values("Content-Type"), ", ")
	put.Encoding = strings.Join(h.Values("Content-Encoding"), ", ")
	for _, f := range []struct{ name, value string }{{"Content-Type", put.ContentType}, {"Content-Encoding", put.Encoding}} {
		if !utf8.ValidString(f.value) {
			return badHeader(f.name, "is not valid UTF-8", f.value)
		}
	}
	var err error
	if put.Tags, err = readForm(h, headerTags); err != nil {
		return err
	}
	if put.Metadata, err = readForm(h, headerMetadata); err != nil {
		return err
	}
	if text := h.Get(headerChecksum); text != "" {
		sum, ok := parseChecksum(text)
		if !ok {
			return badHeader(headerChecksum, "must be 8 hexadecimal digits", text)
		}
		put.Checksum = &sum
	}
	if put.TtlSeconds, put.ExpiresAtMs, err = readExpiry(q); err != nil {
		return err
	}
	put.Lease, err = readLease(q)
	return err
}

// readLease reads the id of the lease to put with, from the query or a header.
func readLease(q *request) (string, error) {
	lease, err := q.either("lease", headerLease)
	if err == nil && lease.given && lease.text == "" {
		err = lease.bad("is empty")
	}
	return lease.text, err
}

// readExpiry reads the lifetime, from the query or a header; 0 for what is not given.
func readExpiry(q *request) (ttlSeconds, expiresAtMilli int64, err error) {
	ttl, err := q.either("ttl_seconds", headerTTL)
	if err != nil {
		return 0, 0, err
	}
	if ttl.given {
		if ttlSeconds, err = strconv.ParseInt(ttl.text, 10, 64); err != nil || ttlSeconds <= 0 {
			return 0, 0, ttl.bad("must be a positive number of seconds")
		}
	}
	at, err := q.either("expires_at", headerExpiresAt)
	if err != nil {
		return 0, 0, err
	}
	if at.given {
		ms, ok := parseTime(at.text)
		if !ok {
			return 0, 0, at.bad("must be a time as in 2027-01-31T12:00:00Z")
		}
		expiresAtMilli = ms
	}
	if ttl.given && at.given {
		return 0, 0, fault.New(fault.InvalidArgument, "ttl_seconds and expires_at exclude each other")
	}
	return ttlSeconds, expiresAtMilli, nil
}

// given is the text of a query parameter or of the header that stands for it.
type given struct {
	text  string
	given bool
	// bad makes the error about it, under the name that was used.
	bad func(problem string) error
}

// either reads a parameter or its header; they must not differ.
func (q *request) either(param, header string) (given, error) {
	h, inHeader := q.r.Header.Get(header), len(q.r.Header.Values(header)) > 0
	if !q.query.has(param) {
		return given{h, inHeader, func(problem string) error { return badHeader(header, problem, h) }}, nil
	}
	text := q.query.text(param)
	if inHeader && h != text {
		return given{}, badHeader(header, "differs from the query parameter "+param, h)
	}
	return given{text, true, func(problem string) error { return badParam(param, problem, text) }}, nil
}

// readForm reads a header that holds a form; nil when it is absent.
func readForm(h http.Header, name string) (map[string]string, error) {
	text := strings.Join(h.Values(name), "&")
	if text == "" {
		return nil, nil
	}
	values, err := url.ParseQuery(text)
	if err != nil {
		return nil, badHeader(name, "must be a form such as a=b&c=d, percent-encoded", text)
	}
	m := make(map[string]string, len(values))
	for k, vs := range values {
		if len(vs) != 1 {
			return nil, badHeader(name, "names something twice", k)
		}
		if !utf8.ValidString(k) || !utf8.ValidString(vs[0]) {
			return nil, badHeader(name, "is not valid UTF-8", text)
		}
		m[k] = vs[0]
	}
	return m, nil
}

func writeForm(m map[string]string) string {
	values := make(url.Values, len(m))
	for k, v := range m {
		values.Set(k, v)
	}
	return values.Encode()
}

func badHeader(name, problem, actual string) error {
	return fault.New(fault.InvalidArgument, "header "+name+" "+problem, "header", name, "actual", clip(actual))
}

func parseChecksum(text string) (uint32, bool) {
	n, err := strconv.ParseUint(text, 16, 32)
	return uint32(n), err == nil && len(text) == 8
}

func formatChecksum(sum uint32) string {
	const digits = "0123456789abcdef"
	var b [8]byte
	for i := range b {
		b[i] = digits[sum>>(28-4*i)&15]
	}
	return string(b[:])
}

// writeRecord sets the headers that describe a record.
func writeRecord(h http.Header, rec *api.Record, envelope bool) {
	h.Set("ETag", etag(rec.Revision, envelope))
	h.Set("Vary", "Accept")
	h.Set(headerVersion, strconv.FormatUint(rec.Version, 10))
	h.Set(headerRevision, strconv.FormatUint(rec.Revision, 10))
	h.Set(headerChecksum, formatChecksum(rec.Checksum))
	setTime(h, headerCreatedAt, rec.CreatedAtMs)
	if rec.CreatedRevision != 0 {
		h.Set(headerCreatedRevision, strconv.FormatUint(rec.CreatedRevision, 10))
	}
	if rec.Lease != "" {
		h.Set(headerLease, rec.Lease)
	}
	setTime(h, headerUpdatedAt, rec.UpdatedAtMs)
	setTime(h, headerExpiresAt, rec.ExpiresAtMs)
	if len(rec.Tags) > 0 {
		h.Set(headerTags, writeForm(rec.Tags))
	}
	if len(rec.Metadata) > 0 {
		h.Set(headerMetadata, writeForm(rec.Metadata))
	}
}

// writeContent sets the headers of the raw value. What another interface stored
// and HTTP cannot say is left out.
func writeContent(h http.Header, rec *api.Record) {
	h.Set("Content-Type", defaultContentType)
	if headerSafe(rec.ContentType) {
		h.Set("Content-Type", rec.ContentType)
	}
	if headerSafe(rec.Encoding) {
		h.Set("Content-Encoding", rec.Encoding)
	}
	// A stored page must not act with the API's origin.
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
}

func headerSafe(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s != "" && strings.TrimSpace(s) == s
}

func setTime(h http.Header, name string, ms int64) {
	if ms != 0 {
		h.Set(name, formatTime(ms))
	}
}
