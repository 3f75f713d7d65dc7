// Package history keeps versions that newer ones have replaced, for as long as
// reads of the past may want them (DESIGN 10).
//
// A flush of recent writes hands the newest version of a key to the engine and
// the others to a file here: one file per flush, written in one pass, in order,
// and deleted as a whole when the floor has passed it. Nothing is ever merged or
// rewritten, so a version costs one sequential write however long it is kept,
// and the engine's levels hold current data instead of a window full of old.
//
// Every version in a file has a successor with a higher revision elsewhere: in
// the same file, in a later one, in a delta, or in the engine. A file therefore
// answers only for the revisions from its lowest version up to its highest
// successor (its span of an instance). Whoever reads at or above every span
// needs no file: reads of the present do not come here.
//
// A file is complete, synced and renamed before the delta it came from is
// dropped; what a crash leaves under another name is removed at the next start,
// and the log still has it.
package history

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Span is the revisions for which a file may have the answer: from Low on,
// below Until.
type Span struct {
	Low, Until keyspace.Revision
}

func (s Span) covers(at keyspace.Revision) bool { return s.Low <= at && at < s.Until }

// Options of a Store.
type Options struct {
	// ReserveBytes of the disk are left free: writes that would take them are
	// refused with fault.Overloaded.
	ReserveBytes int64
	// Logger may be nil.
	Logger *slog.Logger
}

// Store is the history of one node. It is safe for concurrent use; Writers and
// Expire belong to one goroutine at a time.
type Store struct {
	fs      env.FS
	dir     string
	log     *slog.Logger
	reserve int64

	mu    sync.Mutex // orders changes of files
	files atomic.Pointer[set]
	next  uint64 // number of the next file
	floor atomic.Uint64
}

// set is the files of a moment, oldest first. Never changed once published.
type set struct {
	files []*file
	// until is the highest end of a span by instance.
	until map[keyspace.InstanceID]keyspace.Revision
	bytes int64
}

func newSet(files []*file) *set {
	s := &set{files: files, until: make(map[keyspace.InstanceID]keyspace.Revision)}
	for _, f := range files {
		s.bytes += f.size
		for inst, span := range f.spans {
			s.until[inst] = max(s.until[inst], span.Until)
		}
	}
	return s
}

const (
	suffix    = ".history"
	temporary = ".tmp"
)

func nameOf(number uint64) string { return fmt.Sprintf("%016x%s", number, suffix) }

// Open opens the history in dir, which is made when it is missing. Files that
// were not finished are removed. A finished file that cannot be read is
// fault.Corruption: it may be removed by hand, since nothing but old versions is
// in it.
func Open(fs env.FS, dir string, o Options) (*Store, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Store{fs: fs, dir: dir, log: o.Logger, reserve: o.ReserveBytes, next: 1}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("make history directory: %w", err)
	}
	names, err := fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("list history directory: %w", err)
	}
	var files []*file
	for _, name := range names {
		f, err := s.adopt(name)
		if err != nil {
			return nil, errors.Join(err, closeAll(files))
		}
		if f != nil {
			files = append(files, f)
			s.next = f.number + 1
		}
	}
	s.files.Store(newSet(files))
	return s, nil
}

// adopt opens a finished file and removes an unfinished one.
func (s *Store) adopt(name string) (*file, error) {
	path := s.dir + "/" + name
	if strings.HasSuffix(name, temporary) {
		if err := s.fs.Remove(path); err != nil {
			return nil, fmt.Errorf("remove unfinished history: %w", err)
		}
		return nil, nil
	}
	var number uint64
	if _, err := fmt.Sscanf(name, "%016x"+suffix, &number); err != nil || name != nameOf(number) {
		return nil, nil // not ours
	}
	f, err := openFile(s.fs, path, number)
	if err != nil {
		return nil, fmt.Errorf("history file %s (it holds replaced versions only and may be removed): %w", path, err)
	}
	return f, nil
}

// Covers reports whether a read of an instance at a revision has to look here.
func (s *Store) Covers(inst keyspace.InstanceID, at keyspace.Revision) bool {
	return at < s.files.Load().until[inst]
}

// Instances returns every instance that a file has something of.
func (s *Store) Instances() []keyspace.InstanceID {
	return slices.Sorted(maps.Keys(s.files.Load().until))
}

// Bytes is what the files take on disk.
func (s *Store) Bytes() int64 { return s.files.Load().bytes }

// Files is the number of files.
func (s *Store) Files() int { return len(s.files.Load().files) }

// SetFloor says that nobody reads below rev any more. It is cheap; Expire does
// the work. A lower floor than the last one is ignored.
func (s *Store) SetFloor(rev keyspace.Revision) {
	for {
		old := s.floor.Load()
		if uint64(rev) <= old || s.floor.CompareAndSwap(old, uint64(rev)) {
			return
		}
	}
}

// Floor is the highest floor that was set.
func (s *Store) Floor() keyspace.Revision { return keyspace.Revision(s.floor.Load()) }

// Expire removes the files that nobody may read any more: those whose spans end
// at or below the floor, in every instance for which live returns true. live
// may be nil: all are. A file that is being read goes when its last reader ends.
// One that cannot be removed is reported to the log and tried again at the next
// start.
func (s *Store) Expire(live func(keyspace.InstanceID) bool) {
	floor := s.Floor()
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.files.Load()
	var kept, gone []*file
	for _, f := range old.files {
		if f.expired(floor, live) {
			gone = append(gone, f)
		} else {
			kept = append(kept, f)
		}
	}
	if len(gone) == 0 {
		return
	}
	s.files.Store(newSet(kept))
	for _, f := range gone {
		f.doomed.Store(true)
	}
	releaseAll(s.log, gone)
}

func (f *file) expired(floor keyspace.Revision, live func(keyspace.InstanceID) bool) bool {
	for inst, span := range f.spans {
		if span.Until > floor && (live == nil || live(inst)) {
			return false
		}
	}
	return true
}

// publish makes a finished file readable.
func (s *Store) publish(f *file) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files.Store(newSet(append(slices.Clone(s.files.Load().files), f)))
}

// Close closes the files. Readers must have ended.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	files := s.files.Load().files
	s.files.Store(newSet(nil))
	return closeAll(files)
}

func closeAll(files []*file) error {
	var first error
	for _, f := range files {
		if err := f.release(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// acquire takes the files of this moment that may have versions of inst at or
// below at: those that cover it, or all with a version that old. The caller
// releases them.
func (s *Store) acquire(inst keyspace.InstanceID, at keyspace.Revision, all bool) []*file {
	var got []*file
	for {
		now := s.files.Load()
		for _, f := range now.files {
			span, ok := f.spans[inst]
			if ok && (span.covers(at) || all && span.Low <= at) {
				if !f.hold() {
					break // it expired meanwhile: look at the new set
				}
				got = append(got, f)
			}
		}
		if s.files.Load() == now {
			return got
		}
		releaseAll(s.log, got)
		got = got[:0]
	}
}

func releaseAll(log *slog.Logger, files []*file) {
	for _, f := range files {
		if err := f.release(); err != nil {
			log.Warn("history file stays", "file", f.path, "error", err)
		}
	}
}

// corrupt is an error about a file's contents.
func corrupt(what string, args ...any) error { return fault.New(fault.Corruption, what, args...) }
