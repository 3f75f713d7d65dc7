package sstable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"sync/atomic"

	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// file is one finished file. Its index is in memory, its blocks are read when
// they are asked for.
type file struct {
	fs     env.FS
	path   string
	kind   *kind
	number uint64
	f      env.File
	size   int64
	spans  map[keyspace.InstanceID]Span
	blocks blockTable
	filter filter // of a run
	// asked has for each of blocks.parts whether a key was looked for there.
	asked []atomic.Bool
	// passed counts the versions that lists passed over, since another run had a newer
	// one of the key.
	passed atomic.Int64

	// refs counts the set it is in and its readers. The last one closes it and,
	// if it is doomed, removes it before; a run has been unlinked by then.
	refs             atomic.Int64
	doomed, unlinked atomic.Bool
}

func openFile(fs env.FS, name string, number uint64, k *kind) (*file, error) {
	opened, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	f := &file{fs: fs, path: name, kind: k, number: number, f: opened}
	if k.current {
		env.Scattered(opened)
	}
	if err := f.load(); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	f.refs.Store(1)
	return f, nil
}

// load reads the index.
func (f *file) load() error {
	size, err := f.f.Size()
	if err != nil {
		return err
	}
	if size < int64(len(magic)+trailerBytes) {
		return corrupt("file is too short", "limit_bytes", len(magic)+trailerBytes, "actual_bytes", size)
	}
	trailer := make([]byte, trailerBytes)
	if _, err := f.f.ReadAt(trailer, size-int64(trailerBytes)); err != nil {
		return err
	}
	offset := binary.LittleEndian.Uint64(trailer)
	length, sum := binary.LittleEndian.Uint32(trailer[8:]), binary.LittleEndian.Uint32(trailer[12:])
	end := uint64(size) - uint64(trailerBytes)
	if string(trailer[16:]) != f.kind.magic || offset > end || uint64(length) != end-offset {
		return corrupt("file has no valid end", "actual_bytes", size)
	}
	index := &indexReader{from: f.f, at: int64(offset), end: int64(offset) + int64(length)}
	if err := f.decode(index, int64(offset)); err != nil {
		return err
	}
	if index.sum != sum {
		return corrupt("index has a wrong checksum", "limit", sum, "actual", index.sum)
	}
	f.size = size
	return nil
}

// decode takes the index of blocks that end at end.
func (f *file) decode(index *indexReader, end int64) error {
	table := &f.blocks
	spans, keys, err := readIndex(index, end, f.kind.current, indexParts{
		count: func(blocks int) { *table = newBlockTable(blocks, int64(len(magic)), f.kind.current) },
		block: func(b block) bool { return table.add(b) },
	})
	if err != nil {
		return err
	}
	table.finish()
	f.asked = make([]atomic.Bool, len(table.parts))
	f.spans, f.filter = spans, keys
	return nil
}

// until is the highest end of its spans.
func (f *file) until() (end keyspace.Revision) {
	for _, span := range f.spans {
		end = max(end, span.Until)
	}
	return end
}

// memory is what the file takes while it is open.
func (f *file) memory() int64 { return f.blocks.bytes() + int64(len(f.filter)) }

// wasAsked reports whether a key of an instance was looked for in the file.
func (f *file) wasAsked(inst keyspace.InstanceID) bool {
	n, there := f.blocks.part(inst)
	return there && f.asked[n].Load()
}

