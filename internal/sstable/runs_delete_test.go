package sstable

import (
	"maps"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// What is there of a deleted instance is hidden from reads, not from moves, and
// there again after a restart.
func TestADeletedInstanceIsHidden(t *testing.T) {
	fs := simfs.New()
	r := mustOpenRuns(t, fs)
	mustWrite(t, r, cur(1, "a", 5), cur(2, "a", 6))
	mustWrite(t, r, cur(1, "b", 7))
	r.Delete(1)
	wantNone(t, r, 1, "a", 9)
	wantNone(t, r, 1, "b", 9)
	wantGet(t, r, 9, cur(2, "a", 6))
	if walk, release := r.Merge(Range{Instance: 1, At: 9}); walk != nil || release != nil {
		t.Error("a walk over a deleted instance")
	}
	if got := r.Instances(); !maps.Equal(got, map[keyspace.InstanceID]keyspace.Revision{2: 7}) || !r.Dead(1) || r.Dead(2) {
		t.Errorf("instances %v; dead: %t, %t", got, r.Dead(1), r.Dead(2))
	}
	mustWrite(t, r, cur(1, "a", 8)) // a flush that had begun
	wantNone(t, r, 1, "a", 9)
	m := mustTake(t, r)
	wantWalk(t, walked(t, m.Merge(1), 1), []placed{cur(1, "a", 8), cur(1, "a", 5), cur(1, "b", 7)})
	m.Release()

	r = mustOpenRuns(t, fs)
	wantGet(t, r, 9, cur(1, "a", 8))
	if len(r.Instances()) != 2 {
		t.Errorf("instances %v after a restart", r.Instances())
	}
}

// The maps that Instances and Delete work on are not those of readers.
func TestDeleteLeavesWhatReadersHave(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(1, "a", 5), cur(2, "a", 6))
	got := r.Instances()
	clear(got)
	if len(r.Instances()) != 2 {
		t.Error("Instances returns its own map")
	}
	walk, release := r.Merge(Range{Instance: 1, At: 9})
	defer release()
	dead := *r.dead.Load()
	r.Delete(1)
	if len(dead) != 0 {
		t.Error("Delete changes what was published")
	}
	walk.SeekForward(nil)
	wantWalk(t, walked(t, walk, 1), []placed{cur(1, "a", 5)})
}

func TestAnInstanceThatIsNowhereIsNotDead(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(1, "a", 5))
	r.Delete(7)
	if r.Dead(7) {
		t.Error("an instance without files is remembered")
	}
	r.Delete(1)
	r.Delete(1)
	if remove(t, r); r.Files() != 0 || len(r.Instances()) != 0 {
		t.Errorf("%d files, instances %v", r.Files(), r.Instances())
	}
}

// A deleted instance is remembered as long as one run has it, and no longer.
func TestADeletedInstanceIsForgottenWithItsLastRun(t *testing.T) {
	r := mustOpenRuns(t, simfs.New())
	mustWrite(t, r, cur(1, "a", 5), cur(2, "a", 6))
	r.Delete(1)
	r.Delete(2)
	m := mustTake(t, r)
	mustWrite(t, r, cur(1, "a", 5)) // what a merge of the first one made
	m.Done()
	if !r.Dead(1) || r.Dead(2) {
		t.Errorf("dead: %t, %t; want only the first, which a run has", r.Dead(1), r.Dead(2))
	}
	wantNone(t, r, 1, "a", 9)
	m.Release()
	if remove(t, r); r.Dead(1) || len(*r.dead.Load()) != 0 {
		t.Errorf("dead without runs: %v", *r.dead.Load())
	}
}
