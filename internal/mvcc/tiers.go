package mvcc

import (
	"math"

	"kvstore/internal/fault"
	"kvstore/internal/sstable"
)

// Runs are of three tiers, by their size: small ones, as flushes make them, middle
// ones, as merges of MergeRuns small ones make them, and large ones, into which
// middle ones are merged. A merge of middle runs takes the large ones with it that
// are at most growth times what it has by then, from the newest on: so there are
// few large runs, the largest is rewritten when half as much has come as it has,
// and the others, where what is replaced takes room for nothing, are never much
// more than half of it.
const growth = 2

// Where there are so many times as many small or middle runs as begin a merge, or
// bytes as begin a move, flushes wait, and with them, when deltas are full, the
// writers.
const (
	fullOfRuns  = 3
	fullOfBytes = 2
)

// RunBytes is what runs take on disk by their tier.
type RunBytes struct{ Small, Middle, Large int64 }

// All is the sum.
func (b RunBytes) All() int64 { return b.Small + b.Middle + b.Large }

// tiers is what there is of each.
type tiers struct {
	small, middle int // runs
	bytes         RunBytes
}

func (s *Store) tiers() (t tiers) {
	if r := s.options.Runs; r != nil {
		t.small, t.bytes.Small = r.Count(0, s.options.SmallBytes)
		t.middle, t.bytes.Middle = r.Count(s.options.SmallBytes, s.options.LargeBytes)
		_, t.bytes.Large = r.Count(s.options.LargeBytes, math.MaxInt64)
	}
	return t
}

// RunsBytes is what runs take on disk.
func (s *Store) RunsBytes() RunBytes { return s.tiers().bytes }

// Runs is the number of runs.
func (s *Store) Runs() int {
	if s.options.Runs == nil {
		return 0
	}
	return s.options.Runs.Files()
}

// NeedMerge reports whether there are enough small runs to merge them, or lists wait
// for it.
func (s *Store) NeedMerge() bool { return s.tiers().small >= s.options.MergeRuns || s.ListsWait() }

const (
	// passedTimes is several times as many versions as a list passes over in the time in
	// which a merge takes one, which is two or three: few lists are not worth a merge.
	passedTimes = 8
	// leastPassed is how many must have been, so that small stores are left alone: some
	// 20 ms of work.
	leastPassed = 50_000
)

// ListsWait reports whether lists have spent more on versions of small runs that others
// of them replaced than merging those costs. A key that is overwritten is in many
// runs, and a list looks at all of them; whoever lists much is to find few, and who does
// not pays for no merge before there are enough runs.
func (s *Store) ListsWait() bool {
	r := s.options.Runs
	if r == nil {
		return false
	}
	if small, _ := r.Count(0, s.options.SmallBytes); small < 2 {
		return false
	}
	passed, keys := r.Passed(0, s.options.SmallBytes)
	return passed >= max(leastPassed, passedTimes*keys)
}

// NeedMergeLarge reports whether there are enough middle runs to merge them.
func (s *Store) NeedMergeLarge() bool { return s.tiers().middle >= s.options.MergeRuns }

// NeedMove reports whether there is so much in middle and large runs, or their
// indexes take so much memory, that some of it is to move to the engine.
func (s *Store) NeedMove() bool {
	bytes := s.tiers().bytes
	move := bytes.Middle + bytes.Large
	return move > 0 && (move >= s.options.MoveBytes || s.options.Runs.Memory() >= s.options.IndexBytes/4*3)
}

// FullOfRuns reports whether a flush should wait for a merge or a move of runs.
func (s *Store) FullOfRuns() bool {
	t := s.tiers()
	most, move := fullOfRuns*s.options.MergeRuns, t.bytes.Middle+t.bytes.Large
	return t.small >= most || t.middle >= most ||
		move > 0 && (move >= fullOfBytes*s.options.MoveBytes || s.options.Runs.Memory() >= s.options.IndexBytes)
}

// Urgent reports whether a walk is not to rest: flushes wait for it, or a move waits
// for a merge.
func (s *Store) Urgent(what Walk) bool {
	return s.FullOfRuns() || what == WalkMergeLarge && s.NeedMove()
}

// takeMiddle takes the middle runs, and large ones by growth; fewer where the disk
// has no room for what a merge makes of them. fault.Overloaded means that it has no
// room for a merge of any two.
func (s *Store) takeMiddle() (*sstable.Taken, error) {
	room, err := s.options.Runs.Room()
	if err != nil {
		return nil, err
	}
	runs := s.options.Runs.TakeTier(s.options.SmallBytes, s.options.LargeBytes, growth, room)
	if middle := s.tiers().middle; middle > 1 && (runs == nil || runs.Count() < 2) {
		if runs != nil {
			runs.Release()
		}
		return nil, fault.New(fault.Overloaded, "disk is too full to merge runs", "runs", middle, "actual_free_bytes", room)
	}
	return runs, nil
}

// takeOldest takes the large runs, or the middle ones when none is large, and what
// is older than one of them. A small run that is among those must not be merged
// meanwhile: what the merge makes of it would stay behind as the newest of its
// keys. No merge is going on when it looks.
func (s *Store) takeOldest() (runs *sstable.Taken, release func()) {
	s.merging.Lock()
	least := s.options.SmallBytes
	if s.tiers().bytes.Large > 0 {
		least = s.options.LargeBytes
	}
	runs = s.options.Runs.TakeOldest(least)
	if runs != nil && runs.Smallest() < s.options.SmallBytes {
		return runs, s.merging.Unlock
	}
	s.merging.Unlock()
	return runs, func() {}
}
