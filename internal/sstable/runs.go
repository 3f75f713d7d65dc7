package sstable

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync/atomic"

	"kvstore/internal/env"
	"kvstore/internal/keyspace"
)

// Runs keeps the newest versions between the deltas and the engine: each flush of
// a delta is one sorted run.
//
// An engine that is a tree of levels pays for what it is given by merging it into
// levels that are larger, and pays least, and in the smallest pieces, when it is
// given much at a time and in order. So runs are collected and merged with each
// other, and the oldest are moved to the engine together, each in one walk over all
// that it takes. On the way a key that was written again meanwhile is handed on once.
//
// A version is in a run until everything of it is elsewhere: the runs of a walk
// that a crash ended are there again, perhaps beside what was made of them, and
// walking over them once more changes nothing.
//
// It is safe for concurrent use; a Writer belongs to one goroutine.
type Runs struct {
	dir
	// dead are instances that are deleted: what files have of them is not there.
	dead atomic.Pointer[map[keyspace.InstanceID]bool]
}

// OpenRuns opens the runs in a directory, which is made when it is missing. Files
// that were not finished are removed. A finished file that cannot be read is
// fault.Corruption.
func OpenRuns(fs env.FS, path string, o Options) (*Runs, error) {
	r := new(Runs)
	r.dead.Store(&map[keyspace.InstanceID]bool{})
	if err := r.open(&runKind, fs, path, o); err != nil {
		return nil, err
	}
	return r, nil
}

// Get returns the newest version of a key, whose hash is Hash's, at or below at,
// deletions included. Key is the one that was asked for, Value the caller's. stale means that files went
// while they were looked at: what was in them is in the history or the engine by
// now, and the caller asks everybody again.
func (r *Runs) Get(hash uint64, inst keyspace.InstanceID, key []byte, at keyspace.Revision) (v Version, ok, stale bool, err error) {
	all := r.files.Load()
	for i := len(all.filters) - 1; i >= 0; i-- {
		if !all.filters[i].has(hash) {
			continue
		}
		f := all.files[i]
		span, present := f.spans[inst]
		if !present || span.Low > at || ok && span.Until <= v.Revision+1 {
			continue
		}
		found, here, gone, err := r.getFrom(f, inst, key, at)
		if gone || err != nil {
			return Version{}, false, gone, err
		}
		if here && (!ok || found.Revision > v.Revision) {
			v, ok = found, true
		}
	}
	if ok && r.Dead(inst) {
		return Version{}, false, false, nil
	}
	return v, ok, false, nil
}

func (r *Runs) getFrom(f *file, inst keyspace.InstanceID, key []byte, at keyspace.Revision) (v Version, ok, gone bool, err error) {
	if !f.hold() {
		return Version{}, false, true, nil
	}
	defer releaseAll(r.log, []*file{f}, nil)
	v, ok, err = f.get(inst, key, at)
	return v, ok, false, err
}

// Merge returns a walk over all runs, not yet at a position, and a function that
// ends it; nil when there is nothing.
func (r *Runs) Merge(o Range) (m *Merge, release func()) {
	if r.Dead(o.Instance) {
		return nil, nil
	}
	files := r.acquire(func(f *file) bool {
		span, ok := f.spans[o.Instance]
		return ok && span.Low <= o.At
	})
	if len(files) == 0 {
		return nil, nil
	}
	m = newMerge(files, o)
	return m, func() {
		m.passed()
		releaseAll(r.log, files, nil)
	}
}

// Instances returns every instance that a file has something of and that is not
// deleted, with a revision that none of its versions reaches.
func (r *Runs) Instances() map[keyspace.InstanceID]keyspace.Revision {
	all := maps.Clone(r.files.Load().until)
	maps.DeleteFunc(all, func(inst keyspace.InstanceID, _ keyspace.Revision) bool { return r.Dead(inst) })
	return all
}

// Dead reports whether an instance was deleted.
func (r *Runs) Dead(inst keyspace.InstanceID) bool { return (*r.dead.Load())[inst] }

// Delete hides what there is of an instance, which is not written to any more. It
// goes with its files; after a restart it is there again until then.
func (r *Runs) Delete(inst keyspace.InstanceID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, present := r.files.Load().until[inst]; !present {
		return
	}
	next := maps.Clone(*r.dead.Load())
	next[inst] = true
	r.dead.Store(&next)
}

// Count returns how many runs have at least so many bytes and fewer than most,
// and how many bytes those have together.
func (r *Runs) Count(least, most int64) (files int, bytes int64) {
	for _, f := range r.files.Load().files {
		if f.size >= least && f.size < most {
			files++
			bytes += f.size
		}
	}
	return files, bytes
}

// Passed returns how many versions lists passed over in the runs that Count counts,
// as another run had newer ones, since they are open, and about how many keys they
// have.
func (r *Runs) Passed(least, most int64) (versions, keys int64) {
	for _, f := range r.files.Load().files {
		if f.size >= least && f.size < most {
			versions += f.passed.Load()
			keys += int64(f.filter.keys())
		}
	}
	return versions, keys
}

// Taken is runs of one moment, which are to be merged or to go to the engine.
type Taken struct {
	runs  *Runs
	files []*file
	Bytes int64
}

// Take returns the runs of this moment that Count counts, nil when there are
// none. The caller releases them.
func (r *Runs) Take(least, most int64) *Taken {
	return r.take(func(f *file) bool { return f.size >= least && f.size < most })
}

