package client

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// field is one field of a message: num for varints, bytes for the rest.
type field struct {
	number protowire.Number
	num    uint64
	bytes  []byte
}

// nextField reads the field at the start of b and returns what follows it. ok
// is false at the end and on malformed input, where rest is not empty.
func nextField(b []byte) (f field, rest []byte, ok bool) {
	// Most fields have a tag of one byte, and a number or length that ends within
	// nine: more of it could be too much for 64 bits.
	if len(b) > 1 && b[0] < 0x80 && b[0] >= 1<<3 {
		v, n := uint64(b[1]), 2
		if v >= 0x80 {
			v, n = manyBytes(b, v)
		}
		f.number = protowire.Number(b[0] >> 3)
		switch typ := protowire.Type(b[0] & 7); {
		case n == 0:
		case typ == protowire.VarintType:
			f.num = v
			return f, b[n:], true
		case typ == protowire.BytesType && v <= uint64(len(b)-n):
			f.bytes = b[n : n+int(v)] // checked
			return f, b[n+int(v):], true
		}
	}
	return anyField(b)
}

// manyBytes reads the varint of up to nine bytes after the first byte of b, whose own
// first one is v, and returns where it ends in b; 0 where it does not.
func manyBytes(b []byte, v uint64) (num uint64, end int) {
	v &= 0x7f
	for n := 2; n < min(len(b), 10); n++ {
		c := uint64(b[n])
		v |= c & 0x7f << (7 * (n - 1))
		if c < 0x80 {
			return v, n + 1
		}
	}
	return 0, 0
}

func anyField(b []byte) (f field, rest []byte, ok bool) {
	number, typ, n := protowire.ConsumeTag(b)
	if n < 0 {
		return field{}, b, false
	}
	value := b[n:]
	f.number = number
	switch typ {
	case protowire.VarintType:
		f.num, n = protowire.ConsumeVarint(value)
	case protowire.BytesType:
		f.bytes, n = protowire.ConsumeBytes(value)
	case protowire.Fixed32Type, protowire.Fixed64Type, protowire.StartGroupType, protowire.EndGroupType:
		n = protowire.ConsumeFieldValue(number, typ, value)
	default:
		n = -1
	}
	if n < 0 {
		return field{}, b, false
	}
	return f, value[n:], true
}

// eachField calls fn for every field of a message.
func eachField(b []byte, what string, fn func(field) error) error {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed(what)
		}
		if err := fn(f); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// resultID reads the id of a PipelineResult.
func resultID(b []byte) (uint64, bool) {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return 0, false
		}
		if f.number == fieldOpID {
			return f.num, true
		}
		b = rest
	}
	return 0, false
}

// decodeResult finds the answer of a PipelineResult. Its Status becomes the
// error; the fields of PipelineResult's answers are one above PipelineOp's.
func decodeResult(b []byte, op protowire.Number) (body []byte, err error) {
	var present bool
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return nil, malformed("PipelineResult")
		}
		switch f.number {
		case 2:
			if err := decodeStatus(f.bytes); err != nil {
				return nil, err
			}
		case op + 1:
			body, present = f.bytes, true
		}
		b = rest
	}
	if !present {
		return nil, malformed("PipelineResult without answer")
	}
	return body, nil
}

// decodeStatus returns nil for an empty code and *Error for others.
func decodeStatus(b []byte) error {
	e := new(Error)
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("Status")
		}
		switch f.number {
		case 1:
			e.Code = Code(f.bytes)
		case 2:
			e.Message = string(f.bytes)
		case 3:
			if err := decodeEntry(&e.Details, f.bytes); err != nil {
				return err
			}
		case 4:
			e.RetryAfter = millis(signed(f.num))
		case 5:
			e.Leader = string(f.bytes)
		}
		b = rest
	}
	if e.Code == "" {
		return nil
	}
	e.cause = contextCause(e.Code)
	return e
}

func decodeEntry(m *map[string]string, b []byte) error {
	var k, v string
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("map entry")
		}
		switch f.number {
		case 1:
			k = string(f.bytes)
		case 2:
			v = string(f.bytes)
		}
		b = rest
	}
	if *m == nil {
		*m = make(map[string]string)
	}
	(*m)[k] = v
	return nil
}

