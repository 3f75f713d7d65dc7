package format

import (
	"errors"
	"reflect"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func TestEntryRoundTrip(t *testing.T) {
	in := Entry{Type: EntryWrite, Prev: 7, Stamp: 1 << 40, Ceiling: 1<<40 + 99, Closed: 1<<40 - 1, Lower: true,
		Claims: []keyspace.Revision{3, 4}, Upload: 5,
		Writes: []Write{{Key: []byte("a"), Revision: 1<<40 - 2, Value: []byte("v")},
			{Key: []byte("b"), Revision: 1 << 40, Value: []byte{}, Delete: true}}}
	b := AppendEntry(nil, &in)
	var out Entry
	if err := DecodeEntry(b, &out); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Fatalf("got %+v, want %+v", out, in)
	}
	for i := range b {
		if err := DecodeEntry(b[:i], &out); err == nil {
			t.Fatalf("a cut after %d of %d bytes was accepted", i, len(b))
		}
	}
	b[1] = 99
	if err := DecodeEntry(b, &out); !errors.Is(err, ErrUnknownEntry) {
		t.Fatalf("unknown type: got %v", err)
	}
}

func TestStateRoundTrip(t *testing.T) {
	in := State{Group: 3, Index: 9, Term: 2, LastRev: 100, Ceiling: 200, Closed: 90, Chain: 42, Format: 1, NextID: 4,
		Members: []Member{{Replica: 1, Node: "n1"}, {Replica: 3, Node: "n3", Learner: true}},
		Uploads: []Upload{{Stamp: 5, Term: 1, Chunks: 2}}, ConfState: []byte{1, 2}}
	out, err := DecodeState(AppendState(nil, &in))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(in, out) {
		t.Fatalf("got %+v, want %+v", out, in)
	}
	if _, err := DecodeState([]byte{99}); fault.CodeOf(err) != fault.Unsupported {
		t.Fatalf("newer state: got %v", err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(AppendEntry(nil, &Entry{Type: EntryWrite, Stamp: 9, Writes: []Write{{Key: []byte("k"), Value: []byte("v")}}}))
	f.Add(AppendEntry(nil, &Entry{Type: EntryImport, Stamp: 9, Slots: &SlotChange{Kind: SlotImport, Slots: SlotSet{7}, Cursor: []byte("k")}}))
	f.Add(AppendEntry(nil, someTxnEntry()))
	f.Fuzz(func(t *testing.T, b []byte) {
		var e Entry
		if DecodeEntry(b, &e) != nil {
			return
		}
		var again Entry
		if err := DecodeEntry(AppendEntry(nil, &e), &again); err != nil {
			t.Fatalf("re-encoded entry does not decode: %v", err)
		}
	})
}
