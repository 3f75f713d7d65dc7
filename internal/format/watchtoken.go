package format

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// WatchToken says up to where a watch has been sent everything. It holds
// revisions by slot, not by group: slots move between groups, and a revision of
// a slot means the same wherever it is, because the new owner's clock starts
// above the old one's and takes the history along. It says nothing of which keys
// were watched: what is known of a slot is known of all its keys.
type WatchToken []SlotRevision

// SlotRevision is a range of slots, both ends included, and the revision up to
// which all of them were sent.
type SlotRevision struct {
	First, Last keyspace.SlotID
	Revision    keyspace.Revision
}

const (
	// watchTokenKind keeps other tokens from being taken for this one.
	watchTokenKind       = 'w'
	watchTokenMinBytes   = 1 + 1 + 1 + tokenCRCBytes
	slotRevisionMinBytes = 3
)

// At returns the revision up to which a slot was sent; false when the token does
// not know the slot.
func (t WatchToken) At(slot keyspace.SlotID) (keyspace.Revision, bool) {
	for _, r := range t {
		if r.First <= slot && slot <= r.Last {
			return r.Revision, true
		}
	}
	return 0, false
}

// Least returns the revision up to which all slots were sent; false when the
// token does not know them all.
func (t WatchToken) Least() (least keyspace.Revision, all bool) {
	least = keyspace.MaxRevision
	next := keyspace.SlotID(0)
	for _, r := range t {
		if r.First != next {
			return 0, false
		}
		least, next = min(least, r.Revision), r.Last+1
	}
	return least, next == keyspace.SlotCount
}

// AppendWatchToken appends the encoding of t, whose ranges are in order and
// apart: format version, kind, ranges, CRC32C of all before it.
func AppendWatchToken(dst []byte, t WatchToken) []byte {
	start := len(dst)
	dst = append(dst, Version, watchTokenKind)
	dst = binary.AppendUvarint(dst, uint64(len(t)))
	for _, r := range t {
		dst = binary.AppendUvarint(dst, uint64(r.First))
		dst = binary.AppendUvarint(dst, uint64(r.Last-r.First))
		dst = binary.AppendUvarint(dst, uint64(r.Revision))
	}
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], tokenCRC))
}

// DecodeWatchToken is the inverse of AppendWatchToken. Anything else than its
// output is fault.InvalidToken.
func DecodeWatchToken(b []byte) (WatchToken, error) {
	if len(b) < watchTokenMinBytes {
		return nil, fault.New(fault.InvalidToken, "watch token is too short", "actual_bytes", len(b), "limit_bytes", watchTokenMinBytes)
	}
	body, sum := b[:len(b)-tokenCRCBytes], binary.BigEndian.Uint32(b[len(b)-tokenCRCBytes:])
	if actual := crc32.Checksum(body, tokenCRC); actual != sum {
		return nil, fault.New(fault.InvalidToken, "watch token is damaged",
			"expected_crc32c", fmt.Sprintf("%08x", sum), "actual_crc32c", fmt.Sprintf("%08x", actual))
	}
	if v := body[0]; v < MinVersion || v > Version || body[1] != watchTokenKind {
		return nil, fault.New(fault.InvalidToken, "not a watch token of a known format version", "actual", v, "limit", Version)
	}
	d := decoder{b: body[2:]}
	t := make(WatchToken, 0, 1)
	next := uint64(0)
	for n := d.count(slotRevisionMinBytes); n > 0 && !d.bad; n-- {
		first := d.uvarint()
		last := first + d.uvarint()
		if first < next || last < first || last >= keyspace.SlotCount {
			return nil, fault.New(fault.InvalidToken, "watch token has impossible slots", "first", first, "last", last)
		}
		t = append(t, SlotRevision{keyspace.SlotID(first), keyspace.SlotID(last), keyspace.Revision(d.uvarint())})
		next = last + 1
	}
	if d.bad || len(d.b) > 0 {
		return nil, fault.New(fault.InvalidToken, "watch token is malformed")
	}
	return t, nil
}
