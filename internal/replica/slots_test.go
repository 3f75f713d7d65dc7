package replica

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// slotRig is a rig of group 5 that owns slots 100 to 4095.
func slotRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.core.cfg.Group = 5
	s := &format.SlotState{}
	s.Owned.AddRange(100, keyspace.SlotCount-1)
	r.core.state.Slots = s
	r.elect()
	return r
}

func slotsOf(text string) format.SlotSet {
	s, err := format.ParseSlotSet(text)
	if err != nil {
		panic(err)
	}
	return s
}

// keyIn returns a key of a slot in the set.
func keyIn(set format.SlotSet) string {
	for i := 0; ; i++ {
		if key := fmt.Sprint("k", i); set.Has(keyspace.SlotOf(1, key)) {
			return key
		}
	}
}

// ask enqueues a step.
func (r *rig) ask(c format.SlotChange, keys ...format.ExportKey) *answer {
	a := r.request(c, keys...)
	r.core.Enqueue(a.req)
	return a
}

func (r *rig) request(c format.SlotChange, keys ...format.ExportKey) *answer {
	op := &SlotOp{Change: c}
	for _, k := range keys {
		op.Keys = append(op.Keys, ImportKey{ExportKey: k})
	}
	a := &answer{req: &Request{Group: 5, Slots: op}}
	a.req.Done = func(*Request) { a.done = true }
	r.fetchImport(op)
	return a
}

func (r *rig) fetchImport(op *SlotOp) {
	view := r.store.View()
	defer view.Close()
	for i := range op.Keys {
		f := Fetched{Delta: view.Active(), Instance: 7, Progress: r.core.Progress(), Valid: true}
		if value, rev, ok, _ := view.Get(7, op.Keys[i].Key, keyspace.MaxRevision); ok {
			f.Header, _ = format.DecodeHeader(value, rev)
		}
		op.Keys[i].SetFetched(f)
	}
}

// settle evaluates and commits until nothing waits.
func (r *rig) settle() {
	r.t.Helper()
	for range 20 {
		r.evaluate()
		r.applyAll()
		r.core.Confirmed(r.term, r.core.Unconfirmed())
	}
}

// step takes a step and returns what it came to.
func (r *rig) step(c format.SlotChange, keys ...format.ExportKey) (SlotResult, error) {
	r.t.Helper()
	a := r.ask(c, keys...)
	r.settle()
	if !a.done || a.req.Err != nil {
		r.t.Fatalf("step %+v: answered %v, %v", c, a.done, a.req.Err)
	}
	return a.req.Slots.Result, a.req.Slots.Result.Err
}

func (r *rig) mustStep(c format.SlotChange, keys ...format.ExportKey) SlotResult {
	r.t.Helper()
	res, err := r.step(c, keys...)
	if err != nil {
		r.t.Fatalf("step %+v: %v", c, err)
	}
	return res
}

