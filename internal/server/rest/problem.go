package rest

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/server/status"
)

// httpError is a fault whose HTTP status is not the one of its code.
type httpError struct {
	fault  *fault.Error
	status int
	// allow is the Allow header of a 405.
	allow string
}

func (e *httpError) Error() string { return e.fault.Error() }
func (e *httpError) Unwrap() error { return e.fault }

// problem is an RFC 9457 document.
type problem struct {
	Type         string            `json:"type"`
	Title        string            `json:"title"`
	Status       int               `json:"status"`
	Detail       string            `json:"detail"`
	Code         fault.Code        `json:"code"`
	Details      map[string]string `json:"details,omitempty"`
	RetryAfterMS int64             `json:"retry_after_ms,omitempty"`
	LeaderNode   string            `json:"leader_node,omitempty"`
}

func problemOf(err error) problem {
	f := status.Fault(err)
	p := problem{
		Type: "urn:kvstore:error:" + string(f.Code), Title: status.Title(f.Code), Status: status.HTTP(f.Code),
		Detail: status.Message(err), Code: f.Code, Details: f.Details, LeaderNode: f.Leader,
		RetryAfterMS: int64(math.Ceil(float64(f.RetryAfter) / float64(time.Millisecond))),
	}
	var h *httpError
	if errors.As(err, &h) {
		p.Status = h.status
	}
	return p
}

// WriteProblem answers with err as an RFC 9457 document.
func WriteProblem(w http.ResponseWriter, r *http.Request, err error) { writeProblem(w, r, err) }

// writeProblem answers with err; nothing has been written before.
func writeProblem(w http.ResponseWriter, _ *http.Request, err error) {
	p := problemOf(err)
	h := w.Header()
	for _, name := range []string{"ETag", "Content-Length", "Content-Encoding", "Location", "Link"} {
		h.Del(name)
	}
	var special *httpError
	if errors.As(err, &special) && special.allow != "" {
		h.Set("Allow", special.allow)
	}
	if after := retryAfter(p); after > 0 {
		h.Set("Retry-After", strconv.FormatInt(after, 10))
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="kvstore"`)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	body, _ := encodeJSON(p) // strings and numbers always encode
	_, _ = w.Write(body)     // the client is gone: nobody to tell
}

// retryAfter returns whole seconds, at least one where a retry is worth it; 0
// where it is not.
func retryAfter(p problem) int64 {
	if p.RetryAfterMS > 0 {
		return (p.RetryAfterMS + 999) / 1000
	}
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		return 1
	}
	return 0
}

// writeJSON answers with v.
func writeJSON(q *request, code int, v any) error {
	body, err := encodeJSON(v)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the answer could not be encoded")
	}
	h := q.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	q.w.WriteHeader(code)
	_, _ = q.w.Write(body) // the client is gone: nobody to tell
	return nil
}
