package format

import (
	"encoding/binary"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// Prepared is what a replica's state says of a transaction that is prepared at
// one of its slots: who takes part, and what it locks. Its writes are in its
// record.
type Prepared struct {
	Key   keyspace.TxnKey
	Stamp keyspace.Revision
	// Participants are all slots that take part, this one included, in order.
	Participants []keyspace.SlotID
	// Exclusive are the disk keys that it writes in one of its lists, Shared those
	// that it only reads or checks; without instance.
	Exclusive, Shared [][]byte
}

// TxnRecord is the value of the record of a participant, at its key in
// keyspace.TxnNamespace.
type TxnRecord struct {
	twophase.Record
	// Participants are all slots that take part, in order. One alone stands for a
	// request that was carried out in one group.
	Participants []keyspace.SlotID
	// Then and Otherwise are what a prepared transaction would write here.
	Then, Otherwise []TxnWrite
	// Answer is what the client was told, or is to be told, of a request whose
	// outcome is remembered: an encoded api.TransactionResponse or the like.
	Answer []byte
}

// Alone reports whether the record is of a request that one group carried out.
func (r *TxnRecord) Alone() bool { return len(r.Participants) == 1 }

// TxnWrite is a write of a prepared transaction: a finished record but for what
// the revision of the commit decides.
type TxnWrite struct {
	// Key is a disk key without instance.
	Key []byte
	// Record is encoded; Version is that of the commit. Where its Created is 0, it
	// is created by the commit.
	Record []byte
	// TTLMilli counts from the commit; 0 leaves the deadline that Record has.
	TTLMilli int64
	// Replaced are the chunks of the value that it replaces, none for a Count of 0.
	Replaced ChunkRef
	// Expires is the deadline of the record that it replaces, 0 for none.
	Expires int64
	// Touch changes the deadline only: the chunks of Record are those of the record
	// that it replaces.
	Touch bool
}

// A transaction's record is, behind a format version,
//
//	[state 1][cause 1][flags 1][branch 1][stamp uvarint][at uvarint]
//	[participants][then][otherwise][answer]
//
// where a list is its count and then
//
//	[key][record][TTL uvarint][upload uvarint][chunks uvarint][deadline uvarint][touch 1]
//
// and bytes are preceded by their length. What an entry or a state says of one
// that is prepared is its key (22 bytes), stamp, participants, exclusive and shared
// keys.
const (
	txnHolds = 1 << iota
	txnThenPossible
	txnOtherwisePossible
	txnKnownFlags = 1<<iota - 1

	txnKeyBytes = 16 + 4 + 2
)

// AppendTxnRecord encodes r after dst.
func AppendTxnRecord(dst []byte, r *TxnRecord) []byte {
	var flags byte
	for _, f := range []struct {
		set  bool
		flag byte
	}{{r.Holds, txnHolds}, {r.ThenPossible, txnThenPossible}, {r.OtherwisePossible, txnOtherwisePossible}} {
		if f.set {
			flags |= f.flag
		}
	}
	dst = append(dst, Version, byte(r.State), byte(r.Cause), flags, byte(r.Branch))
	dst = binary.AppendUvarint(dst, uint64(r.Stamp))
	dst = binary.AppendUvarint(dst, uint64(r.At))
	dst = appendSlotIDs(dst, r.Participants)
	for _, list := range [][]TxnWrite{r.Then, r.Otherwise} {
		dst = binary.AppendUvarint(dst, uint64(len(list)))
		for i := range list {
			w := &list[i]
			dst = appendBytes(appendBytes(dst, w.Key), w.Record)
			for _, v := range []uint64{uint64(w.TTLMilli), uint64(w.Replaced.Upload), uint64(w.Replaced.Count), uint64(w.Expires)} {
				dst = binary.AppendUvarint(dst, v)
			}
			touch := byte(0)
			if w.Touch {
				touch = 1
			}
			dst = append(dst, touch)
		}
	}
	return appendBytes(dst, r.Answer)
}

// DecodeTxnRecord decodes b, of which keys, records and the answer are parts.
func DecodeTxnRecord(b []byte) (TxnRecord, error) {
	if len(b) == 0 || b[0] < MinVersion || b[0] > Version {
		return TxnRecord{}, fault.New(fault.Unsupported, "unknown format version of a transaction's record",
			"bytes", len(b), "min", MinVersion, "max", Version)
	}
	d := decoder{b: b[1:]}
	var r TxnRecord
	r.State, r.Cause = twophase.State(d.byte()), twophase.Cause(d.byte())
	flags := d.byte()
	r.Holds, r.ThenPossible, r.OtherwisePossible = flags&txnHolds != 0, flags&txnThenPossible != 0, flags&txnOtherwisePossible != 0
	r.Branch = twophase.Branch(d.byte())
	if r.State > twophase.Aborted || r.Cause > twophase.Elsewhere || flags&^byte(txnKnownFlags) != 0 || r.Branch > twophase.Nothing {
		d.fail()
	}
	r.Stamp, r.At = keyspace.Revision(d.uvarint()), keyspace.Revision(d.uvarint())
	r.Participants = d.slotIDs()
	r.Then, r.Otherwise = d.txnWrites(), d.txnWrites()
	if answer := d.bytes(); len(answer) > 0 {
		r.Answer = answer
	}
	return r, d.finish("transaction's record")
}

func (d *decoder) txnWrites() []TxnWrite {
	n := d.count(7)
	if n == 0 {
		return nil
	}
	out := make([]TxnWrite, 0, n)
	for ; n > 0; n-- {
		w := TxnWrite{Key: d.bytes(), Record: d.bytes(), TTLMilli: int64(d.uvarint())}
		w.Replaced.Upload = keyspace.Revision(d.uvarint())
		count := d.uvarint()
		if count > 1<<32-1 {
			d.fail()
		}
		w.Replaced.Count = uint32(count)
		w.Expires = int64(d.uvarint())
		touch := d.byte()
		if w.Touch = touch == 1; touch > 1 {
			d.fail()
		}
		out = append(out, w)
	}
	return out
}

func appendSlotIDs(dst []byte, slots []keyspace.SlotID) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(slots)))
	for _, s := range slots {
		dst = binary.AppendUvarint(dst, uint64(s))
	}
	return dst
}

