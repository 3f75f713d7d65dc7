package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func everything(string) bool { return true }

func putEvent(key, value string, revision, version uint64) Event {
	return Event{Key: key, Value: value, Revision: revision, Version: version}
}

// TestWatchAnomalies: each is found and named, and what is allowed is not.
func TestWatchAnomalies(t *testing.T) {
	pair := []Change{{Key: "a", Value: "1"}, {Key: "b", Value: "1"}}
	writes := []Write{
		{Revision: 10, Changes: pair},
		{Revision: 20, Changes: []Change{{Key: "a", Value: "2"}}},
		{Outcome: Aborted, Changes: []Change{{Key: "a", Value: "no"}}},
		{Outcome: Unknown, Changes: []Change{{Key: "a", Delete: true}, {Key: "b", Value: "3"}}},
		{Changes: []Change{{Key: "c", Value: "told nothing"}}},
		{Revision: 20, Changes: []Change{{Key: "d", Value: "same moment, elsewhere"}}},
		{Outcome: Unknown, Changes: []Change{{Key: "e", Delete: true, Perhaps: true}, {Key: "b", Value: "4"}}},
	}
	first := Update{[]Event{putEvent("a", "1", 10, 1), putEvent("b", "1", 10, 1)}, 15}
	second := Update{[]Event{putEvent("a", "2", 20, 2), putEvent("d", "same moment, elsewhere", 20, 1)}, 22}
	third := Update{[]Event{putEvent("c", "told nothing", 25, 1)}, 26}
	unknown := Update{[]Event{{Key: "a", Delete: true, Revision: 30}, putEvent("b", "3", 30, 2)}, 40}
	good := []Update{{Revision: 5}, first, second, third}
	for _, tc := range []struct {
		name    string
		want    string // "" for nothing
		updates []Update
	}{
		{"all", "", good},
		{"unknown seen", "", append(slices.Clip(good), unknown)},
		{"unknown torn", "torn", append(slices.Clip(good), Update{unknown.Events[1:], 40})},
		{"unknown that deleted nothing", "", append(slices.Clip(good), Update{[]Event{putEvent("b", "4", 30, 2)}, 40})},
		{"gap", "gap", []Update{first, third}},
		{"gap of what nobody knows the revision of", "gap", []Update{first, second}},
		{"twice", "event twice", []Update{first, second, third, {[]Event{putEvent("a", "2", 30, 3)}, 40}}},
		{"twice in one", "event twice", []Update{first, {slices.Concat(second.Events, second.Events), 22}, third}},
		{"torn", "torn transaction", []Update{{first.Events[:1], 10}, {first.Events[1:], 10}, second, third}},
		{"aborted", "certainly not executed", append(slices.Clip(good), Update{[]Event{putEvent("a", "no", 30, 3)}, 40})},
		{"from nowhere", "nobody wrote", append(slices.Clip(good), Update{[]Event{putEvent("z", "?", 30, 1)}, 40})},
		{"a deletion from nowhere", "nobody wrote", append(slices.Clip(good), Update{[]Event{{Key: "c", Delete: true, Revision: 30}}, 40})},
		{"an expiry", "", append(slices.Clip(good), Update{[]Event{{Key: "c", Delete: true, Expired: true, Revision: 30}}, 40})},
		{"out of order", "order", []Update{second, first, third}},
		{"updates go back", "order", []Update{first, second, third, {Revision: 21}}},
		{"an event beyond its update", "order", []Update{first, second, {third.Events, 24}}},
		{"another revision", "revision", []Update{first, {[]Event{putEvent("a", "2", 21, 2), second.Events[1]}, 22}, third}},
		{"a version too far", "gap", []Update{first, {[]Event{putEvent("a", "2", 20, 3), second.Events[1]}, 22}, third}},
		{"nothing", "saw nothing", nil},
	} {
		found := CheckWatch(writes, []Stream{{Name: "w", Match: everything, Updates: tc.updates}})
		switch text := Report(found); {
		case tc.want == "" && text != "":
			t.Errorf("%s: %s", tc.name, text)
		case !strings.Contains(text, tc.want):
			t.Errorf("%s: want %q, found %q", tc.name, tc.want, text)
		}
	}
}

