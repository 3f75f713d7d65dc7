package format

import (
	"reflect"
	"testing"

	"kvstore/internal/fault"
)

func TestSlotsOnTheWire(t *testing.T) {
	set := FoundingSlots(2, 7)
	s := &SlotState{Owned: set, Gone: FoundingSlots(1, 7), Floor: 7, Ended: 9, EndedIn: 9, EndedOut: 4, Purging: true, Purged: []byte("p"),
		In:  &SlotsIn{ID: 10, From: 1, Slots: set, Phase: SlotsCopying, Base: 3, Rev: 4, Cursor: []byte("c"), Copied: true, Floor: 5, Nonce: 6, Bytes: 8},
		Out: &SlotsOut{ID: 11, To: 3, Slots: set, Nonce: 12, Left: true, Ceiling: 13, Floor: 14}}
	got, err := DecodeSlotState(AppendSlotState(nil, s))
	if err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("state %+v, want %+v (%v)", got, s, err)
	}
	if got, err := DecodeSlotState(AppendSlotState(nil, nil)); got != nil || err != nil {
		t.Errorf("no state: %+v, %v", got, err)
	}
	c := SlotChange{Kind: SlotImport, Move: 1, Peer: 2, Slots: set, Nonce: 3, Ceiling: 4, Floor: 5, Base: 6, Rev: 7, Cursor: []byte("x"), Done: true, Bytes: 8}
	back, err := DecodeSlotChange(AppendSlotChange(nil, &c))
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("change %+v, want %+v (%v)", back, c, err)
	}
	for _, b := range [][]byte{nil, {0}, {Version + 1, 1}, AppendSlotChange(nil, &c)[:5], append(AppendSlotChange(nil, &c), 0)} {
		if _, err := DecodeSlotChange(b); fault.CodeOf(err) == "" {
			t.Errorf("%v decodes", b)
		}
	}
}
