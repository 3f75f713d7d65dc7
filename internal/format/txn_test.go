package format

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

func somePrepared() []*Prepared {
	return []*Prepared{
		{Key: keyspace.TxnKey{ID: keyspace.TxnID{Created: 5 << 16, Random: 7}, Attempt: 2, Slot: 9}, Stamp: 6 << 16,
			Participants: []keyspace.SlotID{9, 4095}, Exclusive: [][]byte{[]byte("a"), []byte("b")}, Shared: [][]byte{[]byte("c")}},
		{Key: keyspace.TxnKey{ID: keyspace.TxnID{Created: 5 << 16, Random: 8}, Slot: 1}, Stamp: 1},
	}
}

func someTxnEntry() *Entry {
	return &Entry{Type: EntryTxn, Prev: 7, Stamp: 1 << 40, Ceiling: 1<<40 + 9, Closed: 3,
		Writes:   []Write{{Key: []byte("k"), Revision: 1 << 39, Value: []byte("v")}},
		Prepared: somePrepared(), Ended: []keyspace.TxnKey{{ID: keyspace.TxnID{Created: 1, Random: 2}, Slot: 3}}, LowWater: 77}
}

func someTxnRecord() *TxnRecord {
	return &TxnRecord{
		Record:       twophase.Record{State: twophase.Prepared, Stamp: 99, Holds: true, OtherwisePossible: true},
		Participants: []keyspace.SlotID{1, 2},
		Then:         []TxnWrite{{Key: []byte("k"), Record: []byte("r"), TTLMilli: 1000, Replaced: ChunkRef{Upload: 4, Count: 2}, Expires: 1 << 40}},
		Otherwise:    []TxnWrite{{Key: []byte("j"), Record: []byte("s"), Touch: true}}, Answer: []byte("told"),
	}
}

func TestTxnEntryRoundTrip(t *testing.T) {
	in := someTxnEntry()
	b := AppendEntry(nil, in)
	var out Entry
	if err := DecodeEntry(b, &out); err != nil {
		t.Fatal(err)
	}
	in.Claims, out.Claims = nil, nil
	if !reflect.DeepEqual(in, &out) {
		t.Fatalf("got %+v, want %+v", out, in)
	}
	// A state keeps what was prepared; it must not keep the entry.
	clear(b)
	if !reflect.DeepEqual(out.Prepared, somePrepared()) {
		t.Fatal("what is prepared refers to the bytes of its entry")
	}
	b = AppendEntry(nil, in)
	for i := range b {
		if DecodeEntry(b[:i], &out) == nil {
			t.Fatalf("a cut after %d of %d bytes was accepted", i, len(b))
		}
	}
	// Binaries that knew types up to 6 refuse it by its type.
	if b[1] != 7 {
		t.Fatalf("its type is %d", b[1])
	}
	b[1] = byte(EntryTxn) + 1
	if err := DecodeEntry(b, &out); !errors.Is(err, ErrUnknownEntry) {
		t.Fatalf("the next type: %v", err)
	}
}

func TestTxnRecordRoundTrip(t *testing.T) {
	for _, in := range []*TxnRecord{
		someTxnRecord(), {},
		{Record: twophase.Record{State: twophase.Committed, At: 7, Branch: twophase.Nothing}, Participants: []keyspace.SlotID{4}},
		{Record: twophase.Record{State: twophase.Aborted, Cause: twophase.Elsewhere, ThenPossible: true}},
	} {
		b := AppendTxnRecord(nil, in)
		out, err := DecodeTxnRecord(b)
		if err != nil || !reflect.DeepEqual(*in, out) {
			t.Fatalf("got %+v, %v, want %+v", out, err, in)
		}
		for i := 1; i < len(b); i++ {
			if _, err := DecodeTxnRecord(b[:i]); fault.CodeOf(err) != fault.Corruption {
				t.Fatalf("a cut after %d of %d bytes: %v", i, len(b), err)
			}
		}
	}
	for at, v := range map[int]byte{0: Version + 1, 1: 9, 2: 9, 3: 0x80, 4: 9} {
		b := AppendTxnRecord(nil, someTxnRecord())
		b[at] = v
		if _, err := DecodeTxnRecord(b); err == nil {
			t.Fatalf("byte %d may be %d", at, v)
		}
	}
}

// States and steps of moves that have nothing of transactions are written as they
// were before there were any.
func TestStatesWithTransactions(t *testing.T) {
	slots := &SlotState{Owned: SlotSet{1}, Out: &SlotsOut{ID: 3, To: 9, Slots: SlotSet{2}, Left: true, Ceiling: 7, LowWater: 5}}
	plain := AppendState(nil, &State{Group: 3, Index: 9})
	for name, in := range map[string]State{
		"nothing":        {Group: 3, Index: 9},
		"slots":          {Group: 3, Index: 9, Slots: slots},
		"a mark":         {Group: 3, Index: 9, LowWater: 8},
		"prepared":       {Group: 3, Index: 9, Prepared: somePrepared()},
		"all":            {Group: 3, Index: 9, Prepared: somePrepared(), LowWater: 8, Slots: slots},
		"slots and mark": {Group: 3, Index: 9, LowWater: 8, Slots: &SlotState{Owned: SlotSet{1}}},
	} {
		b := AppendState(nil, &in)
		out, err := DecodeState(b)
		in.ConfState, out.ConfState = nil, nil
		if out.Slots != nil && len(out.Slots.Purged) == 0 {
			out.Slots.Purged = nil
		}
		if err != nil || !reflect.DeepEqual(in, out) {
			t.Fatalf("%s: got %+v, %v, want %+v", name, out, err, in)
		}
		if !bytes.HasPrefix(b, plain) || name == "nothing" && len(b) != len(plain) {
			t.Fatalf("%s is written otherwise than before", name)
		}
	}
	accept := SlotChange{Kind: SlotAccept, Move: 3, Nonce: 4, Ceiling: 5, LowWater: 9}
	out, err := DecodeSlotChange(AppendSlotChange(nil, &accept))
	out.Cursor = nil
	if err != nil || !reflect.DeepEqual(accept, out) {
		t.Fatalf("got %+v, %v", out, err)
	}
	without := accept
	without.LowWater = 0
	if len(AppendSlotChange(nil, &accept)) != len(AppendSlotChange(nil, &without))+1 {
		t.Fatal("a step without a mark is written otherwise than before")
	}
}

func FuzzDecodeTxnRecord(f *testing.F) {
	f.Add(AppendTxnRecord(nil, someTxnRecord()))
	f.Add(AppendTxnRecord(nil, &TxnRecord{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeTxnRecord(b)
		if err != nil {
			return
		}
		again, err := DecodeTxnRecord(AppendTxnRecord(nil, &r))
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v comes back as %+v, %v", r, again, err)
		}
	})
}
