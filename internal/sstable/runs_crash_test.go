package sstable

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"kvstore/internal/env"
	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func openRunsDir(fs env.FS) (*dir, error) {
	r, err := OpenRuns(fs, testDir, Options{})
	if err != nil {
		return nil, err
	}
	return &r.dir, nil
}

// A power cut at any moment leaves a run whole or not at all, and a finished one
// whole, while runs are written, moved, and read when they are gone.
func TestRunIsWholeOrAbsentAfterACrash(t *testing.T) {
	c := newCrashTest(t, &runKind, openRunsDir)
	r := mustOpenRuns(t, c.fs)
	c.repeat = 900 // so that each instance is written by itself
	c.cutAlways()
	c.write(r, 1)
	c.write(r, 2)
	held := &Taken{runs: r, files: r.acquire(func(f *file) bool { return f.number == 2 })}
	m := mustTake(t, r)
	c.write(r, 3)
	c.gone[1], c.gone[2] = true, true
	m.Done()
	c.cut(simfs.Op{Kind: "none", Name: "a move is done"})
	wantRuns(t, c.fs, 3)
	m.Release()
	c.write(r, 4)
	wantWalk(t, walked(t, held.Merge(1), 1), c.files[2][:3])
	held.Release()
	wantRuns(t, c.fs, 3, 4)
	c.write(r, 5)
	c.cut(simfs.Op{Kind: "none", Name: "all is written"})
	c.gone[3], c.gone[4], c.gone[5] = true, true, true
	remove(t, r)
	wantRuns(t, c.fs)
	c.cut(simfs.Op{Kind: "none", Name: "all is removed"})
	c.reached()
}

// What a crash left of a move is moved again: each file is there or not, and
// after that move nothing is.
func TestWhatACrashLeavesOfAMoveIsMovedAgain(t *testing.T) {
	c := newCrashTest(t, &runKind, openRunsDir)
	r := mustOpenRuns(t, c.fs)
	for n := uint64(1); n <= 3; n++ {
		c.write(r, n)
	}
	left := map[int]bool{}
	c.fs.After(func(o simfs.Op, _ error) {
		for range 40 {
			again := mustOpenRuns(t, c.fs.Crash(c.r))
			left[again.Files()] = true
			if m := again.Take(0, noSize); m != nil {
				m.Done()
				m.Release()
			}
			if again.Files() != 0 || again.Bytes() != 0 || len(names(t, again.fs)) != 0 {
				t.Fatalf("after %v: %d files, %q", o, again.Files(), names(t, again.fs))
			}
		}
	})
	remove(t, r)
	if len(left) < 3 {
		t.Errorf("crashes leave %v files: the test reaches too little", left)
	}
}

func TestUnfinishedRunsAreRemovedAtOpen(t *testing.T) {
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	mustWrite(t, r, cur(1, "a", 1))
	mustAdd(t, r.Writer(), manyRunBlocks()...)
	if got, want := names(t, fs), []string{runKind.nameOf(1), runKind.nameOf(2) + temporary}; !slices.Equal(got, want) {
		t.Fatalf("files %q, want %q", got, want)
	}
	r = mustOpenRuns(t, fs)
	wantRuns(t, fs, 1)
	mustWrite(t, r, cur(1, "b", 3))
	wantRuns(t, fs, 1, 2)
	wantGet(t, r, 9, cur(1, "a", 1))
}

func TestNothingOfARunIsReadableBeforeFinish(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	w := r.Writer()
	mustAdd(t, w, manyRunBlocks()...)
	if r.Files() != 0 || r.Bytes() != 0 || len(r.Instances()) != 0 || r.Take(0, noSize) != nil {
		t.Fatal("an unfinished run is shown")
	}
	wantNone(t, r, 2, "a", keyspace.MaxRevision)
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	mustAbort(t, w) // does nothing any more
	wantGet(t, r, keyspace.MaxRevision, cur(3, "", 90))
}

