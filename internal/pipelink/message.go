package pipelink

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// message reads the fields of a message.
type message struct {
	b []byte // what is left
	// tag is what the field begins with, num its value or length, bytes what it holds.
	tag, num uint64
	bytes    []byte
	// bad: it is not a message, or has a field of a type that is not read here.
	bad bool
}

// next reads a field; false at the end.
func (m *message) next() bool {
	if len(m.b) == 0 {
		return false
	}
	if !m.varint(&m.tag) || !m.varint(&m.num) {
		return false
	}
	switch protowire.Type(m.tag & 7) { //nolint:exhaustive // the others are not read here
	case protowire.VarintType:
		return true
	case protowire.BytesType:
		if m.num <= uint64(len(m.b)) {
			m.bytes, m.b = m.b[:m.num], m.b[m.num:]
			return true
		}
	}
	m.bad = true
	return false
}

// varint takes a number.
func (m *message) varint(v *uint64) bool {
	if len(m.b) > 0 && m.b[0] < 0x80 {
		*v, m.b = uint64(m.b[0]), m.b[1:]
		return true
	}
	num, n := binary.Uvarint(m.b)
	if n <= 0 {
		m.bad = true
		return false
	}
	*v, m.b = num, m.b[n:]
	return true
}

// memory is what texts and values of an operation share.
type memory struct {
	texts  strings.Builder
	values []byte
	// textRoom and valueRoom are how much the next piece of each has.
	textRoom, valueRoom int
}

// text takes the field that m is at as a string; false when it is none.
func (o *memory) text(s *string, m *message) bool {
	if !utf8.Valid(m.bytes) {
		return false
	}
	if o.texts.Cap()-o.texts.Len() < len(m.bytes) {
		if len(m.bytes) >= o.textRoom {
			*s = string(m.bytes)
			return true
		}
		o.texts = strings.Builder{}
		o.texts.Grow(o.textRoom)
	}
	from := o.texts.Len()
	o.texts.Write(m.bytes)
	*s = o.texts.String()[from:]
	return true
}

// value takes the field as bytes.
func (o *memory) value(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if cap(o.values)-len(o.values) < len(b) {
		o.values = make([]byte, 0, max(len(b), o.valueRoom))
	}
	from := len(o.values)
	o.values = append(o.values, b...)
	return o.values[from:len(o.values):len(o.values)]
}