// TakeTier returns runs to be merged, of those that have at least so many bytes: from
// the newest on, all that have fewer than most, and larger ones of which each is at most
// growth times what was taken before; no more together than room. It ends at the first
// that does not fit, so that there is none between two of them in age. The caller
// releases them; nil when there are none.
func (r *Runs) TakeTier(least, most, growth, room int64) *Taken {
	files := slices.DeleteFunc(slices.Clone(r.files.Load().files), func(f *file) bool { return f.size < least })
	slices.SortStableFunc(files, func(f, g *file) int { return cmp.Compare(g.until(), f.until()) })
	pick, sum := make(map[*file]bool), int64(0)
	for _, f := range files {
		if f.size >= most && f.size > growth*sum || f.size > room-sum {
			break
		}
		pick[f] = true
		sum += f.size
	}
	return r.take(func(f *file) bool { return pick[f] })
}

// Room is how many bytes of runs the disk has room for.
func (r *Runs) Room() (int64, error) {
	free, err := r.fs.Free(r.dir.dir)
	if err != nil {
		return 0, fmt.Errorf("free space of %s directory: %w", r.kind.name, err)
	}
	return max(0, int64(min(free, math.MaxInt64))-r.reserve-syncBytes), nil
}

// TakeOldest returns the runs that have at least so many bytes and all that may
// have an older version than one of those: what stays is newer than what goes.
func (r *Runs) TakeOldest(least int64) *Taken {
	pick := r.files.Load().oldest(least)
	return r.take(func(f *file) bool { return pick[f] })
}

func (r *Runs) take(pick func(*file) bool) *Taken {
	t := &Taken{runs: r, files: r.acquire(pick)}
	if len(t.files) == 0 {
		return nil
	}
	for _, f := range t.files {
		t.Bytes += f.size
	}
	return t
}

func (s *set) oldest(least int64) map[*file]bool {
	pick := make(map[*file]bool)
	until := make(map[keyspace.InstanceID]keyspace.Revision) // of those that are picked
	for more := true; more; {
		more = false
		for _, f := range s.files {
			if !pick[f] && (f.size >= least || f.below(until)) {
				pick[f], more = true, true
				for inst, span := range f.spans {
					until[inst] = max(until[inst], span.Until)
				}
			}
		}
	}
	return pick
}

// below reports whether the file has a version below an instance's bound.
func (f *file) below(until map[keyspace.InstanceID]keyspace.Revision) bool {
	for inst, span := range f.spans {
		if span.Low < until[inst] {
			return true
		}
	}
	return false
}

// Count is the number of the runs.
func (t *Taken) Count() int { return len(t.files) }

// Alone returns for each instance in the runs a revision below which no other run
// has a version.
func (t *Taken) Alone() map[keyspace.InstanceID]keyspace.Revision {
	alone := make(map[keyspace.InstanceID]keyspace.Revision)
	for _, inst := range t.Instances() {
		alone[inst] = keyspace.MaxRevision
	}
	for _, f := range t.runs.files.Load().files {
		if slices.Contains(t.files, f) {
			continue
		}
		for inst, span := range f.spans {
			if low, present := alone[inst]; present {
				alone[inst] = min(low, span.Low)
			}
		}
	}
	return alone
}

// Smallest is the size of the smallest of the runs.
func (t *Taken) Smallest() int64 {
	least := t.files[0].size
	for _, f := range t.files {
		least = min(least, f.size)
	}
	return least
}

// Keys is about how many keys there are in the runs, no fewer than in all of them.
func (t *Taken) Keys() (sum int) {
	for _, f := range t.files {
		sum += f.filter.keys()
	}
	return sum
}

// Asked reports whether a key of an instance was looked for in one of the runs since
// they were opened. Nobody does on a node that only follows a group.
func (t *Taken) Asked(inst keyspace.InstanceID) bool {
	return slices.ContainsFunc(t.files, func(f *file) bool { return f.wasAsked(inst) })
}

// Instances returns the instances in the runs, in order.
func (t *Taken) Instances() []keyspace.InstanceID {
	return slices.Sorted(maps.Keys(newSet(t.files).until))
}

// Merge returns a walk over all versions of an instance, on the first one.
func (t *Taken) Merge(inst keyspace.InstanceID) *Merge {
	files := slices.DeleteFunc(slices.Clone(t.files), func(f *file) bool {
		_, present := f.spans[inst]
		return !present
	})
	walk := newMerge(files, Range{Instance: inst, At: keyspace.MaxRevision, AllVersions: true})
	walk.SeekForward(nil)
	return walk
}

// Done removes the runs: all of them is elsewhere, durably.
func (t *Taken) Done() {
	t.runs.remove(func(f *file) bool { return slices.Contains(t.files, f) })
	t.runs.bury()
}

// bury forgets which instances were deleted when no file has them any more.
func (r *Runs) bury() {
	r.mu.Lock()
	defer r.mu.Unlock()
	present, next := r.files.Load().until, maps.Clone(*r.dead.Load())
	maps.DeleteFunc(next, func(inst keyspace.InstanceID, _ bool) bool {
		_, stays := present[inst]
		return !stays
	})
	r.dead.Store(&next)
}

// Release ends the use of the runs.
func (t *Taken) Release() { releaseAll(t.runs.log, t.files, t.runs.room) }
