package sstable

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

func TestTheNewestVersionAtARevisionIsFoundInAnyRun(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	gone := cur(1, "a", 20)
	gone.Delete, gone.Value = true, nil
	mustWrite(t, r, gone, cur(1, "b", 8)) // a replay: newer than what follows
	mustWrite(t, r, cur(1, "a", 5), cur(1, "b", 30), cur(2, "a", 7))
	mustWrite(t, r, cur(1, "a", 10))
	mustWrite(t, r, cur(1, "a", 5), cur(2, "a", 7))
	for at, want := range map[keyspace.Revision]placed{
		5: cur(1, "a", 5), 9: cur(1, "a", 5), 10: cur(1, "a", 10), 19: cur(1, "a", 10), 20: gone, keyspace.MaxRevision: gone,
	} {
		wantGet(t, r, at, want)
	}
	wantNone(t, r, 1, "a", 4)
	wantNone(t, r, 2, "b", keyspace.MaxRevision)
	wantNone(t, r, 3, "a", keyspace.MaxRevision)
	wantGet(t, r, 29, cur(1, "b", 8))
	wantGet(t, r, 7, cur(2, "a", 7))
	want := map[keyspace.InstanceID]keyspace.Revision{1: 31, 2: 8}
	if got := r.Instances(); !maps.Equal(got, want) {
		t.Errorf("instances %v, want %v", got, want)
	}
}

func TestRunsHaveSmallBlocksAndLargeValues(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	all := manyRunBlocks()
	mustWrite(t, r, all...)
	if got := blocksOf(r, 0, 2); got < 8 {
		t.Fatalf("%d blocks", got)
	}
	for _, v := range all {
		wantGet(t, r, v.Revision, v)
		wantGet(t, r, keyspace.MaxRevision, v)
		wantNone(t, r, v.inst, string(v.Key), v.Revision-1)
		for _, beside := range []string{string(v.Key) + "\x00", string(v.Key) + "\xff", ""} {
			if beside != string(v.Key) {
				wantNone(t, r, v.inst, beside, keyspace.MaxRevision)
			}
		}
	}
}

// A position may be behind everything in a block and before the next one: the
// key that begins a block is searched for there.
func TestKeysAtTheEdgesOfBlocksAreFound(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, manyRunBlocks()...)
	f := r.files.Load().files[0]
	for n, b := range f.blocks.all() {
		versions, err := f.read(f.f, n)
		if err != nil {
			t.Fatal(err)
		}
		b.rev = versions[0].Revision
		for _, at := range []keyspace.Revision{b.rev - 1, b.rev, b.rev + 1, keyspace.MaxRevision} {
			v, ok, err := f.get(b.instance, b.key, at)
			if want := at >= b.rev; err != nil || ok != want || ok && (v.Revision != b.rev || !bytes.Equal(v.Key, b.key)) {
				t.Errorf("block %d at %d: %v, %t, %v; want it: %t", n, at, placed{b.instance, v}, ok, err, want)
			}
		}
	}
	for _, inst := range []keyspace.InstanceID{0, 4} {
		if _, ok, err := f.get(inst, nil, keyspace.MaxRevision); ok || err != nil {
			t.Errorf("instance %d: %t, %v", inst, ok, err)
		}
	}
}

// What Get returns is not changed by what is read into the same memory later,
// and changing it changes nothing.
func TestWhatRunsReturnIsTheCallers(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	all := manyRunBlocks()
	mustWrite(t, r, all...)
	var got []placed
	for _, v := range all {
		g, _ := getRun(t, r, v.inst, bytes.Clone(v.Key), keyspace.MaxRevision)
		got = append(got, g)
	}
	if !slices.EqualFunc(got, all, equal) {
		t.Errorf("versions became%s\nwant%s", list(got), list(all))
	}
	for _, v := range got {
		clear(v.Key)
		clear(v.Value)
	}
	for _, v := range all {
		wantGet(t, r, keyspace.MaxRevision, v)
	}
}

func TestVersionsOfAMergeStayValid(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	all := manyRunBlocks()
	mustWrite(t, r, all...)
	mustWrite(t, r, all[3:9]...)
	walk, release := r.Merge(Range{Instance: 2, At: keyspace.MaxRevision, AllVersions: true})
	var got []*Version
	for walk.SeekForward(nil); walk.Version() != nil; walk.Next() {
		got = append(got, walk.Version())
	}
	release()
	remove(t, r)
	kept := make([]placed, 0, len(got))
	for _, v := range got {
		kept = append(kept, placed{2, *v})
	}
	wantWalk(t, kept, all[1:len(all)-1])
}

