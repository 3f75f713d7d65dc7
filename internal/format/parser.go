package format

import (
	"encoding/binary"

	"kvstore/internal/keyspace"
)

// parser takes values off the front of rest. After a failure it returns zero
// values; failed says why.
type parser struct {
	rest   []byte
	failed string
}

func (p *parser) fail(reason string) {
	if p.failed == "" {
		p.failed = reason
	}
	p.rest = nil
}

func (p *parser) take(n int) []byte {
	if len(p.rest) < n {
		p.fail("truncated")
		return nil
	}
	b := p.rest[:n]
	p.rest = p.rest[n:]
	return b
}

func (p *parser) byte() byte {
	if b := p.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (p *parser) uint16() uint16 {
	if b := p.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (p *parser) uint32() uint32 {
	if b := p.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (p *parser) uint64() uint64 {
	if b := p.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (p *parser) uvarint() uint64 {
	if len(p.rest) > 0 && p.rest[0] < 0x80 {
		v := p.rest[0]
		p.rest = p.rest[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(p.rest)
	if n <= 0 {
		p.fail("bad number")
		return 0
	}
	p.rest = p.rest[n:]
	return v
}

// bytes takes a length and as many bytes.
func (p *parser) bytes() []byte {
	n := p.uvarint()
	if n > uint64(len(p.rest)) {
		p.fail("truncated")
		return nil
	}
	return p.take(int(n))
}

// header takes the fixed part of a record; parts names what follows it.
func (p *parser) header(rev keyspace.Revision) (h Header, parts byte) {
	version := p.byte()
	if version < MinVersion || version > Version {
		p.fail("unknown format version")
	}
	h.Flags = RecordFlag(p.byte())
	parts = p.byte()
	if h.Flags&^knownFlags != 0 || parts&^knownParts != 0 {
		p.fail("unknown flags")
	}
	h.Revision = rev
	h.Version = p.uvarint()
	h.Created = keyspace.Revision(p.uint64())
	h.Size = p.uvarint()
	h.Checksum = p.uint32()
	if parts&partExpires != 0 {
		h.Expires = int64(p.uint64())
	}
	if h.Flags&FlagChunked != 0 {
		h.Chunks = p.chunks()
	}
	if parts&partReserved != 0 {
		h.KeyID, h.Tenant, h.Origin = p.uint32(), p.uint32(), p.uint16()
	}
	if parts&partLease != 0 {
		h.Lease = string(p.bytes())
	}
	return h, parts
}

func (p *parser) chunks() ChunkRef {
	ref := ChunkRef{Upload: keyspace.Revision(p.uint64())}
	count := p.uvarint()
	if count > 1<<32-1 {
		p.fail("chunk count out of range")
	}
	ref.Count = uint32(count)
	return ref
}

func (p *parser) texts(r *Record, parts byte) {
	if parts&partContentType != 0 {
		r.ContentType = intern(p.bytes())
	}
	if parts&partEncoding != 0 {
		r.Encoding = intern(p.bytes())
	}
	if parts&partTags != 0 {
		r.Tags = p.textMap()
	}
	if parts&partMetadata != 0 {
		r.Metadata = p.textMap()
	}
}

// textMap takes a map. Its count is bounded by the bytes left before anything
// is allocated.
func (p *parser) textMap() map[string]string {
	n := p.uvarint()
	if n > uint64(len(p.rest))/2 {
		p.fail("truncated")
		return nil
	}
	m := make(map[string]string, n)
	for range n {
		name := string(p.bytes())
		m[name] = string(p.bytes())
	}
	if p.failed != "" {
		return nil
	}
	return m
}

// intern returns b as a string, without allocating for the usual ones.
func intern(b []byte) string {
	switch string(b) {
	case "application/octet-stream":
		return "application/octet-stream"
	case "application/json":
		return "application/json"
	case "text/plain":
		return "text/plain"
	case "text/plain; charset=utf-8":
		return "text/plain; charset=utf-8"
	case "gzip":
		return "gzip"
	case "zstd":
		return "zstd"
	}
	return string(b)
}