// What a group may be asked, in every phase of a move. Each script runs on a
// group 5 that owns slots 100 to 4095; N is the nonce of the last freeze. A step
// ends with "entry", "again" (it had happened, no entry is made) or words of its
// refusal.
func TestStepsOfMoves(t *testing.T) {
	type line struct {
		step, slots string
		move        format.MoveID
		peer        keyspace.GroupID
		nonce       string
		want        string
	}
	out := []line{{"freeze", "200-300", 3, 9, "", "entry"}}
	left := append(out[:1:1], line{"leave", "", 3, 0, "N", "entry"})
	in := []line{{"begin", "0-9", 4, 2, "", "entry"}}
	copied := append(in[:1:1], line{"copied", "", 4, 0, "", "entry"})
	ready := append(copied[:2:2], line{"ready", "", 4, 0, "77", "entry"})
	for name, script := range map[string][]line{
		"founded again":               {{"found", "100-4095", 0, 0, "", "again"}, {"found", "1", 0, 0, "", "knows its slots"}},
		"no move":                     {{"thaw", "", 0, 0, "1", "names no move"}},
		"begin again":                 append(in[:1:1], line{"begin", "0-9", 4, 2, "", "again"}),
		"begin other slots":           append(in[:1:1], line{"begin", "0-8", 4, 2, "", "another move"}),
		"begin another":               append(in[:1:1], line{"begin", "20", 5, 2, "", "another move"}),
		"begin what is owned":         {{"begin", "99-100", 4, 2, "", "owns slots"}},
		"begin what was given away":   append(left[:2:2], line{"begin", "200", 4, 2, "", "never takes them back"}),
		"begin from a higher group":   {{"begin", "0-9", 4, 6, "", "higher ids"}},
		"begin from itself":           {{"begin", "0-9", 4, 5, "", "higher ids"}},
		"begin from the meta group":   {{"begin", "0-9", 4, 0, "", "higher ids"}},
		"begin nothing":               {{"begin", "", 4, 2, "", "no slots"}},
		"import without a move":       {{"copied", "", 4, 0, "", "no such move"}},
		"import of another move":      append(in[:1:1], line{"copied", "", 5, 0, "", "no such move"}),
		"ready before the copy":       append(in[:1:1], line{"ready", "", 4, 0, "77", "not all of the slots"}),
		"ready without a nonce":       append(copied[:2:2], line{"ready", "", 4, 0, "", "no freeze"}),
		"ready again":                 append(ready[:3:3], line{"ready", "", 4, 0, "77", "again"}),
		"ready by a later freeze":     append(ready[:3:3], line{"ready", "", 4, 0, "88", "entry"}),
		"accept before ready":         append(copied[:2:2], line{"accept", "", 4, 0, "", "does not have all"}),
		"accept by another freeze":    append(ready[:3:3], line{"accept", "", 4, 0, "76", "another freeze"}),
		"import makes unready":        append(ready[:3:3], line{"copied", "", 4, 0, "", "entry"}, line{"accept", "", 4, 0, "", "does not have all"}),
		"accept again":                append(ready[:3:3], line{"accept", "", 4, 0, "77", "entry"}, line{"accept", "", 4, 0, "77", "again"}, line{"copied", "", 4, 0, "", "ended"}),
		"accept what was aborted":     append(ready[:3:3], line{"abort", "", 4, 2, "", "entry"}, line{"accept", "", 4, 0, "77", "ended"}),
		"begin what was aborted":      {{"abort", "", 4, 2, "", "entry"}, {"abort", "", 4, 2, "", "again"}, {"begin", "0-9", 4, 2, "", "ended"}, {"begin", "0-9", 5, 2, "", "entry"}},
		"abort what came":             append(in[:1:1], line{"abort", "", 4, 2, "", "entry"}, line{"abort", "", 4, 2, "", "again"}),
		"abort of nobody":             {{"abort", "", 4, 0, "", "other group"}, {"abort", "", 4, 5, "", "other group"}},
		"freeze again":                append(out[:1:1], line{"freeze", "200-300", 3, 9, "", "again"}),
		"freeze other slots":          append(out[:1:1], line{"freeze", "200-301", 3, 9, "", "other slots"}),
		"freeze for another":          append(out[:1:1], line{"freeze", "200-300", 3, 8, "", "other slots"}),
		"freeze another move":         append(out[:1:1], line{"freeze", "400", 4, 9, "", "another move"}),
		"freeze what is not owned":    {{"freeze", "99-100", 3, 9, "", "not own all"}},
		"freeze for a lower group":    {{"freeze", "200", 3, 4, "", "higher ids"}},
		"freeze nothing":              {{"freeze", "", 3, 9, "", "no slots"}},
		"freeze what left":            append(left[:2:2], line{"freeze", "200-300", 3, 9, "", "given up"}),
		"freeze what was aborted":     {{"abort", "", 3, 9, "", "entry"}, {"freeze", "200", 3, 9, "", "ended"}, {"freeze", "200", 4, 9, "", "entry"}},
		"thaw, then again":            append(out[:1:1], line{"thaw", "", 3, 0, "N", "entry"}, line{"thaw", "", 3, 0, "N", "again"}),
		"thaw of a move never seen":   {{"thaw", "", 3, 0, "1", "no such move"}},
		"thaw of no freeze":           append(out[:1:1], line{"thaw", "", 3, 0, "", "no freeze"}, line{"thaw", "", 3, 0, "999", "no such freeze"}),
		"thaw of what left":           append(left[:2:2], line{"thaw", "", 3, 0, "N", "given up"}),
		"thaw of an ended move":       append(left[:2:2], line{"forget", "", 3, 0, "", "entry"}, line{"thaw", "", 3, 0, "N", "again"}),
		"leave after a thaw":          append(out[:1:1], line{"thaw", "", 3, 0, "N", "entry"}, line{"leave", "", 3, 0, "N", "was undone"}),
		"leave by an earlier freeze":  append(out[:1:1], line{"thaw", "", 3, 0, "N", "entry"}, line{"freeze", "200-300", 3, 9, "", "entry"}, line{"leave", "", 3, 0, "3", "was undone"}, line{"leave", "", 3, 0, "N", "entry"}),
		"thaw of an earlier freeze":   append(out[:1:1], line{"thaw", "", 3, 0, "N", "entry"}, line{"freeze", "200-300", 3, 9, "", "entry"}, line{"thaw", "", 3, 0, "3", "again"}, line{"leave", "", 3, 0, "N", "entry"}),
		"leave again":                 append(left[:2:2], line{"leave", "", 3, 0, "N", "again"}, line{"leave", "", 3, 0, "3000", "another one"}),
		"leave of no freeze":          {{"leave", "", 3, 0, "", "no freeze"}, {"leave", "", 3, 0, "7", "no such move"}},
		"leave of what was forgotten": append(left[:2:2], line{"forget", "", 3, 0, "", "entry"}, line{"leave", "", 3, 0, "N", "ended"}),
		"forget before leaving":       append(out[:1:1], line{"forget", "", 3, 0, "", "not been given up"}),
		"forget again":                append(left[:2:2], line{"forget", "", 3, 0, "", "entry"}, line{"forget", "", 3, 0, "", "again"}),
		"forget what never was":       {{"forget", "", 3, 0, "", "no such move"}},
		"abort what is frozen":        append(out[:1:1], line{"abort", "", 3, 9, "", "entry"}, line{"leave", "", 3, 0, "N", "ended"}),
		"abort what left":             append(left[:2:2], line{"abort", "", 3, 9, "", "only go on"}),
		"purge nothing":               {{"purged", "", 0, 0, "", "not purging"}, {"purged to the end", "", 0, 0, "", "again"}},
		"purge":                       append(left[:2:2], line{"forget", "", 3, 0, "", "entry"}, line{"purged", "", 3, 0, "", "entry"}, line{"purged to the end", "", 3, 0, "", "entry"}, line{"purged to the end", "", 3, 0, "", "again"}, line{"purged", "", 3, 0, "", "not purging"}),
		"purge of an earlier walk":    append(left[:2:2], line{"forget", "", 3, 0, "", "entry"}, line{"purged to the end", "", 2, 0, "", "begun anew"}),
		"both ways at once":           append(ready[:3:3], line{"freeze", "200-300", 9, 9, "", "entry"}, line{"leave", "", 9, 0, "N", "entry"}, line{"forget", "", 9, 0, "", "entry"}, line{"accept", "", 4, 0, "77", "entry"}, line{"freeze", "0-9", 10, 9, "", "entry"}),
		"ids in other directions":     {{"abort", "", 8, 9, "", "entry"}, {"begin", "0-9", 4, 2, "", "entry"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := slotRig(t)
			var frozen keyspace.Index
			for n, l := range script {
				c := format.SlotChange{Kind: kinds[l.step], Move: l.move, Peer: l.peer, Slots: slotsOf(l.slots), Ceiling: keyspace.RevisionAt(wall),
					Done: strings.HasSuffix(l.step, "end") || l.step == "copied"}
				if l.step == "purged" {
					c.Cursor = []byte("k")
				}
				if l.nonce == "N" {
					c.Nonce = frozen
				} else if l.nonce != "" {
					if _, err := fmt.Sscan(l.nonce, &c.Nonce); err != nil {
						t.Fatal(err)
					}
				}
				before := r.index
				res, err := r.step(c)
				got := "again"
				if r.index > before {
					got = "entry"
				}
				if err != nil {
					got = err.Error()
				}
				if !strings.Contains(got, l.want) || err != nil && r.index > before {
					t.Fatalf("line %d, %+v: %s after %d entries, want %s", n, l, got, r.index-before, l.want)
				}
				if code := fault.CodeOf(err); code != "" && code != fault.FailedPrecondition && code != fault.InvalidArgument {
					t.Fatalf("line %d: code %q", n, code)
				}
				if err == nil && (res.Slots != r.core.state.Slots || res.Index != r.index) {
					t.Fatalf("line %d: the answer is of index %d, applied is %d", n, res.Index, r.index)
				}
				if l.step == "freeze" && err == nil {
					if frozen = res.Nonce; frozen == 0 || got == "entry" && frozen != r.index {
						t.Fatalf("line %d: nonce %d of the entry at %d", n, frozen, r.index)
					}
				}
			}
		})
	}
}

