package sstable

import (
	"testing"

	"kvstore/internal/env/simfs"
)

// leftInOrder reports a crash that leaves a run of a move and not a newer one: a
// deletion in the newer one may be gone from the engine by then, and the older
// one would be moved again without it.
func leftInOrder(t *testing.T, c *crashTest, o simfs.Op) {
	t.Helper()
	pending := c.fs.Pending()
	for n := range 1 << min(len(pending), 10) {
		image := c.fs.Image(func(i int, u simfs.Unit) simfs.Choice {
			if n>>i&1 == 1 {
				return simfs.Choice{Version: u.Versions}
			}
			return simfs.Choice{}
		})
		r := mustOpenRuns(t, image)
		older, newer := find(&r.dir, 1), find(&r.dir, 2)
		if older != nil && newer == nil {
			t.Fatalf("after %v: run 1 is left without run 2", o)
		}
	}
}

func TestNoOlderRunIsLeftOfAMoveWithoutTheNewerOnes(t *testing.T) {
	c := newCrashTest(t, &runKind, openRunsDir)
	r := mustOpenRuns(t, c.fs)
	c.write(r, 1)
	c.write(r, 2)
	c.fs.After(func(o simfs.Op, _ error) { leftInOrder(t, c, o) })
	_, release := r.Merge(Range{Instance: 1, At: 15}) // reads the older one only
	m := mustTake(t, r)
	m.Done()
	m.Release()
	leftInOrder(t, c, simfs.Op{Kind: "none", Name: "a move is done and a walk goes on"})
	release()
	leftInOrder(t, c, simfs.Op{Kind: "none", Name: "all is released"})
}

func TestARunThatCannotBeRemovedKeepsTheNewerOnes(t *testing.T) {
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	gone := cur(1, "a", 9)
	gone.Delete, gone.Value = true, nil
	mustWrite(t, r, cur(1, "a", 5))
	mustWrite(t, r, gone)
	fs.Before(func(o simfs.Op) error {
		if (o.Kind == simfs.OpRemove || o.Kind == simfs.OpRename) && o.Name == testDir+"/"+runKind.nameOf(1) {
			return errDisk
		}
		return nil
	})
	remove(t, r)
	fs.Before(nil)
	// What the next start finds is moved again: a deleted key must not come back.
	r = mustOpenRuns(t, fs)
	if got, ok := getRun(t, r, 1, []byte("a"), 20); ok && !got.Delete {
		t.Errorf("the deletion is gone, %v is back", got)
	}
}
