package replica

import (
	"fmt"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/invariant"
)

// What was fetched of a key stands until a payload of this term that writes it may
// have come after the fetch; then the key is looked for where writes are.
func TestFetchesStandUntilTheirKeyIsWritten(t *testing.T) {
	for name, c := range map[string]struct {
		between func(r *rig)
		stands  bool
		version uint64
	}{
		"nothing":                 {func(*rig) {}, true, 1},
		"another key":             {func(r *rig) { r.write("other", "") }, true, 1},
		"the key, in flight":      {func(r *rig) { r.submit(put("k", "w")); r.evaluate() }, false, 2},
		"the key, applied":        {func(r *rig) { r.write("k", "") }, false, 2},
		"the key, in the payload": {func(r *rig) { r.submit(put("k", "w")) }, true, 1}, // and then not
		"a flush":                 {func(r *rig) { r.flush() }, true, 1},
		"another term":            {func(r *rig) { r.elect() }, false, 1},
		"a payload that was not taken": {func(r *rig) {
			r.submit(put("k", "w"))
			r.core.Evaluate(r.now)
			r.core.Dropped()
			r.core.StepDown(fault.New(fault.Unavailable, "gone"))
			r.elect()
		}, false, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.elect()
			r.write("k", "")
			a := &answer{req: &Request{Group: 1, Ops: []Op{put("k", "x")}}}
			a.req.Done = func(*Request) { a.done = true }
			op := &a.req.Ops[0]
			r.fetch(op)
			c.between(r)
			r.now.Physical += 2000 // a leader catches up
			if got := r.core.stands(op.diskKey, &op.fetch); got != c.stands {
				t.Fatalf("stands: %t", got)
			}
			before := c.version
			if name == "the key, in the payload" {
				before = 2
			}
			r.core.Enqueue(a.req)
			r.settle()
			if a.mustBe(t, true, ""); op.Result.Version != before+1 {
				t.Fatalf("version %d after %d", op.Result.Version, before)
			}
		})
	}
}

// A place that two keys share costs a search, no more.
func TestTouchedPlacesAreShared(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.write("k", "")
	op := put("k", "x")
	r.fetch(&op)
	if !r.core.stands(op.diskKey, &op.fetch) {
		t.Fatal("nobody wrote it")
	}
	for i := range 20 * touchedPlaces {
		if r.core.lead.touched.touch(fmt.Sprint(i), 1<<40); !r.core.stands(op.diskKey, &op.fetch) {
			cur, ok := r.core.look(op.diskKey, &op.fetch)
			if !ok || cur.header.Version != 1 {
				t.Fatalf("found %+v, %t", cur.header, ok)
			}
			if r.core.cfg.Bugs = invariant.BugUntouched; !r.core.stands(op.diskKey, &op.fetch) {
				t.Fatal("the bug is not planted")
			}
			return
		}
	}
	t.Fatal("no other key has its place")
}