var kinds = map[string]format.SlotOpKind{"found": format.SlotFound, "begin": format.SlotBegin, "copied": format.SlotImport,
	"ready": format.SlotReady, "accept": format.SlotAccept, "freeze": format.SlotFreeze, "thaw": format.SlotThaw,
	"leave": format.SlotLeave, "forget": format.SlotForget, "abort": format.SlotAbort,
	"purged": format.SlotPurged, "purged to the end": format.SlotPurged}

// A group of a cluster that was founded before there were moves owns all until
// its log says otherwise; the meta group always does.
func TestFoundingIsMadeExplicit(t *testing.T) {
	r := slotRig(t)
	r.core.state.Slots = nil
	if _, err := r.step(format.SlotChange{Kind: format.SlotBegin, Move: 1, Peer: 2, Slots: slotsOf("7")}); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Fatalf("a move to a group without a layout: %v", err)
	}
	r.write("k1", "")
	owned := slotsOf("0-9")
	res := r.mustStep(format.SlotChange{Kind: format.SlotFound, Slots: owned})
	if res.Slots == nil || res.Slots.Owned != owned {
		t.Fatalf("founded with %+v", res.Slots)
	}
	r.write("k1", fault.WrongGroup)
	r.core.cfg.Group = keyspace.MetaGroup
	if _, err := r.step(format.SlotChange{Kind: format.SlotFound, Slots: owned}); fault.CodeOf(err) != fault.InvalidArgument {
		t.Fatalf("slots for the meta group: %v", err)
	}
}

