package format

import (
	"encoding/json"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/keyspace"
)

func anySlots(t *rapid.T, label string) (s SlotSet) {
	for range rapid.IntRange(0, 6).Draw(t, label+" ranges") {
		first := rapid.IntRange(0, keyspace.SlotCount-1).Draw(t, label+" first")
		last := rapid.IntRange(first, min(first+200, keyspace.SlotCount-1)).Draw(t, label+" last")
		s.AddRange(keyspace.SlotID(first), keyspace.SlotID(last))
	}
	return s
}

func TestSlotSetsAreSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anySlots(t, "a"), anySlots(t, "b")
		both, less := a.With(&b), a.Without(&b)
		common := 0
		for slot := range keyspace.SlotID(keyspace.SlotCount) {
			if both.Has(slot) != (a.Has(slot) || b.Has(slot)) || less.Has(slot) != (a.Has(slot) && !b.Has(slot)) {
				t.Fatalf("slot %d: a %v, b %v, with %v, without %v", slot, a.Has(slot), b.Has(slot), both.Has(slot), less.Has(slot))
			}
			if a.Has(slot) && b.Has(slot) {
				common++
			}
		}
		if a.Count() != less.Count()+common || a.Meets(&b) != (common > 0) || a.Contains(&b) != (common == b.Count()) {
			t.Fatalf("a %s, b %s: common %d, meets %v, contains %v", &a, &b, common, a.Meets(&b), a.Contains(&b))
		}
		if n := len(slices.Collect(a.All())); n != a.Count() || a.Empty() != (n == 0) {
			t.Fatalf("%s yields %d slots, has %d", &a, n, a.Count())
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		var back SlotSet
		if err := json.Unmarshal(text, &back); err != nil || back != a {
			t.Fatalf("%s came back as %s: %v", text, &back, err)
		}
	})
}

func TestParseSlotSetRefuses(t *testing.T) {
	for _, text := range []string{"-", "1-", "5-2", "4096", "0-4096", "a", "1,,2", "-1", "1-2-3"} {
		if s, err := ParseSlotSet(text); err == nil {
			t.Errorf("%q is taken as %s", text, &s)
		}
	}
}

func TestFoundingSlotsCoverTheRing(t *testing.T) {
	for _, groups := range []int{1, 3, 8, 1024} {
		var all SlotSet
		for g := range groups {
			s := FoundingSlots(keyspace.GroupID(g+1), groups)
			if all.Meets(&s) || s.Empty() {
				t.Fatalf("group %d of %d: %s", g+1, groups, &s)
			}
			all = all.With(&s)
		}
		if all.Count() != keyspace.SlotCount {
			t.Fatalf("%d groups own %d slots", groups, all.Count())
		}
	}
}