// A walk over many runs has every key once, in order, whatever the number of
// runs and wherever a key is.
func TestMergeOrdersManyRuns(t *testing.T) {
	for _, runs := range []int{1, 2, 3, 7, 33} {
		r := mustOpenRuns(t, simfs.New())
		var all []placed
		for n := range runs {
			var file []placed
			for i := n; i < 120; i += runs - n%3 { // strides that meet
				file = append(file, cur(1, fmt.Sprintf("%03d", i), keyspace.Revision(i+1)))
			}
			mustWrite(t, r, file...)
			all = append(all, file...)
		}
		slices.SortFunc(all, placed.order)
		all = slices.CompactFunc(all, equal)
		o := Range{Instance: 1, At: keyspace.MaxRevision}
		walk, release := r.Merge(o)
		walk.SeekForward(nil)
		wantWalk(t, walked(t, walk, 1), all)
		release()
		o.Reverse = true
		walk, release = r.Merge(o)
		walk.SeekBackward(nil, false)
		slices.Reverse(all)
		wantWalk(t, walked(t, walk, 1), all)
		release()
	}
}

func TestMergeIsNothingBeforeItsFirstSeek(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	if walk, release := r.Merge(Range{Instance: 1, At: 9}); walk != nil || release != nil {
		t.Error("a walk over no runs")
	}
	mustWrite(t, r, cur(1, "a", 5))
	walk, release := r.Merge(Range{Instance: 1, At: 5})
	defer release()
	if walk.Version() != nil || walk.Err() != nil {
		t.Error(walk.Version(), walk.Err())
	}
	for _, seek := range []func(){func() { walk.SeekForward([]byte("b")) }, func() { walk.SeekForward([]byte("a\x00")) }} {
		if seek(); walk.Version() != nil || walk.Err() != nil {
			t.Error(walk.Version(), walk.Err())
		}
	}
	if walk.SeekForward([]byte("a")); walk.Version() == nil {
		t.Error("a seek after the end finds nothing")
	}
}

// Get that still has the set of before is told that a file went, and only when it
// needs that file.
func TestGetIsStaleWhenAFileWentWhileItLooked(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(1, "a", 5))
	before := r.files.Load()
	remove(t, r)
	mustWrite(t, r, cur(1, "b", 6))
	after := r.files.Load()
	r.files.Store(newSet(append(slices.Clone(before.files), after.files...)))
	v, ok, stale, err := r.Get(Hash(1, []byte("a")), 1, []byte("a"), 9)
	if !stale || ok || err != nil || v.Key != nil {
		t.Errorf("%v, %t, stale %t, %v", v, ok, stale, err)
	}
	wantGet(t, r, 9, cur(1, "b", 6)) // not in the file that went
	wantNone(t, r, 1, "a", 4)        // nor at this revision
	wantNone(t, r, 2, "a", 9)        // nor of this instance
	r.files.Store(after)
	wantNone(t, r, 1, "a", 9)
	for _, f := range after.files {
		if n := f.refs.Load(); n != 1 {
			t.Errorf("%d references to %s", n, f.path)
		}
	}
}

// What was found before is not returned with a stale answer.
func TestAStaleGetReturnsNothing(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(1, "a", 8))
	gone := r.files.Load().files
	remove(t, r)
	mustWrite(t, r, cur(1, "a", 5))
	r.files.Store(newSet(append(slices.Clone(gone), r.files.Load().files...)))
	if v, ok, stale, err := r.Get(Hash(1, []byte("a")), 1, []byte("a"), 9); !stale || ok || err != nil || v.Key != nil {
		t.Errorf("%v, %t, stale %t, %v", v, ok, stale, err)
	}
}

// A doomed file that somebody holds answers on: what it has is right.
func TestAHeldFileAnswersAfterItsMove(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(1, "a", 5))
	before := r.files.Load()
	m := mustTake(t, r)
	m.Done()
	wantNone(t, r, 1, "a", 9)
	r.files.Store(before)
	wantGet(t, r, 9, cur(1, "a", 5))
	m.Release()
	if _, ok, stale, err := r.Get(Hash(1, []byte("a")), 1, []byte("a"), 9); !stale || ok || err != nil {
		t.Errorf("%t, stale %t, %v", ok, stale, err)
	}
}