// decodePut reads a PutResponse.
func decodePut(b []byte, r *PutResult) error {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("PutResponse")
		}
		switch f.number {
		case 1:
			r.Version = f.num
		case 2:
			r.Revision = f.num
		case 3:
			r.CreatedAt = milliTime(signed(f.num))
		case 4:
			r.UpdatedAt = milliTime(signed(f.num))
		case 5:
			r.ExpiresAt = milliTime(signed(f.num))
		case 6:
			r.Checksum = uint32(f.num) // a uint32 on the wire
		}
		b = rest
	}
	return nil
}

func signed(v uint64) int64 { return int64(v) } // protobuf's int64 is two's complement

// decodeDelete reads a DeleteResponse.
func decodeDelete(b []byte, r *DeleteResult) error {
	return eachField(b, "DeleteResponse", func(f field) error {
		switch f.number {
		case 1:
			r.Existed = f.num != 0
		case 2:
			r.Revision = f.num
		}
		return nil
	})
}

// decodeGet reads a GetResponse. key is the one that was asked for.
func decodeGet(b []byte, key string, r *Record) error {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("GetResponse")
		}
		switch f.number {
		case 1:
			if err := decodeRecord(f.bytes, key, r, nil); err != nil {
				return err
			}
		case 2:
			r.Read.Consistency = Consistency(signed(f.num))
		case 3:
			r.Read.Revision = f.num
		case 4:
			r.Read.Age = millis(signed(f.num))
		}
		b = rest
	}
	return nil
}

// decodeRecord reads a Record; its value is copied, into values when there are
// some, its key is the caller's string when the two are equal.
func decodeRecord(b []byte, key string, r *Record, values *slab) error {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("Record")
		}
		if f.number == 2 && values != nil {
			r.Value = values.clone(f.bytes)
		} else if err := decodeRecordField(f, key, r); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

func decodeRecordField(f field, key string, r *Record) error {
	switch f.number {
	case 1:
		if r.Key = key; string(f.bytes) != key {
			r.Key = string(f.bytes)
		}
	case 2:
		r.Value = append(make([]byte, 0, len(f.bytes)), f.bytes...)
	case 3:
		r.ContentType = string(f.bytes)
	case 4:
		r.Encoding = string(f.bytes)
	case 5:
		r.Checksum = uint32(f.num) // a uint32 on the wire
	case 6:
		r.CreatedAt = milliTime(signed(f.num))
	case 7:
		r.UpdatedAt = milliTime(signed(f.num))
	case 8:
		r.ExpiresAt = milliTime(signed(f.num))
	case 9:
		r.Version = f.num
	case 10:
		r.Revision = f.num
	case 11:
		return decodeEntry(&r.Tags, f.bytes)
	case 12:
		return decodeEntry(&r.Metadata, f.bytes)
	case 13:
		r.Size = f.num
	case 40:
		r.CreatedRevision = f.num
	case 41:
		r.Lease = string(f.bytes)
	}
	return nil
}

// slab is memory for the values of a batch: small ones share it, so that a
// batch costs one allocation for all; larger ones have their own, so that none
// keeps others in memory.
type slab struct {
	items int // that are still to come
	free  []byte
}

const (
	maxSharedValue = 4 << 10
	maxSlab        = 64 << 10
)

// clone copies the next value.
func (s *slab) clone(value []byte) []byte {
	n := len(value)
	if n == 0 || n > maxSharedValue {
		return append(make([]byte, 0, n), value...)
	}
	if len(s.free) < n {
		s.free = make([]byte, min(max(s.items, 1)*n, maxSlab))
	}
	s.items--
	out := s.free[:n:n]
	s.free = s.free[n:]
	copy(out, value)
	return out
}

// decodeItems calls each with the Status and the answer (field 2) of every
// result of a batch, and returns how many there were.
func decodeItems(b []byte, each func(n int, err error, answer []byte) error) (n int, err error) {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return n, malformed("batch")
		}
		b = rest
		if f.number != 1 {
			continue
		}
		answer, ok, itemErr := decodeItem(f.bytes)
		if !ok {
			return n, malformed("batch result")
		}
		n++
		if err := each(n-1, itemErr, answer); err != nil {
			return n, err
		}
	}
	return n, nil
}

// decodeItem returns an item's answer and its error, whichever it has.
func decodeItem(b []byte) (answer []byte, ok bool, itemErr error) {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return nil, false, nil
		}
		switch f.number {
		case 1:
			itemErr = decodeStatus(f.bytes)
		case 2:
			answer = f.bytes
		}
		b = rest
	}
	return answer, true, itemErr
}