// write puts a key and requires how that ends.
func (r *rig) write(key string, want fault.Code) *answer {
	r.t.Helper()
	a := r.submit(put(key, "v"))
	r.settle()
	a.mustBe(r.t, true, want)
	return a
}

// Who gives slots away, as its users see it: frozen writes are told to wait, after
// a thaw they go on, and what left is another group's. Other slots never notice.
func TestWritesOfTheSender(t *testing.T) {
	r := slotRig(t)
	moving, other := keyIn(slotsOf("200-300")), keyIn(slotsOf("301-4095"))
	freeze := format.SlotChange{Kind: format.SlotFreeze, Move: 3, Peer: 9, Slots: slotsOf("200-300")}
	nonce := r.mustStep(freeze).Nonce
	a := r.write(moving, fault.Unavailable)
	var e *fault.Error
	if !errors.As(a.req.Err, &e) || e.RetryAfter != frozenHint {
		t.Fatalf("refused without a hint: %v", a.req.Err)
	}
	both := r.submit(put(other, "v"), put(moving, "v"))
	r.settle()
	both.mustBe(t, true, fault.Unavailable)
	r.write(other, "")
	r.mustStep(format.SlotChange{Kind: format.SlotThaw, Move: 3, Nonce: nonce})
	r.write(moving, "")
	nonce = r.mustStep(freeze).Nonce
	res := r.mustStep(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: nonce, Floor: 12})
	if res.Ceiling != r.core.state.Ceiling || res.Floor != 12 {
		t.Fatalf("left with ceiling %v, floor %v; the entry has %v", res.Ceiling, res.Floor, r.core.state.Ceiling)
	}
	gone := r.write(moving, fault.WrongGroup)
	if want := fmt.Sprint(keyspace.SlotOf(1, moving)); !errors.As(gone.req.Err, &e) || e.Details["slot"] != want || e.Details["group"] != "5" {
		t.Fatalf("details %v", e.Details)
	}
	r.now.Physical += 5000
	r.write(other, "")
	if again := r.mustStep(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: nonce}); again.Ceiling != res.Ceiling || again.Floor != res.Floor {
		t.Fatalf("asked again: %+v, first %+v", again, res)
	}
	s := r.core.state.Slots
	if s.Owned.Has(200) || !s.Gone.Has(200) || !s.Leftover.Has(300) || !s.Mixed() || s.Purging {
		t.Fatalf("after leaving: %+v", s)
	}
	r.mustStep(format.SlotChange{Kind: format.SlotForget, Move: 3})
	if s = r.core.state.Slots; s.Out != nil || !s.Purging || s.EndedOut != 3 {
		t.Fatalf("after forgetting: %+v", s)
	}
	r.mustStep(format.SlotChange{Kind: format.SlotPurged, Move: 3, Done: true})
	if s = r.core.state.Slots; s.Purging || s.Mixed() || !s.Gone.Has(200) {
		t.Fatalf("after the purge: %+v", s)
	}
}

