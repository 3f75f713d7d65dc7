package jsondoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"
	"time"

	"kvstore/internal/fault"
)

// explain finds out why a document cannot be decoded into v: it walks the tokens
// beside the type. encoding/json knows no position in lists, and names Go's types.
func explain(doc []byte, v any) *Error {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	w := &walker{doc: doc, d: d}
	if err := w.value(reflect.TypeOf(v)); err != nil {
		return err
	}
	return w.bad("does not have the form that is expected")
}

// walker is at a place of a document.
type walker struct {
	doc  []byte
	d    *json.Decoder
	path []any
}

// bad is an error about what was read last.
func (w *walker) bad(problem string) *Error {
	return &Error{Path: append([]any(nil), w.path...), Line: lineAt(w.doc, int(w.d.InputOffset())), Problem: problem}
}

// token reads the next one; a document that is not JSON has no path.
func (w *walker) token() (json.Token, *Error) {
	tok, err := w.d.Token()
	var syntax *json.SyntaxError
	switch {
	case err == nil:
		return tok, nil
	case errors.As(err, &syntax):
		return nil, &Error{Line: lineAt(w.doc, int(syntax.Offset)), Problem: "is not JSON: " + syntax.Error()}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, &Error{Line: lineAt(w.doc, len(w.doc)), Problem: "is not JSON: it ends too early"}
	}
	return nil, &Error{Line: lineAt(w.doc, int(w.d.InputOffset())), Problem: "is not JSON"}
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// value compares the next value with a type.
func (w *walker) value(t reflect.Type) *Error {
	for t.Kind() == reflect.Pointer && !t.Implements(unmarshaler) {
		t = t.Elem()
	}
	if t.Implements(unmarshaler) || reflect.PointerTo(t).Implements(unmarshaler) {
		return w.own(t)
	}
	tok, err := w.token()
	if err != nil || tok == nil {
		return err
	}
	switch t.Kind() { //nolint:exhaustive // what else there is decodes any value
	case reflect.Struct:
		return w.object(tok, func(name string) *Error { return w.member(t, name) })
	case reflect.Map:
		return w.object(tok, func(string) *Error { return w.value(t.Elem()) })
	case reflect.Slice:
		return w.list(tok, t.Elem())
	}
	return w.scalar(tok, t)
}

// own lets a type with its own form decode itself.
func (w *walker) own(t reflect.Type) *Error {
	var raw json.RawMessage
	if err := w.d.Decode(&raw); err != nil {
		_, e := w.token()
		return e
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	err := json.Unmarshal(raw, reflect.New(t).Interface())
	var f *fault.Error
	switch {
	case err == nil:
		return nil
	case t == reflect.TypeFor[time.Time]():
		return w.bad("must be a time as in 2027-01-31T12:00:00Z")
	case errors.As(err, &f):
		return w.bad("cannot be used: " + f.Message)
	}
	return w.bad("does not have the form that is expected")
}

func (w *walker) object(tok json.Token, member func(name string) *Error) *Error {
	if tok != json.Delim('{') {
		return w.bad("must be an object, with members that have names")
	}
	for w.d.More() {
		key, err := w.token()
		if err != nil {
			return err
		}
		name, _ := key.(string) // keys are
		w.path = append(w.path, name)
		if err := member(name); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	_, err := w.token()
	return err
}

// member compares the value of a member of a struct; encoding/json takes names
// without regard to case.
func (w *walker) member(t reflect.Type, name string) *Error {
	fields := map[string]reflect.StructField{}
	var all []string
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "" || tag == "-" || !f.IsExported() {
			continue
		}
		fields[strings.ToLower(tag)] = f
		all = append(all, tag)
	}
	f, ok := fields[strings.ToLower(name)]
	switch {
	case ok && strings.HasSuffix(f.Tag.Get("json"), ",string"):
		return w.quoted()
	case ok:
		return w.value(f.Type)
	}
	return w.bad("is not known; there are " + strings.Join(all, ", "))
}

// quoted compares with a number of 64 bits that is written as a string.
func (w *walker) quoted() *Error {
	tok, err := w.token()
	if err != nil || tok == nil {
		return err
	}
	text, ok := tok.(string)
	if _, err := strconv.ParseUint(text, 10, 64); !ok || err != nil {
		return w.bad("must be a whole number, in quotes")
	}
	return nil
}

func (w *walker) list(tok json.Token, elem reflect.Type) *Error {
	if tok != json.Delim('[') {
		return w.bad("must be a list")
	}
	for i := 0; w.d.More(); i++ {
		w.path = append(w.path, i)
		if err := w.value(elem); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	_, err := w.token()
	return err
}

func (w *walker) scalar(tok json.Token, t reflect.Type) *Error {
	_, composed := tok.(json.Delim)
	switch t.Kind() { //nolint:exhaustive // documents have no others
	case reflect.String:
		if _, ok := tok.(string); ok {
			return nil
		}
		if composed {
			return w.bad("must be a string")
		}
		return w.bad("must be a string; quote it")
	case reflect.Bool:
		if _, ok := tok.(bool); !ok {
			return w.bad("must be true or false")
		}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		bits := t.Bits()
		n, ok := tok.(json.Number)
		if _, err := strconv.ParseInt(n.String(), 10, bits); !ok || err != nil {
			return w.bad(fmt.Sprintf("must be a whole number from %d to %d, without quotes", int64(-1)<<(bits-1), uint64(1)<<(bits-1)-1))
		}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		bits := t.Bits()
		n, ok := tok.(json.Number)
		if _, err := strconv.ParseUint(n.String(), 10, bits); !ok || err != nil {
			return w.bad(fmt.Sprintf("must be a whole number from 0 to %d, without quotes", ^uint64(0)>>(64-bits)))
		}
	}
	return nil
}
