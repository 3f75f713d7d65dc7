package sstable

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

func TestFilesExpireWhenTheFloorHasPassedThem(t *testing.T) {
	fs := simfs.New()
	s := mustOpen(t, fs)
	mustWrite(t, s, ver(1, "a", 1, 10))
	mustWrite(t, s, ver(1, "a", 10, 20), ver(2, "b", 3, 12))
	mustWrite(t, s, ver(3, "c", 5, 30))
	for _, step := range []struct {
		floor keyspace.Revision
		left  []uint64
	}{{0, []uint64{1, 2, 3}}, {9, []uint64{1, 2, 3}}, {10, []uint64{2, 3}}, {12, []uint64{2, 3}}, {19, []uint64{2, 3}}, {30, nil}} {
		s.SetFloor(step.floor)
		if got, ok, err := s.Get(1, []byte("a"), max(step.floor, 10)); step.floor < 20 && (!ok || err != nil) {
			t.Fatalf("floor %d before Expire: %v, %t, %v", step.floor, got, ok, err)
		}
		s.Expire(nil)
		wantNames(t, fs, step.left...)
		if s.Files() != len(step.left) || s.Bytes() != fs.Used() {
			t.Fatalf("floor %d: %d files of %d bytes, on disk %q, %d bytes", step.floor, s.Files(), s.Bytes(), names(t, fs), fs.Used())
		}
	}
	if len(s.Instances()) != 0 || s.Covers(1, 1) {
		t.Errorf("instances %v", s.Instances())
	}
	s = mustOpen(t, fs)
	if s.Files() != 0 {
		t.Errorf("%d files at the next start", s.Files())
	}
}

func TestFloorNeverFalls(t *testing.T) {
	s := mustOpen(t, simfs.New())
	for _, step := range [][2]keyspace.Revision{{5, 5}, {3, 5}, {0, 5}, {5, 5}, {6, 6}} {
		if s.SetFloor(step[0]); s.Floor() != step[1] {
			t.Errorf("floor %d after %d, want %d", s.Floor(), step[0], step[1])
		}
	}
	mustWrite(t, s, ver(1, "a", 1, 6))
	s.SetFloor(2)
	if s.Expire(nil); s.Files() != 0 {
		t.Error("a lower floor was taken")
	}
}

func TestDeadInstancesHoldNoFile(t *testing.T) {
	fs := simfs.New()
	s := mustOpen(t, fs)
	mustWrite(t, s, ver(1, "a", 1, 10), ver(2, "b", 1, 100))
	mustWrite(t, s, ver(2, "b", 100, 101))
	mustWrite(t, s, ver(3, "c", 1, 200))
	s.SetFloor(50)
	s.Expire(func(keyspace.InstanceID) bool { return true })
	wantNames(t, fs, 1, 2, 3)
	s.Expire(func(inst keyspace.InstanceID) bool { return inst != 1 })
	wantNames(t, fs, 1, 2, 3)
	s.Expire(func(inst keyspace.InstanceID) bool { return inst != 2 })
	wantNames(t, fs, 3)
	if got := s.Instances(); !slices.Equal(got, []keyspace.InstanceID{3}) || s.Covers(2, 1) {
		t.Errorf("instances %v", got)
	}
	s.Expire(func(keyspace.InstanceID) bool { return false })
	wantNames(t, fs)
}

func TestAnExpiredFileGoesWithItsLastReader(t *testing.T) {
	fs := simfs.New()
	s := mustOpen(t, fs)
	for _, v := range manyBlocks() {
		mustWrite(t, s, v)
	}
	s.SetFloor(1)
	s.Expire(nil)
	all := names(t, fs)
	r := Range{Instance: 2, At: keyspace.MaxRevision, AllVersions: true}
	its, release := s.Iterators(r)
	_, releaseOther := s.Iterators(r)
	its[0].SeekForward(nil)

	s.SetFloor(1000)
	s.Expire(nil)
	if s.Files() != 0 || s.Bytes() != 0 || s.Covers(2, 5) {
		t.Fatalf("%d files of %d bytes are shown", s.Files(), s.Bytes())
	}
	if _, ok, err := s.Get(2, []byte("a"), 5); ok || err != nil {
		t.Fatal(ok, err)
	}
	// The files of the other instances had no reader.
	if got := names(t, fs); len(its) != len(all)-2 || !slices.Equal(got, all[1:len(all)-1]) {
		t.Fatalf("%d iterators, files %q", len(its), got)
	}
	n := 0
	for _, it := range its {
		for it.SeekForward(nil); it.Version() != nil; it.Next() {
			n++
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
	}
	if n != len(its) {
		t.Errorf("%d versions from %d expired files of one each", n, len(its))
	}
	release()
	if got := names(t, fs); len(got) != len(its) {
		t.Errorf("files %q while a reader is there", got)
	}
	releaseOther()
	wantNames(t, fs)
}

func TestAFileThatCannotBeRemovedHoldsNoOther(t *testing.T) {
	fs := simfs.New()
	var log strings.Builder
	s, err := OpenHistory(fs, testDir, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	for n := range keyspace.Revision(3) {
		mustWrite(t, s, ver(1, "a", n+1, n+2))
	}
	fs.Before(func(o simfs.Op) error {
		if o.Kind == simfs.OpRemove && strings.HasSuffix(o.Name, historyKind.nameOf(1)) {
			return errDisk
		}
		return nil
	})
	s.SetFloor(10)
	s.Expire(nil)
	wantNames(t, fs, 1)
	if s.Files() != 0 || !strings.Contains(log.String(), historyKind.nameOf(1)) || !strings.Contains(log.String(), errDisk.Error()) {
		t.Errorf("%d files, log %q", s.Files(), log.String())
	}
	fs.Before(nil)
	s = mustOpen(t, fs)
	s.SetFloor(10)
	s.Expire(nil)
	wantNames(t, fs)
}

// A reader that comes between the set it saw and the file's end does not get
// the file, and looks again.
func TestAFileThatWentIsNotHeldAgain(t *testing.T) {
	s := mustOpen(t, simfs.New())
	mustWrite(t, s, ver(1, "a", 1, 10))
	stale := s.files.Load()
	s.SetFloor(10)
	s.Expire(nil)
	if f := stale.files[0]; f.hold() {
		t.Errorf("%s is held with %d references after its end", f.path, f.refs.Load())
	}
}

// Files that expire while a reader collects its own do not cost it a later one.
func TestReadersMissNothingWhileOlderFilesExpire(t *testing.T) {
	s := mustOpen(t, simfs.New())
	const expiring = 400
	for n := range keyspace.Revision(expiring) {
		mustWrite(t, s, ver(1, "old", n+1, n+2))
	}
	mustWrite(t, s, ver(1, "stays", 1, 1<<40))
	stays := s.files.Load().files[expiring]
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				its, release := s.Iterators(Range{Instance: 1, At: keyspace.MaxRevision, AllVersions: true})
				if len(its) == 0 || its[len(its)-1].c.file != stays {
					t.Errorf("%d files without the last one", len(its))
				}
				release()
			}
		})
	}
	for n := range keyspace.Revision(expiring) {
		s.SetFloor(n + 2)
		s.Expire(nil)
	}
	close(stop)
	wg.Wait()
	if s.Files() != 1 || stays.refs.Load() != 1 {
		t.Errorf("%d files, %d references", s.Files(), stays.refs.Load())
	}
}