// The receiver owns nothing before it accepts; then its clock is above the
// sender's ceiling and its history reaches down to the floor.
func TestAcceptBeginsAboveTheSender(t *testing.T) {
	r := slotRig(t)
	moving := slotsOf("0-99")
	key := keyIn(moving)
	r.write(key, fault.WrongGroup)
	r.mustStep(format.SlotChange{Kind: format.SlotBegin, Move: 4, Peer: 2, Slots: moving})
	if s := r.core.state.Slots; !s.Mixed() || s.Owned.Has(5) || s.In == nil || s.In.Phase != format.SlotsCopying {
		t.Fatalf("after begin: %+v", s)
	}
	r.mustStep(format.SlotChange{Kind: format.SlotImport, Move: 4, Base: 17, Rev: 99, Cursor: []byte("m"), Floor: 50, Bytes: 5})
	r.mustStep(format.SlotChange{Kind: format.SlotImport, Move: 4, Base: 17, Rev: 99, Done: true, Floor: 40, Bytes: 6})
	r.mustStep(format.SlotChange{Kind: format.SlotImport, Move: 4, Base: 30, Bytes: 7}) // what changed meanwhile
	want := &format.SlotsIn{ID: 4, From: 2, Slots: moving, Phase: format.SlotsCopying, Base: 30, Rev: 99, Copied: true, Floor: 50, Bytes: 18}
	if in := r.core.state.Slots.In; !reflect.DeepEqual(in, want) {
		t.Fatalf("copied: %+v, want %+v", in, want)
	}
	r.mustStep(format.SlotChange{Kind: format.SlotReady, Move: 4, Nonce: 7})
	r.write(key, fault.WrongGroup)
	ceiling := keyspace.RevisionAt(wall + 60_000) // far ahead of this clock
	before := r.core.state.Ceiling
	r.mustStep(format.SlotChange{Kind: format.SlotAccept, Move: 4, Nonce: 7, Ceiling: ceiling, Floor: 45})
	s := &r.core.state
	if s.LastRev <= ceiling || s.Ceiling <= ceiling || before > ceiling {
		t.Fatalf("accepted at %v, ceiling %v; the sender's was %v", s.LastRev, s.Ceiling, ceiling)
	}
	if !s.Slots.Owned.Has(5) || s.Slots.Mixed() || s.Slots.In != nil || s.Slots.Floor != 50 || s.Slots.EndedIn != 4 {
		t.Fatalf("after accept: %+v", s.Slots)
	}
	if rev := r.write(key, "").req.Ops[0].Result.Revision; rev <= ceiling {
		t.Fatalf("a write at %v, not above %v", rev, ceiling)
	}
	if clock := r.core.ReadClock(r.now); clock <= ceiling {
		t.Fatalf("a read at %v, not above %v", clock, ceiling)
	}
}
