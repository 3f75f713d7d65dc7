package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"kvstore/internal/fault"
	"kvstore/internal/jsondoc"
)

func formatInt(n int64) string { return strconv.FormatInt(n, 10) }

func encodeJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return b.Bytes(), err
}

// jsonContent refuses bodies of another type; none counts as JSON.
func jsonContent(h http.Header) error {
	text := h.Get("Content-Type")
	if text == "" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(text)
	if err == nil && kind == "application/json" && h.Get("Content-Encoding") == "" {
		return nil
	}
	if err == nil && kind == "application/json" {
		text = "Content-Encoding: " + h.Get("Content-Encoding")
	}
	return &httpError{status: http.StatusUnsupportedMediaType,
		fault: fault.New(fault.Unsupported, "the body must be application/json without an encoding", "actual", clip(text))}
}

// decodeJSON decodes a body strictly.
func decodeJSON(body []byte, v any) error {
	err := jsondoc.Decode(body, v)
	var e *jsondoc.Error
	if errors.As(err, &e) {
		return e.Fault()
	}
	return err
}

// wantsEnvelope tells whether a key is asked for, or a write answered, as JSON:
// by format=json, or by Accept naming application/json. format=raw refuses it.
func wantsEnvelope(q *request) (bool, error) {
	switch format := q.query.text("format"); format {
	case "json":
		return true, nil
	case "raw":
		return false, nil
	case "":
	default:
		return false, badParam("format", "must be raw or json", format)
	}
	for _, line := range q.r.Header.Values("Accept") {
		for part := range strings.SplitSeq(line, ",") {
			kind, attrs, err := mime.ParseMediaType(part)
			if err != nil || kind != "application/json" {
				continue
			}
			if w, err := strconv.ParseFloat(attrs["q"], 64); attrs["q"] == "" || err == nil && w > 0 {
				return true, nil
			}
		}
	}
	return false, nil
}
