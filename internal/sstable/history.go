package sstable

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"kvstore/internal/env"
	"kvstore/internal/keyspace"
)

// History keeps versions that newer ones have replaced, for as long as reads of
// the past may want them (DESIGN 10).
//
// Flushes and moves of runs hand the newest version of a key on and the others
// to a file here, which is deleted as a whole when the floor has passed it.
// Nothing is ever merged or rewritten, so a version costs one sequential write
// however long it is kept, and the engine's levels hold current data instead of
// a window full of old.
//
// Every version in a file has a successor with a higher revision elsewhere: in
// the same file, in another one, in a delta, in a run, or in the engine. The
// revision that a version says it was replaced at is that of its successor or of
// a later one. A file therefore answers only for the revisions from its lowest
// version up to its highest successor (its span of an instance), and of several
// answers the newest version is right. Whoever reads at or above every span
// needs no file: reads of the present do not come here.
//
// It is safe for concurrent use; a Writer belongs to one goroutine.
type History struct {
	dir
	floor atomic.Uint64
}

// OpenHistory opens the history in a directory, which is made when it is missing.
// Files that were not finished are removed. A finished file that cannot be read
// is fault.Corruption: it may be removed by hand, since nothing but old versions
// is in it.
func OpenHistory(fs env.FS, path string, o Options) (*History, error) {
	s := new(History)
	if err := s.open(&historyKind, fs, path, o); err != nil {
		return nil, fmt.Errorf("%w (history holds replaced versions only: its files may be removed)", err)
	}
	return s, nil
}

// Covers reports whether a read of an instance at a revision has to look here.
func (s *History) Covers(inst keyspace.InstanceID, at keyspace.Revision) bool {
	return at < s.files.Load().until[inst]
}

// Lowest is the lowest revision of the versions of an instance, the highest that there
// can be when there are none.
func (s *History) Lowest(inst keyspace.InstanceID) keyspace.Revision {
	low := keyspace.MaxRevision
	for _, f := range s.files.Load().files {
		if span, there := f.spans[inst]; there {
			low = min(low, span.Low)
		}
	}
	return low
}

// Instances returns every instance that a file has something of.
func (s *History) Instances() []keyspace.InstanceID {
	return slices.Sorted(maps.Keys(s.files.Load().until))
}

// SetFloor says that nobody reads below rev any more. It is cheap; Expire does
// the work. A lower floor than the last one is ignored.
func (s *History) SetFloor(rev keyspace.Revision) {
	for {
		old := s.floor.Load()
		if uint64(rev) <= old || s.floor.CompareAndSwap(old, uint64(rev)) {
			return
		}
	}
}

// Floor is the highest floor that was set.
func (s *History) Floor() keyspace.Revision { return keyspace.Revision(s.floor.Load()) }

// Expire removes the files that nobody may read any more: those whose spans end
// at or below the floor, in every instance for which live returns true. live
// may be nil: all are.
func (s *History) Expire(live func(keyspace.InstanceID) bool) {
	floor := s.Floor()
	s.remove(func(f *file) bool { return f.expired(floor, live) })
}

func (f *file) expired(floor keyspace.Revision, live func(keyspace.InstanceID) bool) bool {
	for inst, span := range f.spans {
		if span.Until > floor && (live == nil || live(inst)) {
			return false
		}
	}
	return true
}

// covering takes the files that may have versions of inst at or below at: those
// that cover it, or all with a version that old.
func (s *History) covering(inst keyspace.InstanceID, at keyspace.Revision, all bool) []*file {
	return s.acquire(func(f *file) bool {
		span, ok := f.spans[inst]
		return ok && (span.covers(at) || all && span.Low <= at)
	})
}

// Get returns the version of key that stood at revision at, if it is here: then
// nothing else is asked, unless that has a newer one at or below at. Key and
// Value are the caller's; ok is false when the answer is elsewhere, or there is
// none.
func (s *History) Get(inst keyspace.InstanceID, key []byte, at keyspace.Revision) (v Version, ok bool, err error) {
	files := s.covering(inst, at, false)
	defer releaseAll(s.log, files, nil)
	for _, f := range files {
		found, here, err := f.get(inst, key, at)
		if err != nil {
			return Version{}, false, err
		}
		if here && found.stands(at) && (!ok || found.Revision > v.Revision) {
			v, ok = found, true
		}
	}
	return v, ok, nil
}

// Iterators returns an iterator for every file that a scan has to look at, not
// yet at a position, and a function that ends them.
func (s *History) Iterators(r Range) (its []*Iterator, release func()) {
	files := s.covering(r.Instance, r.At, r.AllVersions)
	return iterators(files, r), func() { releaseAll(s.log, files, nil) }
}
