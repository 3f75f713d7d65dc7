package router

import (
	"google.golang.org/protobuf/encoding/protowire"

	"kvstore/internal/format"
	"kvstore/internal/wirebuf"
)

// Records of lists are written by hand into the bytes that are sent, in the
// form of the field "records" of ListResponse and GroupScanResponse, which have
// the same number: nodes and pages pass them on without decoding them.
// TestWireRecords holds this to the generated code.
const fieldRecords protowire.Number = 1

const (
	fieldRecordKey protowire.Number = iota + 1
	fieldRecordValue
	fieldRecordContentType
	fieldRecordEncoding
	fieldRecordChecksum
	fieldRecordCreated
	fieldRecordUpdated
	fieldRecordExpires
	fieldRecordVersion
	fieldRecordRevision
	fieldRecordTags
	fieldRecordMetadata
	fieldRecordSize

	fieldRecordCreatedRevision protowire.Number = 40
	fieldRecordLease           protowire.Number = 41
)

// wireRecord is where a record is in the bytes of its page.
type wireRecord struct {
	from, to       int // the field with tag and length
	body           int // the record
	keyFrom, keyTo int
}

// size is that of the message, as proto.Size counts it.
func (w *wireRecord) size() int { return w.to - w.body }

// appendRecord appends a record as a field of its page.
func appendRecord(dst, key []byte, r *format.Record, keysOnly bool) ([]byte, wireRecord) {
	value := r.Value
	if keysOnly {
		value = nil
	}
	w := wireRecord{from: len(dst)}
	dst = protowire.AppendTag(dst, fieldRecords, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(sizeRecord(len(key), value, r)))
	w.body = len(dst)
	w.keyTo = w.body + sizeField(len(key))
	w.keyFrom = w.keyTo - len(key)
	dst = appendRecordBody(dst, key, value, r)
	w.to = len(dst)
	return dst, w
}

// appendRecordBody appends the fields of a record.
func appendRecordBody[T string | []byte](dst []byte, key T, value []byte, r *format.Record) []byte {
	dst = appendField(dst, fieldRecordKey, key)
	dst = appendField(dst, fieldRecordValue, value)
	dst = appendField(dst, fieldRecordContentType, r.ContentType)
	dst = appendField(dst, fieldRecordEncoding, r.Encoding)
	dst = wirebuf.AppendNumber(dst, fieldRecordChecksum, uint64(r.Checksum))
	dst = wirebuf.AppendNumber(dst, fieldRecordCreated, uint64(r.Created.UnixMilli()))
	dst = wirebuf.AppendNumber(dst, fieldRecordUpdated, uint64(r.Revision.UnixMilli()))
	dst = wirebuf.AppendNumber(dst, fieldRecordExpires, uint64(r.Expires))
	dst = wirebuf.AppendNumber(dst, fieldRecordVersion, r.Version)
	dst = wirebuf.AppendNumber(dst, fieldRecordRevision, uint64(r.Revision))
	dst = appendTexts(dst, fieldRecordTags, r.Tags)
	dst = appendTexts(dst, fieldRecordMetadata, r.Metadata)
	dst = wirebuf.AppendNumber(dst, fieldRecordSize, r.Size)
	if r.Created != 0 {
		dst = protowire.AppendTag(dst, fieldRecordCreatedRevision, protowire.VarintType)
		dst = protowire.AppendVarint(dst, uint64(r.Created))
	}
	if r.Lease != "" {
		dst = protowire.AppendTag(dst, fieldRecordLease, protowire.BytesType)
		dst = protowire.AppendString(dst, r.Lease)
	}
	return dst
}

// sizeRecord is the length of what appendRecordBody writes.
func sizeRecord(key int, value []byte, r *format.Record) int {
	return sizeField(key) + sizeField(len(value)) + sizeField(len(r.ContentType)) + sizeField(len(r.Encoding)) +
		wirebuf.SizeNumber(uint64(r.Checksum)) + wirebuf.SizeNumber(uint64(r.Created.UnixMilli())) +
		wirebuf.SizeNumber(uint64(r.Revision.UnixMilli())) + wirebuf.SizeNumber(uint64(r.Expires)) +
		wirebuf.SizeNumber(r.Version) + wirebuf.SizeNumber(uint64(r.Revision)) + sizeTexts(r.Tags) + sizeTexts(r.Metadata) + wirebuf.SizeNumber(r.Size) +
		sizeCreated(uint64(r.Created)) + sizeLease(r.Lease)
}

// Tags of the numbers above 15 take two bytes.

func sizeCreated(rev uint64) int {
	if rev == 0 {
		return 0
	}
	return 2 + protowire.SizeVarint(rev)
}

func sizeLease(id string) int {
	if id == "" {
		return 0
	}
	return 2 + protowire.SizeBytes(len(id))
}

// Tags of numbers below 16 take one byte.

func sizeField(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func sizeTexts(m map[string]string) (n int) {
	for k, v := range m {
		n += 1 + protowire.SizeBytes(sizeEntry(k, v))
	}
	return n
}

// sizeEntry is that of a map's entry, which has its fields even when empty.
func sizeEntry(k, v string) int { return 2 + protowire.SizeBytes(len(k)) + protowire.SizeBytes(len(v)) }

func appendField[T string | []byte](dst []byte, number protowire.Number, v T) []byte {
	if len(v) == 0 {
		return dst
	}
	dst = append(dst, byte(number)<<3|byte(protowire.BytesType))
	return append(protowire.AppendVarint(dst, uint64(len(v))), v...)
}

func appendTexts(dst []byte, number protowire.Number, m map[string]string) []byte {
	for k, v := range m {
		dst = append(dst, byte(number)<<3|byte(protowire.BytesType))
		dst = protowire.AppendVarint(dst, uint64(sizeEntry(k, v)))
		dst = protowire.AppendString(append(dst, 1<<3|byte(protowire.BytesType)), k)
		dst = protowire.AppendString(append(dst, 2<<3|byte(protowire.BytesType)), v)
	}
	return dst
}

// findRecords locates the records in the bytes of a page from a peer.
func findRecords(page []byte) ([]wireRecord, bool) {
	var out []wireRecord
	for at := 0; at < len(page); {
		number, typ, n := protowire.ConsumeTag(page[at:])
		if n < 0 || number != fieldRecords || typ != protowire.BytesType {
			return nil, false
		}
		body, length := protowire.ConsumeBytes(page[at+n:])
		if length < 0 {
			return nil, false
		}
		w := wireRecord{from: at, to: at + n + length}
		w.body = w.to - len(body)
		if !w.findKey(page) {
			return nil, false
		}
		out = append(out, w)
		at = w.to
	}
	return out, true
}

func (w *wireRecord) findKey(page []byte) bool {
	for at := w.body; at < w.to; {
		number, typ, n := protowire.ConsumeTag(page[at:w.to])
		if n < 0 {
			return false
		}
		length := protowire.ConsumeFieldValue(number, typ, page[at+n:w.to])
		if length < 0 {
			return false
		}
		if number == fieldRecordKey && typ == protowire.BytesType {
			key, _ := protowire.ConsumeBytes(page[at+n : w.to])
			w.keyTo = at + n + length
			w.keyFrom = w.keyTo - len(key)
			return true
		}
		at += n + length
	}
	return false
}
