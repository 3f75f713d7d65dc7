package rest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/guard"
)

// tooLarge makes the error for a body of actual bytes ("more than N" when its
// length was not declared).
type tooLarge func(limit int64, actual string) error

func valueTooLarge(key string) tooLarge {
	return func(limit int64, actual string) error {
		return fault.New(fault.ValueTooLarge, "value is too large", "key", key, "limit_bytes", limit, "actual_bytes", actual)
	}
}

func bodyTooLarge(limit int64, actual string) error {
	return fault.New(fault.MessageTooLarge, "the body is too large", "limit_bytes", limit, "actual_bytes", actual)
}

// readBody reads the whole body, at most limit bytes of it, until the request's
// deadline.
func readBody(q *request, limit int64, large tooLarge) ([]byte, error) {
	length := q.r.ContentLength
	if length > limit {
		return nil, large(limit, formatInt(length))
	}
	rc := http.NewResponseController(q.w)
	// Not every ResponseWriter has deadlines; those of connections do.
	_ = rc.SetReadDeadline(guard.Deadline(q.ctx()))
	body, err := readAll(io.LimitReader(q.r.Body, limit+1), length)
	if err != nil {
		return nil, bodyError(q, err)
	}
	_ = rc.SetReadDeadline(time.Time{})
	if int64(len(body)) > limit {
		return nil, large(limit, "more than "+formatInt(limit))
	}
	return body, nil
}

// readAll reads into one buffer when the length is declared.
func readAll(r io.Reader, length int64) ([]byte, error) {
	if length < 0 {
		return io.ReadAll(r)
	}
	body := make([]byte, length)
	n, err := io.ReadFull(r, body)
	if errors.Is(err, io.EOF) && length == 0 {
		err = nil
	}
	return body[:n], err
}

func bodyError(q *request, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(q.ctx().Err(), context.DeadlineExceeded):
		return &httpError{status: http.StatusRequestTimeout,
			fault: fault.Wrap(fault.DeadlineExceeded, err, "the body did not arrive in time; nothing was executed")}
	case q.ctx().Err() != nil:
		return fault.Wrap(fault.Canceled, err, "the caller went away")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fault.New(fault.InvalidArgument, "the body is shorter than its Content-Length", "expected_bytes", q.r.ContentLength)
	}
	return fault.Wrap(fault.InvalidArgument, err, "the body could not be read")
}

// readJSON decodes a body of application/json into v.
func readJSON(q *request, limit int64, v any) error {
	if err := jsonContent(q.r.Header); err != nil {
		return err
	}
	body, err := readBody(q, limit, bodyTooLarge)
	if err != nil {
		return err
	}
	return decodeJSON(bytes.TrimSpace(body), v)
}
