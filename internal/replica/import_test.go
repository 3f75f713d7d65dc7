package replica

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

var comes = slotsOf("0-99")

// receiver is a slotRig in which a move of slots 0 to 99 is under way.
func receiver(t *testing.T) *rig {
	t.Helper()
	r := slotRig(t)
	r.mustStep(format.SlotChange{Kind: format.SlotBegin, Move: 4, Peer: 2, Slots: comes})
	return r
}

var page = format.SlotChange{Kind: format.SlotImport, Move: 4, Base: 9, Rev: 1 << 60, Cursor: []byte("c")}

func diskKey(key string) []byte { return keyspace.AppendDataKey(nil, 1, []byte(key)) }

// version is a record as another group has it.
func version(rev keyspace.Revision, value string) format.ExportVersion {
	rec := format.Record{Header: format.Header{Version: 1, Created: rev, Size: uint64(len(value)), Checksum: format.CRC32C([]byte(value))}, Value: []byte(value)}
	return format.ExportVersion{Revision: rev, Value: format.AppendRecord(nil, &rec)}
}

// large is a chunked record as another group has it.
func large(rev keyspace.Revision, chunks ...string) format.ExportVersion {
	all := strings.Join(chunks, "")
	rec := format.Record{Header: format.Header{Flags: format.FlagChunked, Version: 1, Created: rev, Size: uint64(len(all)), Checksum: format.CRC32C([]byte(all)),
		Chunks: format.ChunkRef{Upload: 12345, Count: uint32(len(chunks))}}}
	v := format.ExportVersion{Revision: rev, Value: format.AppendRecord(nil, &rec)}
	for _, c := range chunks {
		v.Chunks = append(v.Chunks, []byte(c))
	}
	return v
}

// at reads a key as of a revision, with its chunks: "" for none.
func (r *rig) at(key string, rev keyspace.Revision) string {
	r.t.Helper()
	view := r.store.View()
	defer view.Close()
	value, found, ok, err := view.Get(7, diskKey(key), rev)
	if err != nil || !ok {
		return ""
	}
	rec, err := format.DecodeRecord(value, found)
	if err != nil {
		r.t.Fatal(err)
	}
	if rec.Flags&format.FlagTombstone != 0 {
		return "deleted"
	}
	for n := range rec.Chunks.Count {
		b, _, ok, err := view.Get(7, keyspace.AppendChunkKey(nil, rec.Chunks.Upload, n), found)
		if err != nil || !ok {
			r.t.Fatalf("chunk %d of %q at %v: found %v, %v", n, key, found, ok, err)
		}
		rec.Value = append(rec.Value, b...)
	}
	return string(rec.Value)
}

// chunks counts those that are there at a revision.
func (r *rig) chunks(rev keyspace.Revision) (n int) {
	r.t.Helper()
	view := r.store.View()
	defer view.Close()
	lower := []byte{byte(keyspace.KindChunk)}
	it := view.Scan(mvcc.ScanOptions{Instance: 7, Lower: lower, Upper: keyspace.PrefixEnd(lower), At: rev})
	defer it.Close()
	for ; it.Valid(); it.Next() {
		n++
	}
	return n
}

// Versions arrive at the revisions they had, also below what is closed here and
// above this group's clock.
func TestImportKeepsRevisions(t *testing.T) {
	r := receiver(t)
	r.now.Physical += 300
	if closed, ok := r.core.CloseIdle(r.now); !ok || closed < 1000 {
		t.Fatalf("closed %v", closed)
	}
	key := keyIn(comes)
	ahead := keyspace.RevisionAt(r.now.Physical + 60_000)
	r.mustStep(page, format.ExportKey{Key: diskKey(key), Versions: []format.ExportVersion{version(10, "a"), version(500, "b"), version(ahead, "c")}})
	for rev, want := range map[keyspace.Revision]string{9: "", 10: "a", 499: "a", 500: "b", ahead - 1: "b", ahead: "c"} {
		if got := r.at(key, rev); got != want {
			t.Fatalf("at %v: %q, want %q", rev, got, want)
		}
	}
	// A snapshot reaches up to LastRev: all of it must be below.
	if s := r.core.State(); s.LastRev < ahead || s.Ceiling < ahead {
		t.Fatalf("imported up to %v, last revision %v, ceiling %v", ahead, s.LastRev, s.Ceiling)
	}
}

