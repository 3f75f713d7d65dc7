package keyspace

import (
	"cmp"
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

// txnDigits are what ids are written in, base32hex in lower case, and txnDigitBits
// how much each of the txnIDText characters says: their order is that of creation.
const (
	txnDigits    = "0123456789abcdefghijklmnopqrstuv"
	txnDigitBits = 5
	txnIDText    = 26
	// txnSpareBits are those of the last character that say nothing, and are 0.
	txnSpareBits = txnIDText*txnDigitBits - TxnIDBytes*8
)

// Zero reports whether the id names nothing.
func (id TxnID) Zero() bool { return id == TxnID{} }

// Append appends the id as it is in keys.
func (id TxnID) Append(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint64(dst, uint64(id.Created))
	return binary.BigEndian.AppendUint64(dst, id.Random)
}

// String is the id as users see it: 26 characters, base32hex in lower case.
func (id TxnID) String() string {
	var text [txnIDText]byte
	high, low := uint64(id.Created), id.Random
	last := txnDigitBits - txnSpareBits
	text[txnIDText-1] = txnDigits[low&(1<<last-1)<<txnSpareBits]
	high, low = high>>last, low>>last|high<<(64-last)
	for i := txnIDText - 2; i >= 0; i-- {
		text[i] = txnDigits[low&(1<<txnDigitBits-1)]
		high, low = high>>txnDigitBits, low>>txnDigitBits|high<<(64-txnDigitBits)
	}
	return string(text[:])
}

// ParseTxnID is the inverse of String.
func ParseTxnID(text string) (TxnID, error) {
	if len(text) != txnIDText {
		return TxnID{}, errNoTxnID(text)
	}
	var high, low uint64
	bits := txnDigitBits
	for i := range len(text) {
		v, ok := txnDigit(text[i])
		if i == txnIDText-1 {
			bits, ok = bits-txnSpareBits, ok && v&(1<<txnSpareBits-1) == 0
			v >>= txnSpareBits
		}
		if !ok {
			return TxnID{}, errNoTxnID(text)
		}
		high, low = high<<bits|low>>(64-bits), low<<bits|v
	}
	id := TxnID{Created: Revision(high), Random: low}
	if id.Zero() {
		return id, errNoTxnID(text)
	}
	return id, nil
}

// txnDigit is what a character of an id stands for.
func txnDigit(c byte) (v uint64, ok bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0'), true
	case c >= 'a' && c <= 'v':
		return uint64(c-'a') + 10, true
	}
	return 0, false
}

func errNoTxnID(text string) error {
	return fault.New(fault.InvalidArgument, "request id is malformed: want 26 characters of 0-9 and a-v", "actual", shortened(text))
}

func txnID(b []byte) TxnID {
	return TxnID{Created: Revision(binary.BigEndian.Uint64(b)), Random: binary.BigEndian.Uint64(b[8:])}
}

func shortened(text string) string { return text[:min(len(text), 64)] }

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
