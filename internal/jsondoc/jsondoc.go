// Package jsondoc decodes JSON documents that people write: strictly, with errors
// that say where in the document the problem is and in the words of the document.
package jsondoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"kvstore/internal/fault"
)

// Error is what is wrong with a document, and where.
type Error struct {
	// Path leads to the place: names of members and positions (int) in lists; empty
	// for the document as such.
	Path []any
	// Line of the place, from 1.
	Line int
	// Problem follows the name of the place in a sentence.
	Problem string
}

// Where is the path as in then[0].value, "" for the document as such.
func (e *Error) Where() string {
	var b strings.Builder
	for _, step := range e.Path {
		switch s := step.(type) {
		case int:
			fmt.Fprintf(&b, "[%d]", s)
		case string:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(clip(s))
		}
	}
	return b.String()
}

func (e *Error) Error() string { return fmt.Sprintf("%s (line %d)", e.sentence(), e.Line) }

func (e *Error) sentence() string {
	if where := e.Where(); where != "" {
		return where + " " + e.Problem
	}
	return "the document " + e.Problem
}

// Fault is the error as an invalid_argument, with the place in its details.
func (e *Error) Fault() *fault.Error {
	kv := []any{"line", e.Line}
	if where := e.Where(); where != "" {
		kv = append(kv, "path", where)
	}
	return fault.New(fault.InvalidArgument, e.sentence(), kv...)
}

// Decode decodes one document into v. Unknown members, text after the document and
// strings that are not Unicode are errors, since encoding/json would drop or change
// what was meant. Its error is an *Error.
func Decode(doc []byte, v any) error {
	switch at := loneSurrogate(doc); {
	case len(doc) == 0:
		return &Error{Line: 1, Problem: "is empty; JSON is expected"}
	case !utf8.Valid(doc):
		return &Error{Line: lineAt(doc, invalidAt(doc)), Problem: "is not valid UTF-8"}
	case at >= 0:
		return &Error{Line: lineAt(doc, at), Problem: "holds half a surrogate pair"}
	}
	d := json.NewDecoder(bytes.NewReader(doc))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return explain(doc, v)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return &Error{Line: lineAt(doc, int(d.InputOffset())), Problem: "has more behind its end"}
	}
	return nil
}

func lineAt(doc []byte, offset int) int {
	return 1 + bytes.Count(doc[:min(offset, len(doc))], []byte("\n"))
}

// invalidAt is the offset of the first byte that is not UTF-8.
func invalidAt(doc []byte) int {
	for i := 0; i < len(doc); {
		r, size := utf8.DecodeRune(doc[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return len(doc)
}

// clip bounds text that an error repeats, and shows what is no plain text quoted.
func clip(s string) string {
	const limit = 64
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "..."
	}
	if q := strconv.Quote(s); q != `"`+s+`"` {
		return q
	}
	return s
}