// A page that was imported already changes nothing when it comes again, wholly or
// in part, from memory or from below it, in flight or applied.
func TestImportAgain(t *testing.T) {
	big := large(700, "one", "two", "three")
	all := []format.ExportVersion{version(10, "a"), version(500, "b"), big}
	for name, again := range map[string]func(*rig){
		"applied": func(*rig) {},
		"flushed": func(r *rig) { r.flush() },
		"new term": func(r *rig) {
			r.elect()
			r.now.Mono += 1 << 40
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := receiver(t)
			key := format.ExportKey{Key: diskKey(keyIn(comes))}
			for n := range len(all) + 1 {
				key.Versions = all[:n]
				r.mustStep(page, key)
				again(r)
			}
			key.Versions = all
			a, b := r.ask(page, key), r.ask(page, key)
			r.settle()
			a.mustBe(t, true, "")
			b.mustBe(t, true, "")
			if got := r.at(keyIn(comes), keyspace.MaxRevision-1); got != "onetwothree" {
				t.Fatalf("value %q", got)
			}
			if n := r.chunks(keyspace.MaxRevision - 1); n != 3 || len(r.core.State().Uploads) != 0 {
				t.Fatalf("%d chunks, %d uploads", n, len(r.core.State().Uploads))
			}
		})
	}
}

// Chunks come under an upload of this group, are read with each version they
// belong to, and go with the version that replaces it.
func TestImportOfLargeValues(t *testing.T) {
	r := receiver(t)
	key := keyIn(comes)
	a := r.ask(page, format.ExportKey{Key: diskKey(key), Versions: []format.ExportVersion{large(100, "aa", "bb"), version(200, "small"), large(300, "c"), large(400, "dd", "ee", "ff")}})
	r.core.Evaluate(r.now)
	uploads := 0
	for {
		chunk := r.core.NextChunk(r.now)
		if chunk == nil {
			break
		}
		r.propose(chunk)
		uploads++
	}
	r.applyAll()
	if s := r.core.State(); uploads != 6 || len(s.Uploads) != 3 || s.Slots.In.Cursor != nil {
		t.Fatalf("%d chunks, uploads %+v, cursor %q", uploads, s.Uploads, s.Slots.In.Cursor)
	}
	r.settle()
	a.mustBe(t, true, "")
	if err := a.req.Slots.Result.Err; err != nil || len(r.core.State().Uploads) != 0 || !bytes.Equal(r.core.State().Slots.In.Cursor, page.Cursor) {
		t.Fatalf("error %v, uploads %v, cursor %q", err, r.core.State().Uploads, r.core.State().Slots.In.Cursor)
	}
	for rev, want := range map[keyspace.Revision]string{99: "", 100: "aabb", 199: "aabb", 200: "small", 300: "c", 400: "ddeeff"} {
		if got := r.at(key, rev); got != want {
			t.Fatalf("at %v: %q, want %q", rev, got, want)
		}
	}
	for rev, want := range map[keyspace.Revision]int{99: 0, 100: 2, 199: 2, 200: 0, 300: 1, 399: 1, 400: 3, 1 << 50: 3} {
		if got := r.chunks(rev); got != want {
			t.Fatalf("at %v: %d chunks, want %d", rev, got, want)
		}
	}
	// What comes in a later page replaces what came before.
	r.flush()
	r.mustStep(page, format.ExportKey{Key: diskKey(key), Versions: []format.ExportVersion{version(500, "last")}})
	if n := r.chunks(1 << 50); n != 0 || r.at(key, 499) != "ddeeff" || r.at(key, 500) != "last" {
		t.Fatalf("%d chunks, %q then %q", n, r.at(key, 499), r.at(key, 500))
	}
}

// Chunks of an import whose term ended cannot be claimed; the page is imported
// again and has others.
func TestImportOfAnEarlierTerm(t *testing.T) {
	r := receiver(t)
	key := format.ExportKey{Key: diskKey(keyIn(comes)), Versions: []format.ExportVersion{large(100, "aa", "bb", "cc")}}
	a := r.ask(page, key)
	r.core.Evaluate(r.now)
	for range 2 {
		r.propose(r.core.NextChunk(r.now))
	}
	r.applyAll()
	r.elect()
	r.now.Mono += 1 << 40
	a.mustBe(t, true, fault.Unavailable)
	if n := r.chunks(1 << 62); n != 0 || len(r.core.State().Uploads) != 0 {
		t.Fatalf("%d chunks of an earlier term", n)
	}
	r.core.Enqueue(r.request(page, key).req)
	r.settle()
	if got := r.at(keyIn(comes), 100); got != "aabbcc" {
		t.Fatalf("value %q", got)
	}
}

