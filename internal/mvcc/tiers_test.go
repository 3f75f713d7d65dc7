package mvcc

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"kvstore/internal/engine/present"
	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// newTierStore takes every run for middle, or large from largeBytes on.
func newTierStore(t *testing.T, largeBytes int64) *runStore {
	t.Helper()
	s := newRunStore(t, 1)
	known, err := present.Wrap(context.Background(), s.engine)
	if err != nil {
		t.Fatal(err)
	}
	s.options.LargeBytes, s.options.MoveBytes = largeBytes, 1<<20
	s.Store = New(known, s.options)
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
		"nothing older is left":         {floor: 3, prepare: func(s *runStore) { s.put("k", 1); s.flushAll() }, stay: 0},
		"somebody may read below it":    {floor: 2, prepare: func(s *runStore) { s.put("k", 1); s.flushAll() }, stay: 1},
		"somebody may watch from below": {floor: 2, prepare: func(s *runStore) { s.fill("pad", 2, 1) }, stay: 1},
		"an older run stays": {floor: 3, stay: 1, prepare: func(s *runStore) {
			s.put("k", 1)
			s.fill("pad", 300, 1)
		}},
		"the engine has an older version, and gets it": {floor: 3, stay: 0, prepare: func(s *runStore) {
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
			s.mergeLarge() // what it hides goes, and it at the next one
			s.want("k", 3, 0)
			s.fill("another", 2, 5)
			s.mergeLarge()
			s.want("k", 3, 0)
			s.want("k", keyspace.MaxRevision, 0)
			if got := s.inEngine("k"); c.stay == 0 && got != 0 {
				t.Errorf("the engine still has version %d", got)
			}
			if got := s.deletions(); got != c.stay {
				t.Errorf("%d deletions stay, want %d", got, c.stay)
			}
		})
	}
}

// Of the runs that were merged a crash may leave any: what hides something in one of
// them is in what was made of them.
func TestCrashAmongMergedRunsBringsNothingBack(t *testing.T) {
	s := newTierStore(t, 1<<20)
	s.Insert(2, []byte("z"), 100, []byte("z"), false)
	s.put("k", 5)
	s.flushAll() // is unlinked last, by the highest revision in it
	s.remove("k", 10)
	s.SetFloor(50)
	var image *simfs.FS
	removed := 0
	s.disk.After(func(op simfs.Op, _ error) {
		switch {
		case op.Kind == simfs.OpRemove && strings.HasSuffix(op.Name, ".run"):
			removed++
		case op.Kind == simfs.OpSyncDir && removed == 1 && image == nil:
			image = s.disk.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} })
		}
	})
	s.mergeLarge()
	s.want("k", keyspace.MaxRevision, 0)
	if image == nil {
		t.Fatal("no image of a crash between two runs")
	}
	o := s.options
	var err error
	if o.History, err = sstable.OpenHistory(image, "history", sstable.Options{}); err != nil {
		t.Fatal(err)
	}
	if o.Runs, err = sstable.OpenRuns(image, "runs", sstable.Options{}); err != nil {
		t.Fatal(err)
	}
	s.Store = New(s.engine, o)
	s.SetFloor(50)
	if s.Runs() != 2 {
		t.Fatalf("%d runs after the crash, want what was made and one of what it was made of", s.Runs())
	}
	s.want("k", keyspace.MaxRevision, 0)
}

// A large run that is between others in age is not passed over: of a version that was
// replaced in it the history would say too much.
func TestMergesTakeNoRunsFromBehindALargeOne(t *testing.T) {
	s := newTierStore(t, 3000)
	s.Flushed(1, 0)
	s.put("first", 1)
	s.flushAll()
	s.move() // the engine has nothing above 1
	for i := range 50 {
		s.putPadded(fmt.Sprintf("a%03d", i), 2, 45)
	}
	s.put("k", 2)
	s.flushAll() // large
	for i := range 400 {
		s.putPadded(fmt.Sprintf("b%03d", i), 3, 30)
	}
	s.put("k", 3)
	s.flushAll() // larger
	for half := range 2 {
		for i := range 25 {
			s.putPadded(fmt.Sprintf("a%03d", 25*half+i), 4, 12)
		}
		if half == 1 {
			s.put("k", 4)
		}
		s.flushAll() // middle
	}
	s.mergeLarge()
	s.move()
	for at := keyspace.Revision(2); at <= 4; at++ {
		s.want("k", at, at)
	}
}

