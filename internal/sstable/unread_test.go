package sstable

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"kvstore/internal/env"
	"kvstore/internal/env/osfs"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// What is written past the page cache, and where that begins and ends, is in the
// file's speed only: its bytes are the same.
func TestUnreadInstancesMakeTheSameFile(t *testing.T) {
	var files [][]byte
	for unread := range 4 {
		dir := t.TempDir()
		r, err := OpenRuns(osfs.New(dir), "runs", Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := r.Writer()
		w.Expect(120_000)
		w.Unread(func(inst keyspace.InstanceID) bool {
			return int(inst)>>1&1 == unread&1 || unread > 1 && int(inst)&1 == unread&1
		})
		for inst := keyspace.InstanceID(1); inst <= 6; inst++ {
			for n := range 10_000 * int(inst%3+1) {
				mustAdd(t, w, cur(inst, fmt.Sprintf("key %06d", n), keyspace.Revision(n+1)))
			}
		}
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		names, err := filepath.Glob(filepath.Join(dir, "runs", "*"+runKind.suffix))
		if err != nil || len(names) != 1 {
			t.Fatalf("%v, %v", names, err)
		}
		b, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, b)
		if _, ok := getRun(t, r, 5, []byte("key 009999"), keyspace.MaxRevision); !ok {
			t.Error("a key is not there")
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for n, b := range files {
		if !bytes.Equal(b, files[0]) || len(b) < 2*writePiece {
			t.Errorf("file %d has %d bytes, the first %d, and they are the same: %t", n, len(b), len(files[0]), bytes.Equal(b, files[0]))
		}
	}
}

// noted is a file system that notes where files are written.
type noted struct {
	env.FS
	at []int64
}

func (n *noted) Create(path string) (env.File, error) {
	f, err := n.FS.Create(path)
	return notedFile{f, n}, err
}

type notedFile struct {
	env.File
	by *noted
}

func (f notedFile) WriteAt(p []byte, off int64) (int, error) {
	f.by.at = append(f.by.at, off)
	return f.File.WriteAt(p, off)
}

// A file of which all goes through the page cache is written in whole pages: of others
// the system fills up what is missing.
func TestBlocksAreWrittenInPages(t *testing.T) {
	fs := &noted{FS: simfs.New()}
	r, err := OpenRuns(fs, "runs", Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := r.Writer()
	for n := range 5_000 {
		mustAdd(t, w, cur(1, fmt.Sprintf("key %06d", n), keyspace.Revision(n+1)))
	}
	blocks := len(fs.at)
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if blocks < 4 {
		t.Fatalf("%d writes", blocks)
	}
	for _, at := range fs.at[:blocks] {
		if at%pageBytes != 0 {
			t.Errorf("written at %d", at)
		}
	}
}

// Runs know of which instances keys were looked for, found or not.
func TestRunsKnowWhatIsAskedFor(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(1, "a", 1), cur(2, "a", 1), cur(3, "a", 1))
	mustWrite(t, r, cur(1, "b", 2))
	wantGet(t, r, 5, cur(2, "a", 1))
	walk, release := r.Merge(Range{Instance: 3, At: keyspace.MaxRevision})
	walk.SeekForward(nil)
	walked(t, walk, 3)
	release()
	taken := mustTake(t, r)
	defer taken.Release()
	for inst, want := range map[keyspace.InstanceID]bool{1: false, 2: true, 3: false, 4: false} {
		if got := taken.Asked(inst); got != want {
			t.Errorf("instance %d was asked for: %t", inst, got)
		}
	}
}

// Runs know what lists passed over in them, and walks over all versions do not count.
func TestRunsKnowWhatListsPassedOver(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(1, "a", 1), cur(1, "b", 1), cur(1, "c", 1))
	mustWrite(t, r, cur(1, "b", 2), cur(1, "c", 2))
	mustWrite(t, r, cur(1, "c", 3))
	for n, want := range []int64{3, 6} {
		walk, release := r.Merge(Range{Instance: 1, At: keyspace.MaxRevision, Reverse: n == 1})
		if n == 1 {
			walk.SeekBackward(nil, false)
		} else {
			walk.SeekForward(nil)
		}
		for walk.Version() != nil {
			walk.Next()
		}
		release()
		if got, keys := r.Passed(0, 1<<20); got != want || keys < 6 {
			t.Errorf("lists passed over %d versions of about %d keys, want %d of 6", got, keys, want)
		}
		if got, _ := r.Passed(0, 1); got != 0 {
			t.Errorf("%d in runs of no bytes", got)
		}
	}
	taken := mustTake(t, r)
	defer taken.Release()
	for walk := taken.Merge(1); walk.Version() != nil; {
		walk.Next()
	}
	if got, _ := r.Passed(0, 1<<20); got != 6 {
		t.Errorf("a walk counts: %d", got)
	}
}