// TestWatchersAgree: of what nobody knows the outcome, streams say the same.
func TestWatchersAgree(t *testing.T) {
	writes := []Write{{Outcome: Unknown, Changes: []Change{{Key: "a", Value: "1"}}}}
	saw := Stream{Name: "saw", Match: everything, Updates: []Update{{[]Event{putEvent("a", "1", 10, 1)}, 20}}}
	missed := Stream{Name: "missed", Match: everything, Updates: []Update{{Revision: 20}}}
	later := Stream{Name: "later", From: 15, Match: everything, Updates: []Update{{Revision: 20}}}
	other := Stream{Name: "other", Match: func(key string) bool { return key == "b" }, Updates: []Update{{Revision: 20}}}
	if found := CheckWatch(writes, []Stream{saw, later, other}); len(found) > 0 {
		t.Error(Report(found))
	}
	if found := CheckWatch(writes, []Stream{missed, saw}); len(found) != 1 || !strings.Contains(found[0].Text, "missed: the unknown write at 10") {
		t.Errorf("found %q", Report(found))
	}
	saw2 := saw
	saw2.Updates = []Update{{[]Event{putEvent("a", "1", 11, 1)}, 20}}
	if found := CheckWatch(writes, []Stream{saw, saw2}); len(found) != 1 || found[0].Kind != "watch: revision" {
		t.Errorf("found %q", Report(found))
	}
}

// TestRandomStreams: what a store would send of random transactions, cut into
// updates anywhere between revisions, is accepted; with any event missing it is
// not.
func TestRandomStreams(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 4))
		writes, events := randomWrites(r)
		cut := func(events []Event) (out []Update) {
			for len(events) > 0 {
				n := 1 + r.IntN(10)
				for n < len(events) && events[n].Revision == events[n-1].Revision {
					n++
				}
				n = min(n, len(events))
				out = append(out, Update{events[:n], events[n-1].Revision})
				events = events[n:]
			}
			return append(out, Update{Revision: 1 << 40})
		}
		half := func(key string) bool { return key < "k5" }
		some := slices.DeleteFunc(slices.Clone(events), func(ev Event) bool { return !half(ev.Key) })
		streams := []Stream{{Name: "all", Match: everything, Updates: cut(events)}, {Name: "some", Match: half, Updates: cut(some)}}
		if found := CheckWatch(writes, streams); len(found) > 0 {
			t.Fatalf("seed %d: %s", seed, Report(found))
		}
		at := r.IntN(len(some))
		streams[1].Updates = cut(slices.Delete(some, at, at+1))
		if found := CheckWatch(writes, streams); len(found) == 0 {
			t.Errorf("seed %d: an event is missing and nothing was found", seed)
		}
	}
}

// randomWrites makes writes of up to three of ten keys, and the events of those
// that happened.
func randomWrites(r *rand.Rand) (writes []Write, events []Event) {
	versions := map[string]uint64{}
	for n := range 300 {
		w := Write{Outcome: Outcome(r.IntN(8) % 3 * r.IntN(2)), Revision: uint64(10 * (n + 1))}
		happens := w.Outcome == Committed || w.Outcome == Unknown && r.IntN(2) == 0
		for _, k := range r.Perm(10)[:1+r.IntN(3)] {
			c := Change{Key: fmt.Sprintf("k%d", k), Value: fmt.Sprint(n)}
			if c.Delete = versions[c.Key] > 0 && r.IntN(4) == 0; c.Delete {
				c.Value = ""
			}
			w.Changes = append(w.Changes, c)
			if !happens {
				continue
			}
			if versions[c.Key]++; c.Delete {
				versions[c.Key] = 0
			}
			events = append(events, Event{Key: c.Key, Value: c.Value, Delete: c.Delete, Revision: w.Revision, Version: versions[c.Key]})
		}
		if w.Outcome != Committed || r.IntN(3) == 0 && !slices.ContainsFunc(w.Changes, func(c Change) bool { return c.Delete }) {
			w.Revision = 0
		}
		writes = append(writes, w)
	}
	return writes, events
}
