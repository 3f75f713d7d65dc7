package mvcc

import (
	"context"
	"fmt"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// newTierStore takes every run for middle, or large from largeBytes on.
func newTierStore(t *testing.T, largeBytes int64) *runStore {
	t.Helper()
	s := newRunStore(t, 1)
	s.options.LargeBytes, s.options.MoveBytes = largeBytes, 1<<20
	return s
}

// fill flushes a run of so many keys.
func (s *runStore) fill(prefix string, keys int, rev keyspace.Revision) {
	s.t.Helper()
	for i := range keys {
		s.put(fmt.Sprintf("%s%03d", prefix, i), rev)
	}
	s.flushAll()
}

func (s *runStore) mergeLarge() {
	s.t.Helper()
	if _, err := s.MergeLarge(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

// remove flushes a deletion.
func (s *runStore) remove(key string, rev keyspace.Revision) {
	s.t.Helper()
	s.Insert(1, []byte(key), rev, nil, true)
	s.flushAll()
}

// deletions counts those in runs and engine.
func (s *runStore) deletions() (n int) {
	s.t.Helper()
	v := s.View()
	defer v.Close()
	scan := v.Scan(ScanOptions{Instance: 1, At: keyspace.MaxRevision, AllVersions: true})
	defer scan.Close()
	for ; scan.Valid(); scan.Next() {
		if scan.Deleted() {
			n++
		}
	}
	if scan.Err() != nil {
		s.t.Fatal(scan.Err())
	}
	return n
}

// Middle runs become a large one when there are enough of them; the large one is
// rewritten when half as much has come, and not before.
func TestLargeRunsAreRewrittenWhenHalfAsMuchHasCome(t *testing.T) {
	s := newTierStore(t, 1500)
	rev := keyspace.Revision(0)
	middle := func(name string) {
		rev++
		s.fill(name, 50, rev)
	}
	for n, runs := range []int{1, 1, 1, 2, 1, 2, 2} {
		middle(fmt.Sprintf("a%d-", n))
		if s.NeedMergeLarge() {
			t.Fatalf("one middle run is to be merged: %+v", s.RunsBytes())
		}
		middle(fmt.Sprintf("b%d-", n))
		if !s.NeedMergeLarge() {
			t.Fatalf("two middle runs are not to be merged: %+v", s.RunsBytes())
		}
		s.mergeLarge()
		if got := s.RunsBytes(); s.Runs() != runs || got.Middle != 0 || got.Small != 0 {
			t.Fatalf("after merge %d: %d runs, want %d; %+v", n+1, s.Runs(), runs, got)
		}
	}
	for n := range 7 {
		for i := range 50 {
			s.want(fmt.Sprintf("a%d-%03d", n, i), keyspace.MaxRevision, keyspace.Revision(2*n+1))
			s.want(fmt.Sprintf("b%d-%03d", n, i), keyspace.MaxRevision, keyspace.Revision(2*n+2))
		}
	}
	if s.inEngine("a0-000") != 0 {
		t.Error("a merge reached the engine")
	}
}

// Deletions that hide nothing any more go with what they hid.
func TestMergesForgetDeletions(t *testing.T) {
	for name, c := range map[string]struct {
		floor   keyspace.Revision
		prepare func(s *runStore)
		stay    int
	}{
		"nothing older is left":      {floor: 3, prepare: func(s *runStore) { s.put("k", 1); s.flushAll() }, stay: 0},
		"somebody may read below it": {floor: 2, prepare: func(s *runStore) { s.put("k", 1); s.flushAll() }, stay: 1},
		"an older run stays": {floor: 3, stay: 1, prepare: func(s *runStore) {
			s.put("k", 1)
			s.fill("pad", 300, 1)
		}},
		"the engine has an older version": {floor: 3, stay: 1, prepare: func(s *runStore) {
			s.putPadded("k", 1, apartBytes)
			s.fill("pad", 2, 1)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTierStore(t, 4000)
			c.prepare(s)
			s.remove("k", 3)
			s.fill("other", 2, 4)
			s.SetFloor(c.floor)
			s.mergeLarge()
			s.want("k", 3, 0)
			s.want("k", keyspace.MaxRevision, 0)
			if got := s.deletions(); got != c.stay {
				t.Errorf("%d deletions stay, want %d", got, c.stay)
			}
		})
	}
}

// A move takes the large runs and leaves middle ones, unless there are no others.
func TestMovesBeginWithLargeRuns(t *testing.T) {
	s := newTierStore(t, 4000)
	s.fill("large", 300, 1)
	s.fill("middle", 2, 2)
	s.move()
	if s.inEngine("large000") != 1 || s.inEngine("middle000") != 0 {
		t.Fatalf("the engine has versions %d and %d", s.inEngine("large000"), s.inEngine("middle000"))
	}
	s.move()
	if s.inEngine("middle000") != 2 || s.Runs() != 0 {
		t.Fatalf("%d runs stay", s.Runs())
	}
}

// Middle runs that nobody merges make flushes wait.
func TestManyMiddleRunsAreTooMany(t *testing.T) {
	s := newTierStore(t, 4000)
	for n := range 6 {
		if s.FullOfRuns() {
			t.Fatalf("%d middle runs are too many", n)
		}
		s.fill(fmt.Sprint("m", n), 2, keyspace.Revision(n+1))
	}
	if !s.FullOfRuns() {
		t.Fatal("six middle runs, where two are merged, are not too many")
	}
	s.mergeLarge()
	if s.FullOfRuns() || s.Runs() != 1 {
		t.Errorf("%d runs after the merge", s.Runs())
	}
}

// A merge takes no more than the disk has room for, and says so when that is
// nothing.
func TestMergesFitTheDisk(t *testing.T) {
	s := newTierStore(t, 1<<20)
	for n := range 4 {
		s.fill(fmt.Sprint("m", n), 10*(n+1), keyspace.Revision(n+1))
	}
	const least = 4 << 20 // is left of the disk by what writes runs
	bytes := s.RunsBytes().Middle
	s.disk.SetCapacity(s.disk.Used() + least + bytes/2)
	s.mergeLarge()
	if got := s.Runs(); got != 2 && got != 3 {
		t.Fatalf("%d runs after a merge with room for half of them", got)
	}
	before := s.Runs()
	s.disk.SetCapacity(s.disk.Used() + least + bytes/20)
	_, err := s.MergeLarge(context.Background())
	if fault.CodeOf(err) != fault.Overloaded || s.Runs() != before {
		t.Errorf("%d runs of %d, %v", s.Runs(), before, err)
	}
}