// A version in the history may say that it was replaced later than it was: by what the
// walk saw that put it there. The deletion between the two has to stay.
func TestMergesKeepDeletionsThatTheHistoryDoesNotKnow(t *testing.T) {
	s := newRunStore(t, 2000)
	s.options.LargeBytes, s.options.MoveBytes = 1<<20, 1<<20
	s.put("k", 1)
	s.flushAll() // small
	for n := range 150 {
		s.put(fmt.Sprintf("pad%03d", n), 2)
	}
	s.remove("k", 2) // with these: not small
	s.put("k", 3)
	s.flushAll() // small
	if _, err := s.MergeRuns(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.fill("other", 150, 4)
	if !s.NeedMergeLarge() {
		t.Fatalf("nothing is to be merged: %+v", s.RunsBytes())
	}
	s.SetFloor(2)
	s.mergeLarge()
	s.want("k", 2, 0)
	s.want("k", 3, 3)
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

// A move that memory has begun is due when memory is full, not when as much came as it
// takes, and a merge that it waits for is urgent.
func TestMovesThatMemoryBeganAreDueWhenItIsFull(t *testing.T) {
	s := newTierStore(t, 4000)
	s.fill("large", 600, 1)
	memory := s.options.Runs.Memory()
	s.options.IndexBytes = memory + memory/4
	if !s.NeedMove() || s.FullOfRuns() || !s.Urgent(WalkMergeLarge) || s.Urgent(WalkMove) {
		t.Fatalf("a move is needed: %t, runs are full: %t, a merge is urgent: %t, a move: %t",
			s.NeedMove(), s.FullOfRuns(), s.Urgent(WalkMergeLarge), s.Urgent(WalkMove))
	}
	s.options.FlushBatchBytes = 100
	var at MoveProgress
	s.options.BetweenMoved = func(_ context.Context, p MoveProgress) error { at = p; return nil }
	s.move()
	if least, most := at.Total/5, at.Total*3/10; at.Period < least || at.Period > most {
		t.Errorf("the next move is due after %d bytes, want a quarter of %d", at.Period, at.Total)
	}
	s.options.IndexBytes = 0
	s.Store = New(s.engine, s.options) // any
	s.fill("large", 600, 2)
	s.options.FlushBatchBytes = 100
	s.move()
	if at.Period != at.Total {
		t.Errorf("the next move is due after %d bytes, want %d", at.Period, at.Total)
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
		s.fill(fmt.Sprint("m", n), 10*(4-n), keyspace.Revision(n+1))
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

// Lists that pass over many replaced versions have small runs merged before there are
// as many as begin a merge otherwise.
func TestListsHaveSmallRunsMerged(t *testing.T) {
	const keys = 1000
	s := newRunStore(t, 1<<20)
	s.options.MergeRuns = 10
	s.Store = New(s.engine, s.options)
	list := func(times int) {
		t.Helper()
		for range times {
			v := s.View()
			scan, n := v.Scan(ScanOptions{Instance: 1, At: keyspace.MaxRevision}), 0
			for ; scan.Valid(); scan.Next() {
				n++
			}
			if scan.Err() != nil || n%keys != 0 || n == 0 {
				t.Fatalf("%d keys, %v", n, scan.Err())
			}
			scan.Close()
			v.Close()
		}
	}
	const few, enough = leastPassed/keys - 1, 4 * leastPassed / keys
	s.fill("a", keys, 1)
	s.fill("b", keys, 2)
	list(enough)
	if s.ListsWait() || s.NeedMerge() {
		t.Error("lists wait for a merge of runs that have no key twice")
	}
	s.fill("a", keys, 3)
	list(few)
	if s.ListsWait() || s.NeedMerge() {
		t.Error("lists wait that passed over little")
	}
	list(enough)
	if !s.ListsWait() || !s.NeedMerge() {
		t.Error("lists do not wait that passed over much")
	}
	if _, err := s.MergeRuns(t.Context()); err != nil {
		t.Fatal(err)
	}
	list(enough)
	if got := s.Runs(); got != 1 || s.ListsWait() {
		t.Errorf("%d runs, lists wait: %t", got, s.ListsWait())
	}
	s.want("a001", keyspace.MaxRevision, 3)
	s.want("a001", 2, 1)
	s.want("b001", keyspace.MaxRevision, 2)
}
