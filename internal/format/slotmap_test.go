package format

import (
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func mustSlots(t *testing.T, text string) SlotSet {
	t.Helper()
	s, err := ParseSlotSet(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFoundingSlotsRecordIsTheFoundingLayout(t *testing.T) {
	for _, groups := range []int{1, 3, 8, 50, MaxGroups} {
		r := FoundingSlotsRecord(groups)
		if err := r.Validate(); err != nil || len(r.Owners) != groups {
			t.Fatalf("%d groups: %d owners, %v", groups, len(r.Owners), err)
		}
		for _, o := range []SlotOwner{r.Owners[0], r.Owners[groups/2], r.Owners[groups-1]} {
			if want := FoundingSlots(o.Group, groups); o.Slots != want {
				t.Errorf("group %d of %d: %s, want %s", o.Group, groups, o.Slots.String(), want.String())
			}
		}
	}
}

func TestSlotsRecordIsReadableText(t *testing.T) {
	r := FoundingSlotsRecord(2)
	r.Owners = append(r.Owners, SlotOwner{Group: 3})
	r.Moves, r.NextMove = []SlotMoveRecord{{ID: 1, From: 1, To: 3, Slots: mustSlots(t, "7,100-200"), Reason: "growth"}}, 2
	text := EncodeSystem(r)
	if want := `"moves":[{"id":1,"from":1,"to":3,"slots":"7,100-200","reason":"growth"}]`; !strings.Contains(string(text), want) {
		t.Errorf("%s lacks %s", text, want)
	}
	back, err := DecodeSystem[SlotsRecord](SystemSlotsKey, text)
	if err != nil || back.Validate() != nil || back.Owners[1].Slots != r.Owners[1].Slots || back.Moves[0] != r.Moves[0] {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestSlotsRecordValidate(t *testing.T) {
	move := func(id MoveID, from, to keyspace.GroupID, slots string) SlotMoveRecord {
		return SlotMoveRecord{ID: id, From: from, To: to, Slots: mustSlots(t, slots)}
	}
	for _, c := range []struct {
		name   string
		change func(r *SlotsRecord)
		want   string
	}{
		{"no groups", func(r *SlotsRecord) { r.Owners = nil }, "out of range"},
		{"too many groups", func(r *SlotsRecord) { r.Owners = make([]SlotOwner, MaxGroups+1) }, "out of range"},
		{"a gap", func(r *SlotsRecord) { r.Owners[2].Group = 5 }, "not in order"},
		{"two owners", func(r *SlotsRecord) { r.Owners[2].Slots.Add(9) }, "two owners"},
		{"no owner", func(r *SlotsRecord) { r.Owners[0].Slots = r.Owners[0].Slots.Without(&SlotSet{1}) }, "no owner"},
		{"id used before", func(r *SlotsRecord) { r.Moves = []SlotMoveRecord{move(9, 1, 3, "1")} }, "out of order"},
		{"ids in disorder", func(r *SlotsRecord) {
			r.Moves = []SlotMoveRecord{move(2, 1, 3, "1"), move(1, 2, 4, "3000")}
		}, "out of order"},
		{"downwards", func(r *SlotsRecord) { r.Moves = []SlotMoveRecord{move(1, 2, 1, "3000")} }, "later one"},
		{"to no group", func(r *SlotsRecord) { r.Moves = []SlotMoveRecord{move(1, 2, 5, "3000")} }, "later one"},
		{"of nothing", func(r *SlotsRecord) { r.Moves = []SlotMoveRecord{move(1, 1, 3, "")} }, "does not own"},
		{"of others' slots", func(r *SlotsRecord) { r.Moves = []SlotMoveRecord{move(1, 1, 3, "1,3000")} }, "does not own"},
		{"two from one", func(r *SlotsRecord) {
			r.Moves = []SlotMoveRecord{move(1, 1, 3, "1"), move(2, 1, 4, "2")}
		}, "two moves"},
		{"two to one", func(r *SlotsRecord) {
			r.Moves = []SlotMoveRecord{move(1, 1, 3, "1"), move(2, 2, 3, "3000")}
		}, "two moves"},
	} {
		r := FoundingSlotsRecord(2)
		r.Owners = append(r.Owners, SlotOwner{Group: 3}, SlotOwner{Group: 4})
		r.NextMove = 9
		if err := r.Validate(); err != nil {
			t.Fatalf("before the change: %v", err)
		}
		c.change(&r)
		if err := r.Validate(); fault.CodeOf(err) != fault.Corruption || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestFoundingKeys(t *testing.T) {
	if g, ok := SystemFoundingOf(SystemFoundingKey(9)); g != 9 || !ok {
		t.Errorf("group %d, %v", g, ok)
	}
	if _, ok := SystemFoundingOf(SystemSlotsKey); ok {
		t.Error("the slot map is no founding")
	}
}
