package sstable

import (
	"strings"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// cuts watches how the bytes of files are freed.
type cuts struct {
	pauses    int
	truncated []int64
	op        string // the last one that was not a truncation
}

func (c *cuts) watch(fs *simfs.FS) *room {
	fs.Before(func(o simfs.Op) error {
		if o.Kind == simfs.OpTruncate {
			c.truncated = append(c.truncated, o.Bytes)
		} else {
			c.op = string(o.Kind)
		}
		return nil
	})
	return &room{piece: 1000, pause: func() { c.pauses++ }}
}

// want wants one file of so many bytes freed, and its name gone for good before.
func (c *cuts) want(t *testing.T, size int64) {
	t.Helper()
	want := int((size - 1) / 1000)
	if len(c.truncated) != want || c.pauses != want || want < 3 {
		t.Fatalf("%d pieces and %d pauses for %d bytes, want %d", len(c.truncated), c.pauses, size, want)
	}
	for i, at := range c.truncated {
		if at != size-int64(i+1)*1000 {
			t.Errorf("piece %d ends at %d of %d", i, at, size)
		}
	}
	if !strings.HasPrefix(c.op, "sync") {
		t.Errorf("freed after %s, not after the directory was synced", c.op)
	}
	*c = cuts{}
}

func TestRunsAreFreedInPieces(t *testing.T) {
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	mustWrite(t, r, manyRunBlocks()...)
	c, size := new(cuts), r.Bytes()
	r.room = c.watch(fs)
	taken := mustTake(t, r)
	walk, release := r.Merge(Range{Instance: 2, At: 200})
	taken.Done()
	taken.Release()
	if len(c.truncated) > 0 {
		t.Fatal("a run is cut while it is read")
	}
	if walk.SeekForward(nil); walk.Version() == nil {
		t.Fatal(walk.Err())
	}
	release() // a reader does not wait for pauses
	if len(c.truncated) > 0 || c.pauses > 0 {
		t.Errorf("a reader cut %d pieces", len(c.truncated))
	}
	mustWrite(t, r, manyRunBlocks()...)
	*c = cuts{}
	taken = mustTake(t, r)
	taken.Done()
	taken.Release()
	c.want(t, size)
}

func TestHistoryIsFreedInPieces(t *testing.T) {
	fs := simfs.New()
	s := mustOpen(t, fs)
	var all []placed
	for rev := 100; rev > 0; rev-- {
		v := ver(1, "k", 0, 0)
		v.Revision, v.Until, v.Value = keyspace.Revision(rev), keyspace.Revision(rev+1), make([]byte, 100)
		all = append(all, v)
	}
	mustWrite(t, s, all...)
	c, size := new(cuts), s.Bytes()
	s.room = c.watch(fs)
	s.SetFloor(1000)
	s.Expire(nil)
	c.want(t, size)
	if got := names(t, fs); len(got) > 0 {
		t.Errorf("%q stay", got)
	}
}

// What a crash leaves while files are freed is whole.
func TestACrashLeavesNoPartOfAFreedFile(t *testing.T) {
	t.Run("runs", func(t *testing.T) {
		c := newCrashTest(t, &runKind, openRunsDir)
		r := mustOpenRuns(t, c.fs)
		c.write(r, 1)
		c.write(r, 2)
		c.free(&r.dir, func() { remove(t, r) })
	})
	t.Run("history", func(t *testing.T) {
		c := newCrashTest(t, &historyKind, openHistoryDir)
		s := mustOpen(t, c.fs)
		c.write(s, 1)
		c.write(s, 2)
		s.SetFloor(keyspace.MaxRevision)
		c.free(&s.dir, func() { s.Expire(nil) })
	})
}

// free cuts the power at every step of freeing all files.
func (c *crashTest) free(d *dir, remove func()) {
	c.t.Helper()
	truncated := 0
	d.room = &room{piece: 100, pause: func() { truncated++ }}
	c.cutAlways()
	c.gone[1], c.gone[2] = true, true
	remove()
	c.cut(simfs.Op{Kind: "none", Name: "all is removed"})
	if truncated == 0 {
		c.t.Error("nothing was freed in pieces")
	}
}
