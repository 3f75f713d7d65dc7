package format

import (
	"encoding/binary"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// A snapshot record is
//
//	[format 1][flags 1][revision 8][key length uvarint][value length uvarint]
//	[key][value][CRC32C of all before 4]
//
// A snapshot stream is any number of them; messages carry whole records.
const snapshotDeleted = 1

// SnapshotOverheadBytes is the most that AppendSnapshotRecord adds to the
// bytes of key and value.
const SnapshotOverheadBytes = 2 + 8 + 2*binary.MaxVarintLen32 + 4

// AppendSnapshotRecord appends one version of a disk key (without instance) to
// a snapshot stream. del marks an engine deletion; value is then empty.
func AppendSnapshotRecord(dst, key []byte, rev keyspace.Revision, value []byte, del bool) []byte {
	start := len(dst)
	var flags byte
	if del {
		flags |= snapshotDeleted
	}
	dst = append(dst, Version, flags)
	dst = binary.BigEndian.AppendUint64(dst, uint64(rev))
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	dst = append(append(dst, key...), value...)
	return binary.BigEndian.AppendUint32(dst, CRC32C(dst[start:]))
}

// NextSnapshotRecord takes the first record off b. Key and value are parts of
// b. The caller stops at an empty rest. Errors are fault.Corruption, or
// fault.Unsupported for a newer format.
func NextSnapshotRecord(b []byte) (key []byte, rev keyspace.Revision, value []byte, del bool, rest []byte, err error) {
	p := parser{rest: b}
	version := p.byte()
	flags := p.byte()
	if version < MinVersion || version > Version || flags&^snapshotDeleted != 0 {
		p.fail("unknown format version or flags")
	}
	rev = keyspace.Revision(p.uint64())
	keyLen, valueLen := p.uvarint(), p.uvarint()
	if left := uint64(len(p.rest)); keyLen > left || valueLen > left-keyLen {
		p.fail("truncated")
	} else {
		key, value = p.take(int(keyLen)), p.take(int(valueLen))
	}
	body := b[:len(b)-len(p.rest)]
	sum := p.uint32()
	if p.failed == "" && sum != CRC32C(body) {
		p.failed = "checksum mismatch"
	}
	if p.failed != "" {
		return nil, 0, nil, false, nil, damagedSnapshot(b, p.failed)
	}
	return key, rev, value, flags&snapshotDeleted != 0, p.rest, nil
}

func damagedSnapshot(b []byte, reason string) error {
	if len(b) > 0 && b[0] > Version {
		return fault.New(fault.Unsupported, "snapshot record has a newer format",
			"limit", Version, "actual", b[0])
	}
	return fault.New(fault.Corruption, "snapshot record is damaged",
		"reason", reason, "length", len(b))
}
