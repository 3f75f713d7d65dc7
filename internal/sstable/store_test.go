package sstable

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// manyBlocks has, between two other keys and two other instances, a key with so
// many versions that they fill several blocks.
func manyBlocks() []placed {
	all := []placed{ver(1, "zz", 1, 90), ver(2, "a", 5, 90)}
	for rev := keyspace.Revision(60); rev >= 11; rev-- {
		v := ver(2, "k", rev, rev+1)
		v.Value = bytes.Repeat([]byte{byte(rev)}, 10_000)
		all = append(all, v)
	}
	return append(all, ver(2, "z", 5, 90), ver(3, "", 1, 90))
}

func TestAKeyMayFillSeveralBlocks(t *testing.T) {
	s := mustOpen(t, simfs.New())
	all := manyBlocks()
	mustWrite(t, s, all...)
	blocks := 0
	for _, b := range s.files.Load().files[0].blocks.all() {
		if string(b.key) == "k" {
			blocks++
		}
	}
	if blocks < 5 {
		t.Fatalf("%d blocks begin with the key, want several", blocks)
	}
	for _, v := range all {
		for _, at := range []keyspace.Revision{v.Revision, v.Until - 1} {
			if got, ok, err := s.Get(v.inst, v.Key, at); err != nil || !ok || !equal(placed{v.inst, got}, v) {
				t.Fatalf("at %d: %v, %t, %v; want %v", at, placed{v.inst, got}, ok, err, v)
			}
		}
	}
	for _, at := range []keyspace.Revision{10, 61} {
		if got, ok, err := s.Get(2, []byte("k"), at); ok || err != nil {
			t.Fatalf("at %d: %v, %v; want nothing", at, got, err)
		}
	}
	for _, reverse := range []bool{false, true} {
		its, release := s.Iterators(Range{Instance: 2, At: 40, Reverse: reverse})
		it := its[0]
		var got []string
		if reverse {
			it.SeekBackward(nil, false)
		} else {
			it.SeekForward(nil)
		}
		for ; it.Version() != nil; it.Next() {
			got = append(got, fmt.Sprintf("%s%d", it.Version().Key, it.Version().Revision))
		}
		release()
		want := "a5 k40 z5"
		if reverse {
			want = "z5 k40 a5"
		}
		if strings.Join(got, " ") != want || it.Err() != nil {
			t.Errorf("reverse %t: %q, %v; want %q", reverse, got, it.Err(), want)
		}
	}
}

func TestVersionsOfAnIteratorStayValid(t *testing.T) {
	s := mustOpen(t, simfs.New())
	all := manyBlocks()
	mustWrite(t, s, all...)
	its, release := s.Iterators(Range{Instance: 2, At: keyspace.MaxRevision, AllVersions: true})
	var got []*Version
	for its[0].SeekForward(nil); its[0].Version() != nil; its[0].Next() {
		got = append(got, its[0].Version())
	}
	release()
	want := all[1 : len(all)-1]
	if len(got) != len(want) {
		t.Fatalf("%d versions, want %d", len(got), len(want))
	}
	for i, v := range want {
		if !equal(placed{2, *got[i]}, v) {
			t.Errorf("version %d became %v, want %v", i, placed{2, *got[i]}, v)
		}
	}
}

func TestWriterKeepsNothingOfAVersion(t *testing.T) {
	s := mustOpen(t, simfs.New())
	w := s.Writer()
	key, value := []byte("a1"), []byte("value 1")
	for i := byte('1'); i <= '3'; i++ {
		key[1], value[6] = i, i
		if err := w.Add(1, Version{Key: key, Revision: 5, Until: 6, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	key[1], value[6] = 'x', 'x'
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	for i := '1'; i <= '3'; i++ {
		got, ok, err := s.Get(1, fmt.Appendf(nil, "a%c", i), 5)
		if want := fmt.Sprintf("value %c", i); err != nil || !ok || string(got.Value) != want {
			t.Errorf("%q, %t, %v, want %q", got.Value, ok, err, want)
		}
	}
}

func TestNothingIsReadableBeforeFinish(t *testing.T) {
	fs := simfs.New()
	s := mustOpen(t, fs)
	w := s.Writer()
	for _, v := range manyBlocks() {
		if err := w.Add(v.inst, v.Version); err != nil {
			t.Fatal(err)
		}
	}
	if s.Files() != 0 || s.Covers(2, 5) || len(s.Instances()) != 0 {
		t.Fatal("an unfinished file is shown")
	}
	if _, ok, err := s.Get(2, []byte("a"), 5); ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if err := w.Abort(); err != nil { // does nothing any more
		t.Fatal(err)
	}
	if _, ok, err := s.Get(2, []byte("a"), 5); !ok || err != nil {
		t.Fatal(ok, err)
	}
	wantNames(t, fs, 1)
}

func TestWriterWithoutVersionsMakesNoFile(t *testing.T) {
	fs := simfs.New()
	s := mustOpen(t, fs)
	mustWrite(t, s)
	if err := s.Writer().Abort(); err != nil {
		t.Fatal(err)
	}
	if got := names(t, fs); len(got) != 0 || s.Files() != 0 {
		t.Fatalf("files %q, %d", got, s.Files())
	}
}

func TestAddRefusesAVersionWithoutItsSuccessor(t *testing.T) {
	w := mustOpen(t, simfs.New()).Writer()
	defer func() {
		if recover() == nil {
			t.Error("a version that is replaced at its own revision is taken")
		}
	}()
	_ = w.Add(1, Version{Key: []byte("a"), Revision: 7, Until: 7})
}

func TestOpenLeavesForeignFilesAlone(t *testing.T) {
	fs := simfs.New()
	mustWrite(t, mustOpen(t, fs), ver(1, "a", 1, 2))
	foreign := []string{"000000000000000A.history", "1.history", "README", "0000000000000001.history.bak"}
	for _, name := range foreign {
		if _, err := fs.Create(testDir + "/" + name); err != nil {
			t.Fatal(err)
		}
	}
	s := mustOpen(t, fs)
	if s.Files() != 1 || len(names(t, fs)) != 1+len(foreign) {
		t.Fatalf("%d files opened of %q", s.Files(), names(t, fs))
	}
}
