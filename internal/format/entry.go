package format

import (
	"encoding/binary"
	"fmt"

	"github.com/zeebo/xxh3"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Entry encoding: version byte, type byte, flags byte, three reserved zero
// bytes, chain hash of the previous payload (8 bytes), then uvarints: stamp,
// ceiling-stamp zigzag, closed, upload, claims, writes. A write is its key,
// its revision as a zigzag difference to the stamp, a delete flag and a value.
// Behind the writes of EntrySlots and EntryImport comes the SlotChange, behind
// those of EntryTxn what it changes of transactions (txn.go).

const (
	entryHeaderBytes = 14
	entryFlagLower   = 1
	writeFlagDelete  = 1
)

// AppendEntry encodes e after dst.
func AppendEntry(dst []byte, e *Entry) []byte {
	var flags byte
	if e.Lower {
		flags |= entryFlagLower
	}
	dst = append(dst, Version, byte(e.Type), flags, 0, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, e.Prev)
	dst = binary.AppendUvarint(dst, uint64(e.Stamp))
	dst = binary.AppendVarint(dst, int64(e.Ceiling-e.Stamp))
	dst = binary.AppendUvarint(dst, uint64(e.Closed))
	dst = binary.AppendUvarint(dst, uint64(e.Upload))
	dst = binary.AppendUvarint(dst, uint64(len(e.Claims)))
	for _, c := range e.Claims {
		dst = binary.AppendUvarint(dst, uint64(c))
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Writes)))
	for i := range e.Writes {
		dst = appendWrite(dst, &e.Writes[i], e.Stamp)
	}
	if e.Type.hasSlots() {
		dst = appendSlotChange(dst, e.Slots)
	}
	if e.Type == EntryTxn {
		dst = appendTxns(dst, e)
	}
	return dst
}

func (t EntryType) hasSlots() bool { return t == EntrySlots || t == EntryImport }

func appendWrite(dst []byte, w *Write, stamp keyspace.Revision) []byte {
	var flags byte
	if w.Delete {
		flags |= writeFlagDelete
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(len(w.Key)))
	dst = append(dst, w.Key...)
	dst = binary.AppendVarint(dst, int64(w.Revision-stamp))
	dst = binary.AppendUvarint(dst, uint64(len(w.Value)))
	return append(dst, w.Value...)
}

// ErrUnknownEntry marks an entry that this binary must not skip: its format
// version or type is from a newer one.
var ErrUnknownEntry = fault.New(fault.Unsupported, "unknown log entry")

// stripped is what a witness gets in place of an entry's payload.
var stripped = []byte{Version, byte(EntryStripped)}

// Stripped returns the payload that a witness gets in place of another. It must
// not be changed.
func Stripped() []byte { return stripped }

// IsStripped reports whether b stands for a payload that is not there.
func IsStripped(b []byte) bool { return len(b) == len(stripped) && b[1] == byte(EntryStripped) }

// ErrStripped marks an entry that only a witness may have.
var ErrStripped = fault.New(fault.Corruption, "a log entry without its payload reached a replica with data")

// DecodeEntry decodes b into e, reusing its slices. Keys, values and the cursor of
// Slots alias b.
func DecodeEntry(b []byte, e *Entry) error {
	if IsStripped(b) {
		return ErrStripped
	}
	if len(b) < entryHeaderBytes {
		return fault.New(fault.Corruption, "log entry too short", "bytes", len(b), "need", entryHeaderBytes)
	}
	if b[0] < MinVersion || b[0] > Version || b[1] < byte(EntryWrite) || b[1] > byte(EntryTxn) {
		return fmt.Errorf("%w: format version %d, type %d (this binary reads versions %d to %d)",
			ErrUnknownEntry, b[0], b[1], MinVersion, Version)
	}
	d := decoder{b: b[entryHeaderBytes:]}
	*e = Entry{Type: EntryType(b[1]), Lower: b[2]&entryFlagLower != 0,
		Prev: binary.BigEndian.Uint64(b[6:]), Writes: e.Writes[:0], Claims: e.Claims[:0]}
	e.Stamp = keyspace.Revision(d.uvarint())
	e.Ceiling = e.Stamp + keyspace.Revision(d.varint())
	e.Closed = keyspace.Revision(d.uvarint())
	e.Upload = keyspace.Revision(d.uvarint())
	for n := d.count(1); n > 0; n-- {
		e.Claims = append(e.Claims, keyspace.Revision(d.uvarint()))
	}
	for n := d.count(4); n > 0; n-- {
		flags := d.byte()
		w := Write{Delete: flags&writeFlagDelete != 0}
		w.Key = d.bytes()
		w.Revision = e.Stamp + keyspace.Revision(d.varint())
		w.Value = d.bytes()
		e.Writes = append(e.Writes, w)
	}
	if e.Type.hasSlots() {
		e.Slots = d.slotChange()
	}
	if e.Type == EntryTxn {
		d.txns(e)
	}
	return d.finish("log entry")
}

// ChainHash is the hash of a payload in the chain of its log; an entry names
// its predecessor's, so that replicas that applied the same index prove that
// they applied the same entries.
func ChainHash(prev uint64, payload []byte) uint64 {
	return xxh3.HashSeed(payload, prev)
}

// decoder reads the primitives of this package; the first error sticks.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) fail() { d.bad, d.b = true, nil }

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
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

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count reads a number of items that take at least min bytes each, so that a
// damaged count cannot make the reader allocate.
func (d *decoder) count(min int) uint64 {
	n := d.uvarint()
	if n > uint64(len(d.b)/min) {
		d.fail()
		return 0
	}
	return n
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) finish(what string) error {
	if d.bad || len(d.b) != 0 {
		return fault.New(fault.Corruption, what+" is malformed", "trailing_bytes", len(d.b))
	}
	return nil
}
