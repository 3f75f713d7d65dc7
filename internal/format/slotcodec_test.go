package format

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func anyChange(t *rapid.T) *SlotChange {
	n := func(label string) uint64 { return rapid.Uint64().Draw(t, label) }
	return &SlotChange{Kind: SlotOpKind(rapid.IntRange(int(SlotFound), int(SlotImport)).Draw(t, "kind")),
		Move: MoveID(n("move")), Peer: keyspace.GroupID(rapid.Uint32().Draw(t, "peer")), Slots: anySlots(t, "slots"),
		Nonce: keyspace.Index(n("nonce")), Ceiling: keyspace.Revision(n("ceiling")), Floor: keyspace.Revision(n("floor")),
		Base: keyspace.Index(n("base")), Rev: keyspace.Revision(n("rev")), Bytes: n("bytes"),
		Cursor: rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "cursor"), Done: rapid.Bool().Draw(t, "done")}
}

func anySlotState(t *rapid.T) *SlotState {
	n := func(label string) uint64 { return rapid.Uint64().Draw(t, label) }
	s := &SlotState{Owned: anySlots(t, "owned"), Gone: anySlots(t, "gone"), Leftover: anySlots(t, "leftover"),
		Floor: keyspace.Revision(n("floor")), Ended: MoveID(n("ended")), EndedIn: MoveID(n("in")), EndedOut: MoveID(n("out")),
		Accepted: MoveID(n("accepted")), Purging: rapid.Bool().Draw(t, "purging"), Purged: rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "purged")}
	if rapid.Bool().Draw(t, "a move to it") {
		s.In = &SlotsIn{ID: MoveID(n("id")), From: 3, Slots: anySlots(t, "in"), Phase: SlotsReady, Base: keyspace.Index(n("base")),
			Rev: keyspace.Revision(n("rev")), Cursor: rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "cursor"), Copied: true,
			Floor: keyspace.Revision(n("floor")), Nonce: keyspace.Index(n("nonce")), Bytes: n("bytes")}
	}
	if rapid.Bool().Draw(t, "a move from it") {
		s.Out = &SlotsOut{ID: MoveID(n("id")), To: 9, Slots: anySlots(t, "out"), Nonce: keyspace.Index(n("nonce")),
			Left: rapid.Bool().Draw(t, "left"), Ceiling: keyspace.Revision(n("ceiling")), Floor: keyspace.Revision(n("floor"))}
	}
	return s
}

func TestSlotEntriesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := Entry{Type: rapid.SampledFrom([]EntryType{EntrySlots, EntryImport}).Draw(t, "type"), Stamp: 5, Ceiling: 9,
			Claims: []keyspace.Revision{7}, Writes: []Write{{Key: []byte("k"), Revision: 2, Value: []byte("v")}}, Slots: anyChange(t)}
		b := AppendEntry(nil, &in)
		var out Entry
		if err := DecodeEntry(b, &out); err != nil || !reflect.DeepEqual(in, out) {
			t.Fatalf("got %+v, %v; want %+v", out, err, in)
		}
		cut := rapid.IntRange(0, len(b)-1).Draw(t, "cut")
		if err := DecodeEntry(b[:cut], &out); err == nil {
			t.Fatalf("a cut after %d of %d bytes was accepted", cut, len(b))
		}
	})
}

func TestSlotStatesRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := State{Group: 4, Index: 8, ConfState: []byte{1}, Slots: anySlotState(t)}
		b := AppendState(nil, &in)
		out, err := DecodeState(b)
		if err != nil || !reflect.DeepEqual(in, out) {
			t.Fatalf("got %+v, %v; want %+v", out, err, in)
		}
		for i := range b { // it keeps nothing of its bytes
			b[i] = 0xff
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("the state changed with the bytes it came from: %+v", out)
		}
	})
}

// States from before there were moves are read, and written, as they were.
func TestStatesWithoutSlots(t *testing.T) {
	in := State{Group: 4, Index: 8, ConfState: []byte{1}}
	b := AppendState(nil, &in)
	if want := []byte{1, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1}; !reflect.DeepEqual(b, want) {
		t.Fatalf("encoded as %v, want %v", b, want)
	}
	if out, err := DecodeState(b); err != nil || out.Slots != nil {
		t.Fatalf("slots %+v, error %v", out.Slots, err)
	}
}

func TestDamagedSlotsAreRefused(t *testing.T) {
	state := func(slots ...byte) []byte { return append(AppendState(nil, &State{Group: 4}), slots...) }
	rest := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0} // sets, numbers and a cursor that are empty
	for name, b := range map[string][]byte{
		"unknown flag":                     state(append([]byte{8}, rest...)...),
		"more ranges than there are bytes": state(append([]byte{0, 200}, rest...)...),
		"a range past the ring":            state(append([]byte{0, 1, 0xff, 0x1f, 1}, rest[1:]...)...),
		"a range that overflows":           state(append([]byte{0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2}, rest[1:]...)...),
	} {
		if _, err := DecodeState(b); fault.CodeOf(err) != fault.Corruption {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := DecodeState(state(append([]byte{0, 1, 0xff, 0x1f, 0}, rest[1:]...)...)); err != nil {
		t.Errorf("the last slot of the ring: %v", err)
	}
	e := AppendEntry(nil, &Entry{Type: EntrySlots, Slots: &SlotChange{Kind: SlotImport + 1}})
	if err := DecodeEntry(e, &Entry{}); fault.CodeOf(err) != fault.Corruption {
		t.Errorf("an unknown step: %v", err)
	}
}

func FuzzDecodeState(f *testing.F) {
	s := State{Group: 2, Slots: &SlotState{In: &SlotsIn{ID: 1}, Out: &SlotsOut{ID: 2}}}
	s.Slots.Owned.AddRange(7, 4095)
	f.Add(AppendState(nil, &s))
	f.Add(AppendState(nil, &State{Group: 1}))
	s.Slots.Out.LowWater, s.Prepared, s.LowWater = 5, somePrepared(), 9
	f.Add(AppendState(nil, &s))
	f.Add(AppendState(nil, &State{Group: 1, Prepared: somePrepared()}))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeState(b)
		if err != nil {
			return
		}
		again, err := DecodeState(AppendState(nil, &s))
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("re-encoded state decodes to %+v, %v; want %+v", again, err, s)
		}
	})
}
