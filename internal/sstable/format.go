package sstable

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"

	"kvstore/internal/keyspace"
)

// The file format, all integers little-endian:
//
//	file     magic block* index trailer
//	block    version* crc32c(of the versions)
//	version  uvarint: 0 for the key of the version before, else its length + 1
//	         key, revision (8 bytes), uvarint: successor's revision - revision,
//	         0 when no successor is known
//	         uvarint: value length x 2 + 1 if deleted, value
//	index    uvarint number of spans; each: uvarint instance, low, until
//	         uvarint number of blocks; each: uvarint offset, length with crc,
//	         instance; uvarint key length, key, revision of its first version
//	         of a run: uvarint length of the filter, filter
//	trailer  index offset (8), index length (4), crc32c of the index (4),
//	         magic: "kvhist01" of history, "kvruns01" of runs
//
// Versions are in order of instance, key, and descending revision; a block is of
// one instance.
const (
	magic        = "kvhist01"
	runMagic     = "kvruns01"
	trailerBytes = 8 + 4 + 4 + len(magic)
	crcBytes     = 4
	// blockBytes is the size from which a block of history ends. Blocks of runs
	// are smaller: they are read for one key. Where keys are long they are larger, up to
	// largeBlockBytes, so that a key in the index stands for keyShare times its size.
	blockBytes      = 64 << 10
	runBlockBytes   = 4 << 10
	largeBlockBytes = 16 << 10
	keyShare        = 64
)