// hold keeps the file open; false when it was closed before.
func (f *file) hold() bool {
	for {
		n := f.refs.Load()
		if n == 0 {
			return false
		}
		if f.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// release ends a use. With room, the last one frees the bytes of a file that is
// gone a piece at a time.
func (f *file) release(r *room) error {
	switch n := f.refs.Add(-1); {
	case n > 0:
		return nil
	case n < 0:
		panic(fmt.Sprintf("sstable: file %s was released %d times too often", f.path, -n))
	}
	if f.doomed.Load() && f.fs.Remove(f.path) == nil {
		f.unlinked.Store(true)
	}
	var err error
	if f.unlinked.Load() && r != nil {
		err = r.free(f)
	}
	err = errors.Join(err, f.f.Close())
	if f.doomed.Load() && !f.unlinked.Load() { // some systems do not unlink what is open
		err = errors.Join(err, f.fs.Remove(f.path))
	}
	return err
}

// room frees the bytes of unlinked files in pieces, with a pause after each: a
// file system that frees a gigabyte at once lets everybody wait who syncs
// meanwhile.
type room struct {
	piece int64
	pause func()
}

// pieceBytes is how much is freed at once.
const pieceBytes = 32 << 20

// free cuts a file off from its end. Its name is gone durably before: a crash must
// not leave a part of it.
func (r *room) free(f *file) error {
	if f.size <= r.piece {
		return nil
	}
	if err := f.fs.SyncDir(path.Dir(f.path)); err != nil {
		return err
	}
	for size := f.size - r.piece; size > 0; size -= r.piece {
		if err := f.f.Truncate(size); err != nil {
			return err
		}
		r.pause()
	}
	return nil
}

// loadBlock reads block n into b, which is of its length.
func (f *file) loadBlock(from io.ReaderAt, n int, b []byte) error {
	_, err := from.ReadAt(b, f.blocks.start(n))
	if errors.Is(err, io.EOF) {
		err = corrupt("file has lost its end", "limit_bytes", f.size)
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", f.kind.name, f.path, err)
	}
	return nil
}

// read decodes block n.
func (f *file) read(from io.ReaderAt, n int) ([]Version, error) {
	b := make([]byte, f.blocks.length(n))
	if err := f.loadBlock(from, n, b); err != nil {
		return nil, err
	}
	versions, err := decodeBlock(make([]Version, 0, len(b)/128+1), b)
	if err != nil {
		return nil, f.damaged(n, err)
	}
	return versions, nil
}

func (f *file) damaged(n int, err error) error {
	return fmt.Errorf("read %s %s at %d: %w", f.kind.name, f.path, f.blocks.start(n), err)
}

// get returns the newest version of a key at or below at. Key is the one that was
// asked for, Value the caller's.
func (f *file) get(inst keyspace.InstanceID, key []byte, at keyspace.Revision) (Version, bool, error) {
	if n, there := f.blocks.part(inst); there && !f.asked[n].Load() {
		f.asked[n].Store(true)
	}
	// The version looked for may be the first of the block behind the position.
	found := f.blocks.find(inst, key, at)
	for _, n := range []int{found, found + 1} {
		if !f.blocks.of(n, inst) {
			continue
		}
		if n > found && f.blocks.startsBehind(n, key, 0) {
			break
		}
		v, ok, err := f.search(n, key, at)
		if ok || err != nil {
			return v, ok, err
		}
	}
	return Version{}, false, nil
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

func (f *file) search(n int, key []byte, at keyspace.Revision) (Version, bool, error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	length := f.blocks.length(n)
	*buf = slices.Grow((*buf)[:0], length)[:length]
	if err := f.loadBlock(f.f, n, *buf); err != nil {
		return Version{}, false, err
	}
	v, ok, err := searchBlock(*buf, key, at)
	if err != nil {
		return Version{}, false, f.damaged(n, err)
	}
	if !ok {
		return Version{}, false, nil
	}
	v.Key, v.Value = key, bytes.Clone(v.Value)
	return v, true, nil
}

// before reports whether the first position comes before the second one:
// keys ascend, revisions of a key descend.
func before(key []byte, rev keyspace.Revision, than []byte, thanRev keyspace.Revision) bool {
	if c := bytes.Compare(key, than); c != 0 {
		return c < 0
	}
	return rev > thanRev
}

// Span is the revisions for which a file may have the answer: from Low on,
// below Until. In a run that is its newest version's and one more.
type Span struct {
	Low, Until keyspace.Revision
}

func (s Span) covers(at keyspace.Revision) bool { return s.Low <= at && at < s.Until }

// corrupt is an error about a file's contents.
func corrupt(what string, args ...any) error { return fault.New(fault.Corruption, what, args...) }