// Raft may refuse any entry of an import; nothing is lost or doubled.
func TestImportWithDroppedEntries(t *testing.T) {
	r := receiver(t)
	key := format.ExportKey{Key: diskKey(keyIn(comes)), Versions: []format.ExportVersion{version(50, "x"), large(100, "aa", "bb", "cc")}}
	a := r.ask(page, key)
	drops := 0
	for turn := 0; !a.done && turn < 40; turn++ {
		for _, build := range []func() []byte{func() []byte { return r.core.Evaluate(r.now).Payload }, func() []byte { return r.core.NextChunk(r.now) }} {
			payload := build()
			switch {
			case payload == nil:
			case turn%2 == 0:
				r.core.Dropped()
				drops++
			default:
				r.core.Proposed()
				r.apply(bytes.Clone(payload))
			}
		}
	}
	if !a.done || a.req.Err != nil || a.req.Slots.Result.Err != nil || drops < 3 {
		t.Fatalf("answered %v: %v, %v; %d drops", a.done, a.req.Err, a.req.Slots.Result.Err, drops)
	}
	if got, n := r.at(keyIn(comes), 100), r.chunks(1<<50); got != "aabbcc" || n != 3 || len(r.core.State().Uploads) != 0 {
		t.Fatalf("value %q, %d chunks, uploads %v", got, n, r.core.State().Uploads)
	}
}

// A leftover that the page lacks is deleted with its chunks, once.
func TestImportDeletesLeftovers(t *testing.T) {
	r := receiver(t)
	key := keyIn(comes)
	r.mustStep(page, format.ExportKey{Key: diskKey(key), Versions: []format.ExportVersion{large(100, "aa", "bb")}})
	r.mustStep(format.SlotChange{Kind: format.SlotAbort, Move: 4, Peer: 2})
	r.mustStep(format.SlotChange{Kind: format.SlotBegin, Move: 6, Peer: 2, Slots: comes})
	next := page
	next.Move = 6
	gone := format.ExportKey{Key: diskKey(key), Versions: []format.ExportVersion{{Revision: 400, Delete: true}}}
	for range 2 {
		r.mustStep(next, gone)
		if got, n := r.at(key, 400), r.chunks(400); got != "" || n != 0 || r.at(key, 399) != "aabb" {
			t.Fatalf("at 400: %q and %d chunks; before: %q", got, n, r.at(key, 399))
		}
	}
	r.mustStep(next, format.ExportKey{Key: diskKey(key), Versions: []format.ExportVersion{version(450, "new")}})
	if got := r.at(key, 1<<50); got != "new" {
		t.Fatalf("value %q", got)
	}
	r.mustStep(next, gone)
	if got := r.at(key, 1<<50); got != "new" {
		t.Fatalf("a deletion that came again deleted what came after it: %q", got)
	}
}

// Imports that no sender sends are refused whole.
func TestImportsThatAreRefused(t *testing.T) {
	good := diskKey(keyIn(comes))
	lacking := large(100, "aa", "bb")
	lacking.Chunks = lacking.Chunks[:1]
	damaged := large(100, "aa")
	damaged.Value[len(damaged.Value)-1] ^= 1
	for name, k := range map[string]format.ExportKey{
		"a key of another slot": {Key: diskKey(keyIn(slotsOf("100-4095"))), Versions: []format.ExportVersion{version(1, "v")}},
		"a chunk":               {Key: keyspace.AppendChunkKey(nil, 7, 0), Versions: []format.ExportVersion{version(1, "v")}},
		"no key":                {Versions: []format.ExportVersion{version(1, "v")}},
		"descending versions":   {Key: good, Versions: []format.ExportVersion{version(9, "v"), version(8, "v")}},
		"a version twice":       {Key: good, Versions: []format.ExportVersion{version(9, "v"), version(9, "v")}},
		"no revision":           {Key: good, Versions: []format.ExportVersion{version(0, "v")}},
		"an impossible one":     {Key: good, Versions: []format.ExportVersion{version(keyspace.MaxRevision, "v")}},
		"no record":             {Key: good, Versions: []format.ExportVersion{{Revision: 7}}},
		"missing chunks":        {Key: good, Versions: []format.ExportVersion{lacking}},
		"a damaged record":      {Key: good, Versions: []format.ExportVersion{damaged}},
	} {
		t.Run(name, func(t *testing.T) {
			r := receiver(t)
			before := r.index
			fine := format.ExportKey{Key: good, Versions: []format.ExportVersion{large(1, "xx")}}
			_, err := r.step(page, fine, k)
			if fault.CodeOf(err) != fault.InvalidArgument {
				t.Fatalf("error %v", err)
			}
			r.settle()
			if got := r.at(keyIn(comes), 1<<50); got != "" || len(r.core.State().Uploads) != 0 || r.chunks(1<<50) != 0 {
				t.Fatalf("after %d entries: %q, uploads %v", r.index-before, got, r.core.State().Uploads)
			}
		})
	}
}

