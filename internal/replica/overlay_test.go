package replica

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
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

// What a payload writes beside the versions that are looked for, such as the deletion of
// chunks, is written too: what was fetched of it does not stand.
func TestFetchesOfChunksDoNotOutliveThem(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("big", string(make([]byte, 350))))
	r.settle()
	r.mustHaveChunks("big")
	op := put("big", "small")
	r.fetch(&op)
	chunk := keyspace.AppendChunkKey(nil, op.fetch.Header.Chunks.Upload, 0)
	f := Fetched{Instance: 7, Progress: r.core.Progress(), Valid: true}
	if !r.core.stands(chunk, &f) {
		t.Fatal("nobody wrote it")
	}
	r.submit(put("big", "small"))
	if r.evaluate(); r.core.stands(chunk, &f) {
		t.Fatal("stands while its deletion is in flight")
	}
	if r.applyAll(); r.core.stands(chunk, &f) {
		t.Fatal("stands after its deletion")
	}
}

// A place that two keys share costs a search, no more.
func TestPlacesAreShared(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.write("k", "")
	op := put("k", "x")
	r.fetch(&op)
	if !r.core.stands(op.diskKey, &op.fetch) {
		t.Fatal("nobody wrote it")
	}
	other := put(sharing("k"), "v")
	r.submit(other)
	r.evaluate()
	if r.core.stands(op.diskKey, &op.fetch) {
		t.Fatal("one of its place was written")
	}
	cur, ok := r.core.look(op.diskKey, &op.fetch)
	if !ok || cur.header.Version != 1 || r.core.lead.overlay.find(op.diskKey) != nil || r.core.lead.overlay.find(other.DiskKey()) == nil {
		t.Fatalf("found %+v, %t", cur.header, ok)
	}
	if r.core.cfg.Bugs = invariant.BugUntouched; !r.core.stands(op.diskKey, &op.fetch) {
		t.Fatal("the bug is not planted")
	}
}

// sharing is another key with the place of a key.
func sharing(key string) string {
	op := put(key, "")
	for i := 0; ; i++ {
		other := put(fmt.Sprint("other", i), "")
		if placeOf(other.DiskKey()) == placeOf(op.DiskKey()) {
			return other.Key
		}
	}
}

// The overlay against a list of what is pending, newest last, in which few keys share
// few places.
func TestOverlayAgainstAList(t *testing.T) {
	keys := []string{"k", sharing("k"), "other", "x"}
	type payload struct {
		seq   uint64
		first *pending
	}
	rapid.Check(t, func(t *rapid.T) {
		var o overlay
		var list []*pending
		var payloads []payload
		seq := uint64(0)
		without := func(p payload) {
			for w := p.first; w != nil; w = w.next {
				list = slices.DeleteFunc(list, func(x *pending) bool { return x == w })
			}
			o.remove(p.first)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 4).Draw(t, "step") {
			case 0: // applied
				if len(payloads) > 0 {
					without(payloads[0])
					payloads = payloads[1:]
				}
			case 1: // dropped
				if n := len(payloads); n > 0 {
					without(payloads[n-1])
					payloads = payloads[:n-1]
				}
			default:
				seq++
				p := payload{seq: seq}
				for range rapid.IntRange(0, 4).Draw(t, "writes") {
					w := pending{key: string(disk(rapid.SampledFrom(keys).Draw(t, "key"))), rev: keyspace.Revision(len(list) + 1), next: p.first}
					p.first = o.push(w, seq)
					list = append(list, p.first)
				}
				payloads = append(payloads, p)
			}
			for _, k := range keys {
				var want *pending
				for _, w := range list {
					if w.key == string(disk(k)) {
						want = w
					}
				}
				if got := o.find(disk(k)); got != want {
					t.Fatalf("%s is %+v, want %+v", k, got, want)
				}
			}
		}
	})
}

func disk(key string) []byte {
	op := put(key, "")
	return op.DiskKey()
}

// Disk keys that are built together are those that are built one by one.
func TestBuildDiskKeys(t *testing.T) {
	keys := []string{"a", "", "with\x00nul", "\x00\x00\x00\x00\x00\x00\x00\x00\x00", "long " + fmt.Sprint(1<<40)}
	together := make([]Op, len(keys))
	for i, k := range keys {
		together[i] = Op{Namespace: 7, Key: k}
	}
	built := together[1].DiskKey()
	BuildDiskKeys(together)
	if &built[0] != &together[1].DiskKey()[0] {
		t.Error("a key that was there is built again")
	}
	for i, k := range keys {
		one := Op{Namespace: 7, Key: k}
		if got := together[i].DiskKey(); string(got) != string(one.DiskKey()) || together[i].diskKeyText() != string(got) || cap(got) != len(got) && i != 1 {
			t.Errorf("%q is %x, want %x", k, got, one.DiskKey())
		}
	}
}