func (d *decoder) slotIDs() []keyspace.SlotID {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	out := make([]keyspace.SlotID, 0, n)
	for ; n > 0; n-- {
		slot := d.uvarint()
		if slot >= keyspace.SlotCount {
			d.fail()
		}
		out = append(out, keyspace.SlotID(slot))
	}
	return out
}

// appendPrepared encodes what a state or an entry says of a prepared transaction.
func appendPrepared(dst []byte, p *Prepared) []byte {
	dst = p.Key.Append(dst)
	dst = binary.AppendUvarint(dst, uint64(p.Stamp))
	dst = appendSlotIDs(dst, p.Participants)
	for _, keys := range [][][]byte{p.Exclusive, p.Shared} {
		dst = binary.AppendUvarint(dst, uint64(len(keys)))
		for _, k := range keys {
			dst = appendBytes(dst, k)
		}
	}
	return dst
}

// prepared reads one that keeps nothing of the bytes it came from.
func (d *decoder) prepared() *Prepared {
	p := &Prepared{Key: d.txnKey(), Stamp: keyspace.Revision(d.uvarint()), Participants: d.slotIDs()}
	p.Exclusive, p.Shared = d.keys(), d.keys()
	return p
}

func (d *decoder) keys() [][]byte {
	n := d.count(1)
	if n == 0 {
		return nil
	}
	out := make([][]byte, 0, n)
	for ; n > 0; n-- {
		out = append(out, slices.Clone(d.bytes()))
	}
	return out
}

func (d *decoder) txnKey() keyspace.TxnKey {
	if len(d.b) < txnKeyBytes {
		d.fail()
		return keyspace.TxnKey{}
	}
	k, err := keyspace.ParseTxnKey(string(d.b[:txnKeyBytes]))
	if err != nil {
		d.fail()
		return keyspace.TxnKey{}
	}
	d.b = d.b[txnKeyBytes:]
	return k
}

// appendTxns encodes what an EntryTxn changes beside its writes.
func appendTxns(dst []byte, e *Entry) []byte {
	dst = binary.AppendUvarint(dst, uint64(e.LowWater))
	dst = binary.AppendUvarint(dst, uint64(len(e.Prepared)))
	for _, p := range e.Prepared {
		dst = appendPrepared(dst, p)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Ended)))
	for _, k := range e.Ended {
		dst = k.Append(dst)
	}
	return dst
}

func (d *decoder) txns(e *Entry) {
	e.LowWater = keyspace.Revision(d.uvarint())
	for n := d.count(txnKeyBytes + 4); n > 0; n-- {
		e.Prepared = append(e.Prepared, d.prepared())
	}
	for n := d.count(txnKeyBytes); n > 0; n-- {
		e.Ended = append(e.Ended, d.txnKey())
	}
}

// A state's transactions come behind its slots. Where there are none of the latter,
// this byte, which no state of slots begins with, stands for them.
const noSlotState = 0xff

func appendStateTxns(dst []byte, s *State) []byte {
	dst = binary.AppendUvarint(dst, uint64(s.LowWater))
	dst = binary.AppendUvarint(dst, uint64(len(s.Prepared)))
	for _, p := range s.Prepared {
		dst = appendPrepared(dst, p)
	}
	return dst
}

func (d *decoder) stateTxns(s *State) {
	s.LowWater = keyspace.Revision(d.uvarint())
	for n := d.count(txnKeyBytes + 4); n > 0; n-- {
		s.Prepared = append(s.Prepared, d.prepared())
	}
}
