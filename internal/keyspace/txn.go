package keyspace

import (
	"cmp"
	"encoding/base32"
	"encoding/binary"

	"kvstore/internal/fault"
)

// TxnID names a transaction, or a request whose outcome is remembered. Whoever
// begins it draws it; a participant refuses what was created too long ago.
type TxnID struct {
	// Created is the time of its creation.
	Created Revision
	// Random tells it from others of the same time.
	Random uint64
}

// TxnIDBytes is the length of an id in keys, and on the wire.
const TxnIDBytes = 16

// txnText is how ids are written: their order is that of their creation.
var txnText = base32.HexEncoding.WithPadding(base32.NoPadding)

// Zero reports whether the id names nothing.
func (id TxnID) Zero() bool { return id == TxnID{} }

// Append appends the id as it is in keys.
func (id TxnID) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(id.Created))
	return binary.BigEndian.AppendUint64(dst, id.Random)
}

// String is the id as users see it: 26 characters, base32hex in lower case.
func (id TxnID) String() string {
	return lower(txnText.EncodeToString(id.Append(make([]byte, 0, TxnIDBytes))))
}

// ParseTxnID is the inverse of String.
func ParseTxnID(text string) (TxnID, error) {
	b, err := txnText.DecodeString(upper(text))
	if err != nil || len(b) != TxnIDBytes {
		return TxnID{}, fault.New(fault.InvalidArgument, "request id is malformed: want 26 characters of 0-9 and a-v", "actual", shortened(text))
	}
	id := txnID(b)
	if id.String() != text || id.Zero() {
		return TxnID{}, fault.New(fault.InvalidArgument, "request id is malformed: want 26 characters of 0-9 and a-v", "actual", shortened(text))
	}
	return id, nil
}

func txnID(b []byte) TxnID {
	return TxnID{Created: Revision(binary.BigEndian.Uint64(b)), Random: binary.BigEndian.Uint64(b[8:])}
}

func shortened(text string) string { return text[:min(len(text), 64)] }

func lower(s string) string { return mapASCII(s, 'A', 'Z', 'a'-'A') }
func upper(s string) string { return mapASCII(s, 'a', 'z', 256-('a'-'A')) }

func mapASCII(s string, from, to, add byte) string {
	b := []byte(s)
	for i, c := range b {
		if c >= from && c <= to {
			b[i] = c + add
		}
	}
	return string(b)
}

// TxnKey names the record of one participant of an attempt of a transaction. Keys
// sort by creation, then by transaction: the records of one transaction are a
// prefix, and what was created up to a time is a range from the start.
type TxnKey struct {
	ID      TxnID
	Attempt uint32
	// Slot names the participant; its record lies and moves with it.
	Slot SlotID
}

// txnKeyBytes is the length of a key in TxnNamespace.
const txnKeyBytes = TxnIDBytes + 4 + 2

// Append appends the user key of the record in TxnNamespace.
func (k TxnKey) Append(dst []byte) []byte {
	dst = k.ID.Append(dst)
	dst = binary.BigEndian.AppendUint32(dst, k.Attempt)
	return binary.BigEndian.AppendUint16(dst, uint16(k.Slot))
}

// Key is the user key of the record in TxnNamespace.
func (k TxnKey) Key() string { return string(k.Append(make([]byte, 0, txnKeyBytes))) }

// DiskKey is the disk key of the record, without instance.
func (k TxnKey) DiskKey() []byte {
	return AppendDataKey(nil, TxnNamespace, k.Append(make([]byte, 0, txnKeyBytes)))
}

// Compare orders keys as they sort.
func (k TxnKey) Compare(o TxnKey) int {
	return cmp.Or(cmp.Compare(k.ID.Created, o.ID.Created), cmp.Compare(k.ID.Random, o.ID.Random),
		cmp.Compare(k.Attempt, o.Attempt), cmp.Compare(k.Slot, o.Slot))
}

// ParseTxnKey is the inverse of Key.
func ParseTxnKey(key string) (TxnKey, error) {
	if len(key) != txnKeyBytes {
		return TxnKey{}, damagedKey([]byte(key), "not a key of a transaction's record")
	}
	b := []byte(key)
	k := TxnKey{ID: txnID(b), Attempt: binary.BigEndian.Uint32(b[16:]), Slot: SlotID(binary.BigEndian.Uint16(b[20:]))}
	if k.Slot >= SlotCount {
		return TxnKey{}, damagedKey(b, "no such slot")
	}
	return k, nil
}

// txnSlot is the slot that a key of TxnNamespace names.
func txnSlot(key string) SlotID {
	if len(key) < 2 {
		return 0
	}
	return (SlotID(key[len(key)-2])<<8 | SlotID(key[len(key)-1])) % SlotCount
}
