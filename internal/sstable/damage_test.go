package sstable

import (
	"bytes"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// small is a file of three blocks and some hundred bytes.
func small() []placed {
	gone := ver(2, "b", 4, 1<<40)
	gone.Delete, gone.Value = true, nil
	return []placed{
		ver(1, "", 1, 3), ver(1, "a", 9, 12), ver(1, "a", 3, 9), ver(1, "b", 7, 8),
		ver(2, "a", 300, 70_000), gone, ver(2, "b", 2, 4), ver(3, "c", 5, 6),
	}
}

func smallFile(t *testing.T) []byte {
	fs := diskWith(t, nil)
	if err := fs.Remove(testDir + "/" + historyKind.nameOf(1)); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, mustOpen(t, fs), small()...)
	return contents(t, fs, historyKind.nameOf(1))
}

// damaged reports whether b as a file is reported as corrupt by Open or by a
// read. Whatever is not reported is right.
func damaged(t *testing.T, b []byte) (reported bool) {
	t.Helper()
	s, err := OpenHistory(diskWith(t, b), testDir, Options{})
	if err != nil {
		wantCode(t, err, fault.Corruption)
		return true
	}
	return readsDamaged(t, s)
}

// readsDamaged reads everything in every way.
func readsDamaged(t *testing.T, s *History) (reported bool) {
	t.Helper()
	failed := func(err error) bool {
		if err != nil {
			wantCode(t, err, fault.Corruption)
			reported = true
		}
		return err != nil
	}
	for _, want := range small() {
		for _, at := range []keyspace.Revision{want.Revision, want.Until - 1} {
			if got, ok, err := s.Get(want.inst, want.Key, at); !failed(err) && (!ok || !equal(placed{want.inst, got}, want)) {
				t.Fatalf("get at %d: %t, %v; want %v", at, ok, placed{want.inst, got}, want)
			}
		}
	}
	for inst := keyspace.InstanceID(1); inst <= 3; inst++ {
		for _, r := range []Range{
			{Instance: inst, At: keyspace.MaxRevision, AllVersions: true},
			{Instance: inst, At: 7}, {Instance: inst, At: 7, Reverse: true},
		} {
			its, release := s.Iterators(r)
			for _, it := range its {
				readsDamagedIterator(t, it, r, failed)
			}
			release()
		}
	}
	return reported
}

func readsDamagedIterator(t *testing.T, it *Iterator, r Range, failed func(error) bool) {
	t.Helper()
	want := 0
	for _, v := range small() {
		if v.inst == r.Instance && (r.AllVersions || v.stands(r.At)) {
			want++
		}
	}
	if r.Reverse {
		it.SeekBackward(nil, false)
	} else {
		it.SeekForward(nil)
	}
	n := 0
	for ; it.Version() != nil; it.Next() {
		n++
		got := placed{r.Instance, *it.Version()}
		known := false
		for _, v := range small() {
			known = known || equal(v, got)
		}
		if !known {
			t.Fatalf("%+v returns %v", r, got)
		}
	}
	if !failed(it.Err()) && n != want {
		t.Fatalf("%+v returns %d versions, want %d", r, n, want)
	}
}

// No damaged byte becomes an answer. Only the bytes in front of the first block
// mean nothing.
func TestEveryDamagedByteIsFound(t *testing.T) {
	whole := smallFile(t)
	if damaged(t, whole) {
		t.Fatal("an undamaged file is reported")
	}
	for i := range whole {
		for _, flip := range []byte{1, 2, 4, 8, 16, 32, 64, 128, 255} {
			b := bytes.Clone(whole)
			b[i] ^= flip
			if got, want := damaged(t, b), i >= len(magic); got != want {
				t.Errorf("byte %d of %d flipped by %x: reported %t, want %t", i, len(whole), flip, got, want)
			}
		}
	}
}

func TestEveryTruncatedFileIsFoundAtOpen(t *testing.T) {
	whole := smallFile(t)
	for n := range whole {
		_, err := OpenHistory(diskWith(t, whole[:n]), testDir, Options{})
		wantCode(t, err, fault.Corruption)
	}
	for _, more := range []string{"x", magic, string(whole[len(whole)-trailerBytes:])} {
		_, err := OpenHistory(diskWith(t, append(bytes.Clone(whole), more...)), testDir, Options{})
		wantCode(t, err, fault.Corruption)
	}
}

// A file may also lose its end while it is open.
func TestAFileTruncatedWhileOpenIsFoundByReads(t *testing.T) {
	whole := smallFile(t)
	for n := range whole {
		fs := diskWith(t, whole)
		s := mustOpen(t, fs)
		f, err := fs.Open(testDir + "/" + historyKind.nameOf(1))
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(int64(n)); err != nil {
			t.Fatal(err)
		}
		blocks := s.files.Load().files[0].blocks.all()
		last := blocks[len(blocks)-1]
		if got, want := readsDamaged(t, s), int64(n) < last.offset+int64(last.length); got != want {
			t.Errorf("cut at byte %d of %d: reported %t, want %t", n, len(whole), got, want)
		}
	}
}

// A damaged block costs its own versions only.
func TestDamageOfABlockLeavesTheOthersReadable(t *testing.T) {
	fs := diskWith(t, smallFile(t))
	s := mustOpen(t, fs)
	first := s.files.Load().files[0].blocks.at(0)
	if err := fs.FlipBit(testDir+"/"+historyKind.nameOf(1), first.offset+3, 1); err != nil {
		t.Fatal(err)
	}
	_, _, err := s.Get(1, []byte("a"), 9)
	wantCode(t, err, fault.Corruption)
	if got, ok, err := s.Get(2, []byte("a"), 300); !ok || err != nil || string(got.Value) != "2 a 300" {
		t.Errorf("%q, %t, %v", got.Value, ok, err)
	}
}
