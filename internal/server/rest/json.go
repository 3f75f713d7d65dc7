package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"kvstore/internal/fault"
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

// decodeJSON is strict: unknown members, text after the document and strings
// that are not Unicode are errors, since encoding/json would silently drop or
// change what the caller meant.
func decodeJSON(body []byte, v any) error {
	if len(body) == 0 {
		return fault.New(fault.InvalidArgument, "the body is empty; a JSON document is expected")
	}
	if !utf8.Valid(body) {
		return fault.New(fault.InvalidArgument, "the body is not valid UTF-8")
	}
	if at := loneSurrogate(body); at >= 0 {
		return fault.New(fault.InvalidArgument, "the body holds half a surrogate pair", "offset", at)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			return f
		}
		return fault.New(fault.InvalidArgument, "the body is not the JSON that is expected: "+clip(err.Error()), "offset", d.InputOffset())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fault.New(fault.InvalidArgument, "there is more after the JSON document", "offset", d.InputOffset())
	}
	return nil
}

// loneSurrogate returns the offset of a \u escape that is half a pair, or -1.
func loneSurrogate(body []byte) int {
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		r, ok := escaped(body[i:])
		if !ok {
			i++ // the escaped character, whatever it is
			continue
		}
		if !utf16.IsSurrogate(r) {
			i += 5
			continue
		}
		low, _ := escaped(body[min(i+6, len(body)):])
		if utf16.DecodeRune(r, low) == utf8.RuneError {
			return i
		}
		i += 11
	}
	return -1
}

// escaped reads a backslash, a u and four hexadecimal digits at the start of b.
func escaped(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
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