// Runs that are done have no name any more, and their readers end in peace.
func TestDoneRunsAreReadToTheEnd(t *testing.T) {
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	mustWrite(t, r, cur(2, "x", 5))
	mustWrite(t, r, cur(1, "a", 6), cur(2, "y", 7))
	m := mustTake(t, r)
	mustWrite(t, r, cur(1, "b", 8)) // after the move began
	walk, release := r.Merge(Range{Instance: 1, At: 9})
	m.Done()
	m.Done() // may be repeated
	wantRuns(t, fs, 3)
	if r.Files() != 1 || !maps.Equal(r.Instances(), map[keyspace.InstanceID]keyspace.Revision{1: 9}) {
		t.Fatalf("%d files, instances %v", r.Files(), r.Instances())
	}
	wantWalk(t, walked(t, m.Merge(2), 2), []placed{cur(2, "x", 5), cur(2, "y", 7)})
	m.Release()
	walk.SeekForward(nil)
	wantWalk(t, walked(t, walk, 1), []placed{cur(1, "a", 6), cur(1, "b", 8)})
	release()
	wantRuns(t, fs, 3)
	if r = mustOpenRuns(t, fs); r.Files() != 1 {
		t.Errorf("%d files at the next start", r.Files())
	}
	wantGet(t, r, 9, cur(1, "b", 8))
}

// A move that fails is released without Done: its runs stay.
func TestAMoveThatIsNotDoneRemovesNothing(t *testing.T) {
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	if r.Take(0, noSize) != nil {
		t.Fatal("a move of nothing")
	}
	mustWrite(t, r, cur(1, "a", 5))
	m := mustTake(t, r)
	m.Release()
	wantRuns(t, fs, 1)
	wantGet(t, r, 9, cur(1, "a", 5))
	if got := mustTake(t, r); len(got.files) != 1 || got.Bytes != r.Bytes() {
		t.Errorf("%d files of %d bytes", len(got.files), got.Bytes)
	}
}

// Runs are counted and taken by their size: from one on, below another.
func TestRunsAreTakenBySize(t *testing.T) {
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	mustWrite(t, r, cur(1, "a", 5))
	mustWrite(t, r, manyRunBlocks()...)
	mustWrite(t, r, cur(1, "a", 6))
	small, large := r.files.Load().files[0].size, r.files.Load().files[1].size
	for _, c := range []struct {
		least, most int64
		files       int
		bytes       int64
	}{
		{0, noSize, 3, 2*small + large}, {0, small, 0, 0}, {0, small + 1, 2, 2 * small}, {small, large, 2, 2 * small},
		{small + 1, large, 0, 0}, {small + 1, large + 1, 1, large}, {large, noSize, 1, large}, {large + 1, noSize, 0, 0},
	} {
		if files, bytes := r.Count(c.least, c.most); files != c.files || bytes != c.bytes {
			t.Errorf("%+v: %d files, %d bytes", c, files, bytes)
		}
		m := r.Take(c.least, c.most)
		if m == nil || c.files == 0 {
			if (m == nil) != (c.files == 0) {
				t.Errorf("%+v: taken %t", c, m != nil)
			}
			continue
		}
		if len(m.files) != c.files || m.Bytes != c.bytes {
			t.Errorf("%+v: %d files, %d bytes are taken", c, len(m.files), m.Bytes)
		}
		m.Release()
	}
	m := r.Take(0, large)
	m.Done()
	m.Release()
	wantRuns(t, fs, 2)
}

func TestARunThatCannotBeRemovedHoldsNoOther(t *testing.T) {
	fs := simfs.New()
	var log strings.Builder
	r, err := OpenRuns(fs, testDir, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for n := range keyspace.Revision(3) {
		mustWrite(t, r, cur(1, "a", n+1))
	}
	fs.Before(func(o simfs.Op) error {
		if o.Kind == simfs.OpRemove && strings.HasSuffix(o.Name, runKind.nameOf(3)) {
			return errDisk
		}
		return nil
	})
	remove(t, r)
	wantRuns(t, fs, 3)
	if r.Files() != 0 || !strings.Contains(log.String(), runKind.nameOf(3)) || !strings.Contains(log.String(), errDisk.Error()) {
		t.Errorf("%d files, log %q", r.Files(), log.String())
	}
	wantNone(t, r, 1, "a", 9)
	fs.Before(nil)
	r = mustOpenRuns(t, fs)
	wantGet(t, r, 9, cur(1, "a", 3))
}