func TestARunTakesNoVersionThatIsReplaced(t *testing.T) {
	for _, v := range []placed{ver(1, "a", 7, 9), ver(1, "a", 7, 7), cur(1, "a", keyspace.MaxRevision)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v is taken", v)
				}
			}()
			_ = mustOpenRuns(t, simfs.New()).Writer().Add(v.inst, v.Version)
		}()
	}
}

// A full disk refuses the run, of which nothing stays, and the runs that are
// there are as they were.
func TestAFullDiskLeavesNothingOfARun(t *testing.T) {
	fs := simfs.New()
	r, err := OpenRuns(fs, testDir, Options{ReserveBytes: testReserve})
	if err != nil {
		t.Fatal(err)
	}
	mustWrite(t, r, cur(1, "a", 1))
	before := r.Bytes()
	for name, capacity := range map[string]int64{
		"in the reserve":         testReserve + syncBytes - 1,
		"before the second sync": testReserve + 2*syncBytes + 1000,
	} {
		fs.SetCapacity(capacity)
		w := r.Writer()
		err := fillRun(w, 2*syncBytes/10_000)
		if err == nil {
			err = w.Finish()
		}
		wantFull(t, err)
		mustAbort(t, w)
		wantRuns(t, fs, 1)
		if r.Bytes() != before || fs.Used() != before || r.Files() != 1 {
			t.Errorf("%s: %d bytes in %d files, on disk %d; were %d", name, r.Bytes(), r.Files(), fs.Used(), before)
		}
		wantGet(t, r, 9, cur(1, "a", 1))
	}
	fs.SetCapacity(0)
	w := r.Writer()
	if err := errors.Join(fillRun(w, 100), w.Finish()); err != nil {
		t.Fatal(err)
	}
	if got, ok := getRun(t, r, 1, []byte("key 000099"), 100); !ok || len(got.Value) != 10_000 {
		t.Fatal(got, ok)
	}
}

// fillRun adds 10 KB versions.
func fillRun(w *Writer, count int) error {
	for n := range count {
		v := Version{Key: fmt.Appendf(nil, "key %06d", n), Revision: keyspace.Revision(n + 1), Value: make([]byte, 10_000)}
		if err := w.Add(1, v); err != nil {
			return err
		}
	}
	return nil
}

// Whatever operation fails, Abort leaves nothing of the run.
func TestAbortRemovesTheRunAfterAnyFailure(t *testing.T) {
	for _, injected := range []error{errDisk, env.ErrNoSpace} {
		n := 0
		for ; failsAt(t, n, injected); n++ {
		}
		if n < 8 {
			t.Errorf("%d operations", n)
		}
	}
}

// failsAt lets operation n of a writer fail; false when it makes fewer.
func failsAt(t *testing.T, n int, injected error) bool {
	t.Helper()
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	mustWrite(t, r, cur(1, "a", 1))
	failed := failNth(fs, n, injected)
	w := r.Writer()
	var err error
	for _, v := range smallRun() {
		if err = w.Add(v.inst, v.Version); err != nil {
			break
		}
	}
	if err == nil {
		err = w.Finish()
	}
	fs.Before(nil)
	if failed.Kind == "" {
		if err != nil {
			t.Fatalf("%v without a failed operation", err)
		}
		return false
	}
	wantFailure(t, *failed, err, injected)
	mustAbort(t, w)
	wantRuns(t, fs, 1)
	wantGet(t, r, 9, cur(1, "a", 1))
	mustWrite(t, r, smallRun()...)
	if r = mustOpenRuns(t, fs); r.Files() != 2 {
		t.Errorf("%v failed: %d files at the next start, want 2", failed, r.Files())
	}
	return true
}

// wantFailure tells a full disk, which may be tried again, from a broken one.
func wantFailure(t *testing.T, failed simfs.Op, err, injected error) {
	t.Helper()
	if !errors.Is(err, injected) {
		t.Fatalf("%v failed: %v", failed, err)
	}
	if failed.Kind == simfs.OpOpen || failed.Kind == simfs.OpRead {
		return // a full disk has no part in it
	}
	if full := errors.Is(injected, env.ErrNoSpace); (fault.CodeOf(err) == fault.Overloaded) != full {
		t.Errorf("%v failed: %v, overloaded: want %t", failed, err, full)
	}
}