// blockOf is the size from which a block ends that begins with a key of so many bytes.
func (k *kind) blockOf(keyBytes int) int {
	return max(k.blockBytes, min(largeBlockBytes, keyShare*keyBytes))
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// block is where a block is and the position of its first version.
type block struct {
	offset   int64
	length   int // with its checksum
	instance keyspace.InstanceID
	key      []byte
	rev      keyspace.Revision
}

// Version is what a key had from Revision on, up to but not including Until,
// where a successor is; 0 when none is known. Delete: nothing.
type Version struct {
	Key             []byte // without instance
	Revision, Until keyspace.Revision
	Value           []byte
	Delete          bool
}

// stands reports whether nothing that the version knows of had replaced it at at.
func (v *Version) stands(at keyspace.Revision) bool { return v.Until == 0 || at < v.Until }

func appendVersion(b []byte, v *Version, same bool) []byte {
	if same {
		b = append(b, 0)
	} else {
		b = binary.AppendUvarint(b, uint64(len(v.Key))+1)
		b = append(b, v.Key...)
	}
	b = binary.LittleEndian.AppendUint64(b, uint64(v.Revision))
	after := uint64(0)
	if v.Until != 0 {
		after = uint64(v.Until - v.Revision)
	}
	b = binary.AppendUvarint(b, after)
	size := uint64(len(v.Value)) << 1
	if v.Delete {
		size |= 1
	}
	return append(binary.AppendUvarint(b, size), v.Value...)
}

// bodyOf returns the versions of a block whose checksum is right.
func bodyOf(b []byte) ([]byte, error) {
	if len(b) < crcBytes {
		return nil, corrupt("block is too short", "limit_bytes", crcBytes, "actual_bytes", len(b))
	}
	body := b[:len(b)-crcBytes]
	if want, got := binary.LittleEndian.Uint32(b[len(body):]), crc32.Checksum(body, castagnoli); want != got {
		return nil, corrupt("block has a wrong checksum", "limit", want, "actual", got)
	}
	return body, nil
}

// searchBlock returns the first version at or after a position, whose key must be
// equal, out of a block; ok is false when there is none. Key and Value are parts
// of b.
func searchBlock(b, key []byte, at keyspace.Revision) (v Version, ok bool, err error) {
	body, err := bodyOf(b)
	if err != nil {
		return Version{}, false, err
	}
	r := decoder{b: body}
	var last []byte
	for len(r.b) > 0 && !r.bad {
		if n := r.uvarint(); n > 0 {
			last = r.take(n - 1)
		}
		v := r.version(last)
		switch c := bytes.Compare(last, key); {
		case r.bad || c < 0 || c == 0 && v.Revision > at:
		case c == 0:
			return v, true, nil
		default:
			return Version{}, false, nil
		}
	}
	if r.bad {
		return Version{}, false, corrupt("block is malformed")
	}
	return Version{}, false, nil
}

// decodeBlock appends the versions of a block, whose checksum it checks, to out.
// They are parts of b.
func decodeBlock(out []Version, b []byte) ([]Version, error) {
	body, err := bodyOf(b)
	if err != nil {
		return nil, err
	}
	r := decoder{b: body}
	var key []byte
	for len(r.b) > 0 && !r.bad {
		if n := r.uvarint(); n > 0 {
			key = r.take(n - 1)
		}
		out = append(out, r.version(key))
	}
	if r.bad {
		return nil, corrupt("block is malformed")
	}
	return out, nil
}

// version reads what follows the key of one.
func (d *decoder) version(key []byte) Version {
	v := Version{Key: key, Revision: keyspace.Revision(d.uint64())}
	if after := d.uvarint(); after > 0 {
		v.Until = v.Revision + keyspace.Revision(after)
	}
	size := d.uvarint()
	v.Value, v.Delete = d.take(size>>1), size&1 == 1
	return v
}

// appendSpans begins an index: the spans and the number of blocks.
func appendSpans(b []byte, spans []instanceSpan, blocks int) []byte {
	b = binary.AppendUvarint(b, uint64(len(spans)))
	for _, s := range spans {
		b = binary.AppendUvarint(b, uint64(s.instance))
		b = binary.AppendUvarint(b, uint64(s.Low))
		b = binary.AppendUvarint(b, uint64(s.Until))
	}
	return binary.AppendUvarint(b, uint64(blocks))
}

// appendBlock goes on with the next block.
func appendBlock(b []byte, at *block) []byte {
	b = binary.AppendUvarint(b, uint64(at.offset))
	b = binary.AppendUvarint(b, uint64(at.length))
	b = binary.AppendUvarint(b, uint64(at.instance))
	b = binary.AppendUvarint(b, uint64(len(at.key)))
	b = append(b, at.key...)
	return binary.AppendUvarint(b, uint64(at.rev))
}

type instanceSpan struct {
	instance keyspace.InstanceID
	Span
}

// indexParts takes what an index says of its blocks: first how many there are, by
// what it claims and has room for, then each.
type indexParts struct {
	count func(blocks int)
	block func(block) (ok bool)
}

// leastBlock is what a block takes in an index at least.
const leastBlock = 5

// block reads what appendBlock wrote. Its key is a part of what is read.
func (d *decoder) block() block {
	b := block{offset: int64(d.uvarint()), length: int(d.uvarint()), instance: keyspace.InstanceID(d.uvarint())}
	b.key = d.take(d.uvarint())
	b.rev = keyspace.Revision(d.uvarint())
	return b
}

// readIndex is the inverse. end is where the blocks end; filtered says that a
// filter follows.
func readIndex(r *indexReader, end int64, filtered bool, to indexParts) (map[keyspace.InstanceID]Span, filter, error) {
	spans := make(map[keyspace.InstanceID]Span)
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		r.fill(3 * binary.MaxVarintLen64)
		inst := keyspace.InstanceID(r.decoder.uvarint())
		spans[inst] = Span{Low: keyspace.Revision(r.decoder.uvarint()), Until: keyspace.Revision(r.decoder.uvarint())}
	}
	at := int64(len(magic))
	n := r.uvarint()
	to.count(int(min(n, uint64(r.left()/leastBlock))))
	for ; n > 0 && !r.bad; n-- {
		d := r.block()
		if r.bad {
			break
		}
		if d.offset != at || d.length < crcBytes || int64(d.length) > end-at {
			return nil, nil, corrupt("index names a block out of place", "limit", end, "actual", d.offset)
		}
		if !to.block(d) {
			return nil, nil, corrupt("index names a block out of order", "actual", d.offset)
		}
		at += int64(d.length)
	}
	var keys filter
	if filtered {
		keys = filter(r.rest(r.uvarint()))
	}
	if r.bad || r.left() > 0 || at != end || len(keys)%filterLine != 0 {
		if r.err != nil {
			return nil, nil, r.err
		}
		return nil, nil, corrupt("index is malformed")
	}
	return spans, keys, nil
}

// decoder reads fields; after one that is not there it is bad and yields zeros.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint64() uint64 {
	b := d.take(8)
	if d.bad {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	got := d.b[:n:n]
	d.b = d.b[n:]
	return got
}

func (d *decoder) fail() { d.b, d.bad = nil, true }
