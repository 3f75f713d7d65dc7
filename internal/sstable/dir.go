package sstable

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"kvstore/internal/env"
	"kvstore/internal/keyspace"
)

// kind is what the files of a directory are for.
type kind struct {
	name, suffix, magic string
	// blockBytes is the size from which a block ends.
	blockBytes int
	// current: versions have no known successor, keys are there once, and files
	// have a filter of them.
	current bool
	// pieceBytes: blocks are gathered to pieces of this size, which are written
	// past the page cache; 0: each is written when it ends, since runs are read
	// and merged soon. Hardly anybody reads the history, but there is much of it.
	pieceBytes int
}

var (
	historyKind = kind{name: "history", suffix: ".history", magic: magic, blockBytes: blockBytes, pieceBytes: writePiece}
	runKind     = kind{name: "run", suffix: ".run", magic: runMagic, blockBytes: runBlockBytes, current: true}
)

const temporary = ".tmp"

// writePiece is how much is written past the page cache at once.
const writePiece = 256 << 10

func (k *kind) nameOf(number uint64) string { return fmt.Sprintf("%016x%s", number, k.suffix) }

// Options of a directory of files.
type Options struct {
	// ReserveBytes of the disk are left free: writes that would take them are
	// refused with fault.Overloaded.
	ReserveBytes int64
	// Pause is called between two pieces of a large file that is removed in the
	// background; nil: such a file goes at once.
	Pause func()
	// Logger may be nil.
	Logger *slog.Logger
}

// dir is the files of one kind, in one directory.
type dir struct {
	kind    *kind
	fs      env.FS
	dir     string
	log     *slog.Logger
	reserve int64
	room    *room // nil: files are freed at once

	mu    sync.Mutex // orders changes of files
	files atomic.Pointer[set]
	next  uint64 // number of the next file
	// left are runs that are not in files any more and could not be unlinked,
	// oldest first.
	left []*file
}

// set is the files of a moment, oldest first. Never changed once published.
type set struct {
	files []*file
	// filters are those of the files, beside each other: a search asks all of them.
	filters []filter
	// until is the highest end of a span by instance.
	until map[keyspace.InstanceID]keyspace.Revision
	bytes int64
	// memory is what the files take while they are open.
	memory int64
}

func newSet(files []*file) *set {
	s := &set{files: files, until: make(map[keyspace.InstanceID]keyspace.Revision)}
	for _, f := range files {
		s.filters = append(s.filters, f.filter)
		s.bytes += f.size
		s.memory += f.memory()
		for inst, span := range f.spans {
			s.until[inst] = max(s.until[inst], span.Until)
		}
	}
	return s
}

// open opens the files of the directory, which is made when it is missing.
func (d *dir) open(k *kind, disk env.FS, path string, o Options) error {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	d.kind, d.fs, d.dir, d.log, d.reserve, d.next = k, disk, path, o.Logger, o.ReserveBytes, 1
	if o.Pause != nil {
		d.room = &room{piece: pieceBytes, pause: o.Pause}
	}
	if err := disk.MkdirAll(path); err != nil {
		return fmt.Errorf("make %s directory: %w", k.name, err)
	}
	names, err := disk.List(path)
	if err != nil {
		return fmt.Errorf("list %s directory: %w", k.name, err)
	}
	var files []*file
	for _, name := range names {
		f, err := d.adopt(name)
		if err != nil {
			return errors.Join(err, closeAll(files))
		}
		if f != nil {
			files = append(files, f)
			d.next = f.number + 1
		}
	}
	d.files.Store(newSet(files))
	return nil
}

// adopt opens a finished file and removes an unfinished one.
func (d *dir) adopt(name string) (*file, error) {
	path := d.dir + "/" + name
	if strings.HasSuffix(name, temporary) {
		if err := d.fs.Remove(path); err != nil {
			return nil, fmt.Errorf("remove unfinished %s: %w", d.kind.name, err)
		}
		return nil, nil
	}
	var number uint64
	if _, err := fmt.Sscanf(name, "%016x"+d.kind.suffix, &number); err != nil || name != d.kind.nameOf(number) {
		return nil, nil // not ours
	}
	f, err := openFile(d.fs, path, number, d.kind)
	if err != nil {
		return nil, fmt.Errorf("%s file %s: %w", d.kind.name, path, err)
	}
	return f, nil
}

// Bytes is what the files take on disk.
func (d *dir) Bytes() int64 { return d.files.Load().bytes }

// Memory is what the indexes of the files take.
func (d *dir) Memory() int64 { return d.files.Load().memory }

// Files is the number of files.
func (d *dir) Files() int { return len(d.files.Load().files) }

// publish makes a finished file readable.
func (d *dir) publish(f *file) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files.Store(newSet(append(slices.Clone(d.files.Load().files), f)))
}

// remove lets go of the files that gone picks. History that is being read is
// unlinked when its last reader ends. A file that cannot be unlinked is reported
// to the log and may be there again at the next start.
func (d *dir) remove(gone func(*file) bool) {
	releaseAll(d.log, d.take(gone), d.room)
}

// take takes files out of the set; the caller releases them.
func (d *dir) take(gone func(*file) bool) (doomed []*file) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var kept []*file
	for _, f := range d.files.Load().files {
		if gone(f) {
			doomed = append(doomed, f)
		} else {
			kept = append(kept, f)
		}
	}
	if len(doomed) == 0 {
		return nil
	}
	d.files.Store(newSet(kept))
	if d.kind.current {
		// A flush that ends during a merge is there before what the merge makes.
		slices.SortStableFunc(doomed, func(f, g *file) int { return cmp.Compare(f.until(), g.until()) })
		d.left = append(d.left, doomed...)
		d.unlinkLeft()
	} else {
		for _, f := range doomed {
			f.doomed.Store(true)
		}
	}
	return doomed
}

// unlinkLeft unlinks runs one after the other, the oldest first, also while they
// are read: what a crash leaves has the newest versions of all, and with them the
// deletions, of which the engine may remember nothing by then. One that cannot be
// unlinked is tried again with the next ones.
func (d *dir) unlinkLeft() {
	for len(d.left) > 0 {
		err := d.fs.Remove(d.left[0].path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = d.fs.SyncDir(d.dir)
		}
		if err != nil {
			d.log.Warn("file stays", "file", d.left[0].path, "error", err)
			return
		}
		d.left[0].unlinked.Store(true)
		d.left = d.left[1:]
	}
}

// acquire takes the files of this moment that pick wants. The caller releases
// them.
func (d *dir) acquire(pick func(*file) bool) []*file {
	var got []*file
	for {
		now := d.files.Load()
		for _, f := range now.files {
			if pick(f) {
				if !f.hold() {
					break // it went meanwhile: look at the new set
				}
				got = append(got, f)
			}
		}
		if d.files.Load() == now {
			return got
		}
		releaseAll(d.log, got, nil)
		got = got[:0]
	}
}

// Close closes the files. Readers must have ended.
func (d *dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	files := d.files.Load().files
	d.files.Store(newSet(nil))
	return closeAll(files)
}

func closeAll(files []*file) error {
	var first error
	for _, f := range files {
		if err := f.release(nil); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func releaseAll(log *slog.Logger, files []*file, r *room) {
	for _, f := range files {
		if err := f.release(r); err != nil {
			log.Warn("file stays", "file", f.path, "error", err)
		}
	}
}
