package placement

import (
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// foundedSlots is who owns what after a founding.
func foundedSlots(groups int) map[keyspace.GroupID]format.SlotSet {
	owned := map[keyspace.GroupID]format.SlotSet{}
	for _, o := range format.FoundingSlotsRecord(groups).Owners {
		owned[o.Group] = o.Slots
	}
	return owned
}

// slotsMoved applies a plan, holding it to what every plan must be.
func slotsMoved(t interface{ Fatalf(string, ...any) }, owned map[keyspace.GroupID]format.SlotSet, moves []SlotMove) (map[keyspace.GroupID]format.SlotSet, int) {
	out := map[keyspace.GroupID]format.SlotSet{}
	for g, s := range owned {
		out[g] = s
	}
	total := 0
	type pair struct{ from, to keyspace.GroupID }
	seen := map[pair]bool{}
	for _, m := range moves {
		from, to := out[m.From], out[m.To]
		switch {
		case m.From >= m.To:
			t.Fatalf("a move from %d to %d", m.From, m.To)
		case m.Slots.Empty() || !from.Contains(&m.Slots):
			t.Fatalf("%d does not own %q", m.From, m.Slots.String())
		case seen[pair{m.From, m.To}]:
			t.Fatalf("two moves from %d to %d", m.From, m.To)
		}
		seen[pair{m.From, m.To}] = true
		out[m.From], out[m.To] = from.Without(&m.Slots), to.With(&m.Slots)
		total += m.Slots.Count()
	}
	return out, total
}

// even holds a layout to equal shares.
func even(t interface{ Fatalf(string, ...any) }, owned map[keyspace.GroupID]format.SlotSet, groups int) {
	floor, larger, all := keyspace.SlotCount/groups, 0, format.SlotSet{}
	for g := keyspace.GroupID(1); int(g) <= groups; g++ {
		s := owned[g]
		switch n := s.Count(); {
		case n == floor+1:
			larger++
		case n != floor:
			t.Fatalf("group %d of %d owns %d slots", g, groups, n)
		}
		all = all.With(&s)
	}
	if larger != keyspace.SlotCount%groups || all.Count() != keyspace.SlotCount {
		t.Fatalf("%d larger shares of %d groups, %d slots", larger, groups, all.Count())
	}
}

// fewest is how many slots have to move: what each has above the floor, less
// one for each larger share that somebody has already.
func fewest(owned map[keyspace.GroupID]format.SlotSet, groups int) (n int) {
	floor, larger := keyspace.SlotCount/groups, 0
	for _, s := range owned {
		n += max(0, s.Count()-floor)
		if s.Count() > floor {
			larger++
		}
	}
	return n - min(larger, keyspace.SlotCount%groups)
}

func TestPlanSlotsGrowth(t *testing.T) {
	for _, steps := range [][]int{{3, 5, 7}, {8, 50}, {1, 2}, {1, 1024}, {3, 4, 5, 6, 50, 51, 1000, 1024}} {
		owned := foundedSlots(steps[0])
		if moves := PlanSlots(owned, steps[0]); len(moves) > 0 {
			t.Errorf("%d groups as founded move %v", steps[0], moves)
		}
		for _, groups := range steps[1:] {
			moves := PlanSlots(owned, groups)
			want, donors := fewest(owned, groups), len(owned)
			after, n := slotsMoved(t, owned, moves)
			even(t, after, groups)
			if n != want {
				t.Errorf("%v: %d slots move to %d groups, %d would do", steps, n, groups, want)
			}
			if pieces := len(moves); pieces > groups-1 {
				t.Errorf("%v: %d moves from %d groups to %d", steps, pieces, donors, groups)
			}
			owned = after
		}
	}
}

// From an even layout each group gives and takes ranges.
func TestPlanSlotsMovesRanges(t *testing.T) {
	got := map[[2]keyspace.GroupID]string{}
	for _, m := range PlanSlots(foundedSlots(3), 5) {
		got[[2]keyspace.GroupID{m.From, m.To}] = m.Slots.String()
	}
	want := map[[2]keyspace.GroupID]string{{1, 4}: "820-1365", {2, 4}: "2185-2457", {2, 5}: "2458-2730", {3, 5}: "3550-4095"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

// Growth at any moment of growth: some moves of the last plan were done.
func TestPlanSlotsProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := rapid.IntRange(1, 12).Draw(t, "groups")
		owned := foundedSlots(groups)
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			groups = min(format.MaxGroups, groups+rapid.IntRange(0, 40).Draw(t, "more"))
			moves := PlanSlots(owned, groups)
			if again := PlanSlots(owned, groups); !reflect.DeepEqual(moves, again) {
				t.Fatalf("two plans of one state")
			}
			after, n := slotsMoved(t, owned, moves)
			even(t, after, groups)
			if want := fewest(owned, groups); n != want {
				t.Fatalf("%d slots move, %d would do", n, want)
			}
			var done []SlotMove
			for _, m := range moves {
				if rapid.Bool().Draw(t, "done") {
					done = append(done, m)
				}
			}
			owned, _ = slotsMoved(t, owned, done)
		}
	})
}

// What cannot be made even without moving down stays; nothing moves back.
func TestPlanSlotsNeverMovesDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		groups := rapid.IntRange(1, 9).Draw(t, "groups")
		owned := map[keyspace.GroupID]format.SlotSet{}
		for block := range 32 {
			g := keyspace.GroupID(rapid.IntRange(1, groups).Draw(t, "owner"))
			s := owned[g]
			s.AddRange(keyspace.SlotID(block*128), keyspace.SlotID(block*128+127))
			owned[g] = s
		}
		_, n := slotsMoved(t, owned, PlanSlots(owned, groups))
		if most := fewest(owned, groups); n > most {
			t.Fatalf("%d slots move, %d are above their shares", n, most)
		}
	})
	if PlanSlots(nil, 0) != nil {
		t.Error("no groups, no moves")
	}
}