// A purge deletes what was given away, and its chunks, at stamps of this group;
// it touches nothing else.
func TestPurge(t *testing.T) {
	r := slotRig(t)
	gone := slotsOf("200-300")
	key, big := keyIn(gone), "{"+keyIn(gone)+"}big"
	r.write(key, "")
	r.submit(put(big, strings.Repeat("x", 250)))
	r.settle()
	r.flush()
	before := r.core.state.LastRev
	nonce := r.mustStep(freezeSome).Nonce
	r.mustStep(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: nonce})
	r.mustStep(format.SlotChange{Kind: format.SlotForget, Move: 3})
	kept := format.ExportKey{Key: diskKey(keyIn(slotsOf("400")))}
	purge := format.SlotChange{Kind: format.SlotPurged, Move: 3, Cursor: []byte("k")}
	if _, err := r.step(purge, kept); fault.CodeOf(err) != fault.InvalidArgument {
		t.Fatalf("purging what the group owns: %v", err)
	}
	if n := r.chunks(1 << 62); n != 3 {
		t.Fatalf("%d chunks", n)
	}
	keys := []format.ExportKey{{Key: diskKey(key)}, {Key: diskKey(big)}, {Key: diskKey("{" + keyIn(gone) + "}never was")}, {Key: keyspace.AppendChunkKey(nil, 7, 0)}}
	for range 2 {
		r.mustStep(purge, keys...)
		if a, b, n := r.at(key, 1<<62), r.at(big, 1<<62), r.chunks(1<<62); a+b != "" || n != 0 {
			t.Fatalf("left: %q, %q and %d chunks", a, b, n)
		}
	}
	if r.at(key, before) == "" || string(r.core.State().Slots.Purged) != "k" {
		t.Fatalf("history at %v: %q; cursor %q", before, r.at(key, before), r.core.State().Slots.Purged)
	}
	// What leaves meanwhile is not purged by the end of this walk.
	second := format.SlotChange{Kind: format.SlotFreeze, Move: 5, Peer: 9, Slots: slotsOf("500")}
	nonce = r.mustStep(second).Nonce
	r.mustStep(format.SlotChange{Kind: format.SlotLeave, Move: 5, Nonce: nonce})
	r.mustStep(format.SlotChange{Kind: format.SlotPurged, Move: 3, Done: true})
	if s := r.core.State().Slots; s.Leftover != slotsOf("500") {
		t.Fatalf("leftover %s", &s.Leftover)
	}
	r.mustStep(format.SlotChange{Kind: format.SlotForget, Move: 5})
	if _, err := r.step(format.SlotChange{Kind: format.SlotPurged, Move: 3, Done: true}); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Fatalf("the end of an earlier walk: %v", err)
	}
	r.mustStep(format.SlotChange{Kind: format.SlotPurged, Move: 5, Done: true})
	if s := r.core.State().Slots; s.Mixed() || s.Purging {
		t.Fatalf("leftover %s", &s.Leftover)
	}
}

// The second replica of the rig's log, applied blindly from the entries alone,
// has the same state and records.
func TestReplicasAgreeOnMoves(t *testing.T) {
	r := receiver(t)
	var log [][]byte
	from := r.core.state
	follower := newRig(t)
	follower.core.cfg.Group = 5
	follower.core.state = from
	ask := func(c format.SlotChange, keys ...format.ExportKey) {
		a := r.ask(c, keys...)
		for range 5 {
			r.evaluate()
			log = append(log, r.log...)
			r.applyAll()
		}
		if !a.done || a.req.Err != nil || a.req.Slots.Result.Err != nil {
			t.Fatalf("step %+v: %v %v", c, a.req.Err, a.req.Slots.Result.Err)
		}
	}
	key := keyIn(comes)
	ask(page, format.ExportKey{Key: diskKey(key), Versions: []format.ExportVersion{version(10, "a"), large(100, "aa", "bb")}})
	done := page
	done.Cursor, done.Done = nil, true
	ask(done)
	ask(format.SlotChange{Kind: format.SlotReady, Move: 4, Nonce: 7})
	ask(format.SlotChange{Kind: format.SlotAccept, Move: 4, Ceiling: 9, Floor: 8})
	ask(freezeSome)
	ask(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: r.core.state.Slots.Out.Nonce})
	ask(format.SlotChange{Kind: format.SlotForget, Move: 3})
	for _, payload := range log {
		follower.index = follower.core.state.Index
		follower.term = r.term
		follower.apply(bytes.Clone(payload))
	}
	a, b := format.AppendState(nil, r.core.State()), format.AppendState(nil, follower.core.State())
	if !bytes.Equal(a, b) {
		t.Fatalf("leader %+v\nfollower %+v", r.core.State(), follower.core.State())
	}
	for _, rev := range []keyspace.Revision{10, 100} {
		if x, y := r.at(key, rev), follower.at(key, rev); x != y || x == "" {
			t.Fatalf("at %v: %q and %q", rev, x, y)
		}
	}
	if restored, err := format.DecodeState(a); err != nil || fmt.Sprint(restored.Slots) != fmt.Sprint(r.core.State().Slots) {
		t.Fatalf("restored %+v, %v", restored.Slots, err)
	}
}