// hammer is one goroutine that makes and expires files and some that read.
// Revision r of instance 1 belongs to key r%keysPerFile, and is replaced
// keysPerFile later.
type hammer struct {
	t       *testing.T
	store   *History
	written atomic.Uint64 // revisions up to here are in files
	stop    chan struct{}
}

const keysPerFile = 16

func hammerKey(rev keyspace.Revision) string { return fmt.Sprintf("key %02d", rev%keysPerFile) }

func (h *hammer) write(files int) {
	defer close(h.stop)
	for n := range keyspace.Revision(files) {
		var versions []placed
		for i := range keyspace.Revision(keysPerFile) {
			rev := (n+1)*keysPerFile + i
			versions = append(versions, ver(1, hammerKey(rev), rev, rev+keysPerFile))
		}
		if err := tryWrite(h.store, versions); err != nil {
			h.t.Error(err)
			return
		}
		h.written.Store(uint64(n+1)*keysPerFile + keysPerFile - 1)
		if n > 4 {
			h.store.SetFloor((n - 3) * keysPerFile)
			h.store.Expire(nil)
		}
	}
}

func (h *hammer) read(r *rand.Rand) {
	for {
		select {
		case <-h.stop:
			return
		default:
		}
		last := keyspace.Revision(h.written.Load())
		if last == 0 {
			continue
		}
		// In the last two files, and so that every key has a version before it.
		at := last - keyspace.Revision(r.IntN(2*keysPerFile))
		if at < 2*keysPerFile {
			continue
		}
		h.get(at)
		h.scan(at, r.IntN(2) == 0)
	}
}

// get reads the version of the moment; below the floor that may be gone.
func (h *hammer) get(at keyspace.Revision) {
	want := ver(1, hammerKey(at), at, at+keysPerFile)
	got, ok, err := h.store.Get(1, want.Key, at+keysPerFile-1)
	switch {
	case err != nil:
		h.t.Errorf("get at %d: %v", at, err)
	case ok && !equal(placed{1, got}, want), !ok && h.store.Floor() <= at:
		h.t.Errorf("get at %d: %t, %v, want %v; floor %d", at, ok, placed{1, got}, want, h.store.Floor())
	}
}

func (h *hammer) scan(at keyspace.Revision, reverse bool) {
	its, release := h.store.Iterators(Range{Instance: 1, At: at, Reverse: reverse})
	defer release()
	n := 0
	for _, it := range its {
		if reverse {
			it.SeekBackward(nil, false)
		} else {
			it.SeekForward(nil)
		}
		for ; it.Version() != nil; it.Next() {
			n++
			v := placed{1, *it.Version()}
			if want := ver(1, hammerKey(v.Revision), v.Revision, v.Revision+keysPerFile); !v.stands(at) || !equal(v, want) {
				h.t.Errorf("scan at %d: %v, want %v", at, v, want)
			}
		}
		if it.Err() != nil {
			h.t.Errorf("scan at %d: %v", at, it.Err())
		}
	}
	if n != keysPerFile && h.store.Floor() <= at {
		h.t.Errorf("scan at %d: %d versions, want %d; floor %d", at, n, keysPerFile, h.store.Floor())
	}
}

func TestReadersGoOnWhileFilesComeAndGo(t *testing.T) {
	fs := simfs.New()
	h := &hammer{t: t, store: mustOpen(t, fs), stop: make(chan struct{})}
	var wg sync.WaitGroup
	for n := range uint64(4) {
		wg.Go(func() { h.read(rand.New(rand.NewPCG(n, 1))) })
	}
	h.write(300)
	wg.Wait()
	if got := len(names(t, fs)); got != h.store.Files() || got > 6 {
		t.Errorf("%d files stay, %d are shown", got, h.store.Files())
	}
	for _, f := range h.store.files.Load().files {
		if n := f.refs.Load(); n != 1 {
			t.Errorf("%s has %d references, want that of the set", f.path, n)
		}
	}
	mustClose(t, h.store)
}
