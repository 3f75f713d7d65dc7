package format

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"sort"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// A record is
//
//	[format 1][flags 1][parts 1][version uvarint][created 8][size uvarint][checksum 4]
//	[expires 8][upload 8][chunks uvarint][key id 4][tenant 4][origin 2][lease]
//	[content type][encoding][tags][metadata][header CRC32C 4][value]
//
// The second and third line hold only what parts names; strings are preceded
// by their length as uvarint, maps by their count, with keys in order so that
// one record has one encoding. The header CRC covers all bytes before it, the
// checksum the plaintext value.
const (
	partExpires = 1 << iota
	partReserved
	partContentType
	partEncoding
	partTags
	partMetadata
	partLease

	knownParts = 1<<iota - 1
	knownFlags = FlagTombstone | FlagChunked | FlagExpired

	headerCRCBytes = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC32C returns the Castagnoli checksum of b.
func CRC32C(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

// AddCRC32C returns the checksum of what sum is that of and b behind it; that of
// nothing is 0.
func AddCRC32C(sum uint32, b []byte) uint32 { return crc32.Update(sum, castagnoli, b) }

// AppendRecord appends the encoding of r, without its Revision.
func AppendRecord(dst []byte, r *Record) []byte {
	start := len(dst)
	parts := partsOf(r)
	dst = append(dst, Version, byte(r.Flags), parts)
	dst = binary.AppendUvarint(dst, r.Version)
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.Created))
	dst = binary.AppendUvarint(dst, r.Size)
	dst = binary.BigEndian.AppendUint32(dst, r.Checksum)
	if parts&partExpires != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.Expires))
	}
	if r.Flags&FlagChunked != 0 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(r.Chunks.Upload))
		dst = binary.AppendUvarint(dst, uint64(r.Chunks.Count))
	}
	if parts&partReserved != 0 {
		dst = binary.BigEndian.AppendUint32(dst, r.KeyID)
		dst = binary.BigEndian.AppendUint32(dst, r.Tenant)
		dst = binary.BigEndian.AppendUint16(dst, r.Origin)
	}
	if parts&partLease != 0 {
		dst = appendString(dst, r.Lease)
	}
	dst = appendTexts(dst, r)
	dst = binary.BigEndian.AppendUint32(dst, CRC32C(dst[start:]))
	return append(dst, r.Value...)
}

// RecordSize is the length of what AppendRecord appends.
func RecordSize(r *Record) int {
	parts := partsOf(r)
	n := 3 + uvarintSize(r.Version) + 8 + uvarintSize(r.Size) + 4 + headerCRCBytes + len(r.Value)
	if parts&partExpires != 0 {
		n += 8
	}
	if r.Flags&FlagChunked != 0 {
		n += 8 + uvarintSize(uint64(r.Chunks.Count))
	}
	if parts&partReserved != 0 {
		n += 4 + 4 + 2
	}
	for _, s := range [...]string{r.Lease, r.ContentType, r.Encoding} {
		if s != "" {
			n += stringSize(s)
		}
	}
	return n + mapSize(r.Tags) + mapSize(r.Metadata)
}

func uvarintSize(v uint64) int { return (bits.Len64(v|1) + 6) / 7 }

func stringSize(s string) int { return uvarintSize(uint64(len(s))) + len(s) }

// mapSize is 0 for an empty map, which is left out.
func mapSize(m map[string]string) (n int) {
	if len(m) == 0 {
		return 0
	}
	for name, text := range m {
		n += stringSize(name) + stringSize(text)
	}
	return n + uvarintSize(uint64(len(m)))
}

func partsOf(r *Record) (parts byte) {
	set := func(part byte, present bool) {
		if present {
			parts |= part
		}
	}
	set(partExpires, r.Expires != 0)
	set(partReserved, r.KeyID != 0 || r.Tenant != 0 || r.Origin != 0)
	set(partLease, r.Lease != "")
	set(partContentType, r.ContentType != "")
	set(partEncoding, r.Encoding != "")
	set(partTags, len(r.Tags) > 0)
	set(partMetadata, len(r.Metadata) > 0)
	return parts
}

func appendTexts(dst []byte, r *Record) []byte {
	if r.ContentType != "" {
		dst = appendString(dst, r.ContentType)
	}
	if r.Encoding != "" {
		dst = appendString(dst, r.Encoding)
	}
	if len(r.Tags) > 0 {
		dst = appendMap(dst, r.Tags)
	}
	if len(r.Metadata) > 0 {
		dst = appendMap(dst, r.Metadata)
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendMap(dst []byte, m map[string]string) []byte {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	dst = binary.AppendUvarint(dst, uint64(len(m)))
	for _, name := range names {
		dst = appendString(appendString(dst, name), m[name])
	}
	return dst
}

// DecodeHeader reads the header of an encoded record. It allocates nothing but the
// name of a lease and verifies no checksum; rev becomes the Revision. Errors are fault.Corruption.
func DecodeHeader(b []byte, rev keyspace.Revision) (Header, error) {
	p := parser{rest: b}
	h, _ := p.header(rev)
	if p.failed != "" {
		return Header{}, damagedRecord(b, rev, p.failed)
	}
	return h, nil
}

// DecodeRecord decodes a record and verifies its header and an inline value
// against their checksums. Value is a part of b, the rest are copies; rev
// becomes the Revision. Errors are fault.Corruption, or fault.Unsupported for
// a record of a newer format.
func DecodeRecord(b []byte, rev keyspace.Revision) (Record, error) {
	var r Record
	p := parser{rest: b}
	var parts byte
	r.Header, parts = p.header(rev)
	p.texts(&r, parts)
	sum := p.uint32()
	if p.failed == "" && sum != CRC32C(b[:len(b)-len(p.rest)-headerCRCBytes]) {
		p.failed = "header checksum mismatch"
	}
	r.Value = p.rest
	if p.failed == "" {
		p.failed = checkValue(&r)
	}
	if p.failed != "" {
		return Record{}, damagedRecord(b, rev, p.failed)
	}
	return r, nil
}

// checkValue returns why the value does not fit its header, "" if it does.
func checkValue(r *Record) string {
	switch {
	case r.Flags&(FlagChunked|FlagTombstone) != 0:
		if len(r.Value) != 0 {
			return "inline value beside a chunked value or tombstone"
		}
	case uint64(len(r.Value)) != r.Size:
		return "value size mismatch"
	case CRC32C(r.Value) != r.Checksum:
		return "value checksum mismatch"
	}
	return ""
}

func damagedRecord(b []byte, rev keyspace.Revision, reason string) error {
	if len(b) > 0 && b[0] > Version {
		return fault.New(fault.Unsupported, "record has a newer format",
			"limit", Version, "actual", b[0], "revision", rev)
	}
	return fault.New(fault.Corruption, "record is damaged",
		"reason", reason, "length", len(b), "revision", rev)
}
