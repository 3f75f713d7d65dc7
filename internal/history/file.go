package history

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
	"sync/atomic"

	"kvstore/internal/env"
	"kvstore/internal/keyspace"
)

// file is one finished file. Its index is in memory, its blocks are read when
// they are asked for.
type file struct {
	fs     env.FS
	path   string
	number uint64
	f      env.File
	size   int64
	spans  map[keyspace.InstanceID]Span
	blocks []block

	// refs counts the set it is in and its readers. The last one closes it and,
	// if it is doomed, removes it.
	refs   atomic.Int64
	doomed atomic.Bool
}

func openFile(fs env.FS, path string, number uint64) (*file, error) {
	opened, err := fs.Open(path)
	if err != nil {
		return nil, err
	}
	f := &file{fs: fs, path: path, number: number, f: opened}
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
		return corrupt("history file is too short", "limit_bytes", len(magic)+trailerBytes, "actual_bytes", size)
	}
	trailer := make([]byte, trailerBytes)
	if _, err := f.f.ReadAt(trailer, size-int64(trailerBytes)); err != nil {
		return err
	}
	offset := binary.LittleEndian.Uint64(trailer)
	length, sum := binary.LittleEndian.Uint32(trailer[8:]), binary.LittleEndian.Uint32(trailer[12:])
	end := uint64(size) - uint64(trailerBytes)
	if string(trailer[16:]) != magic || offset > end || uint64(length) != end-offset {
		return corrupt("history file has no valid end", "actual_bytes", size)
	}
	index := make([]byte, length)
	if _, err := f.f.ReadAt(index, int64(offset)); err != nil {
		return err
	}
	if got := crc32.Checksum(index, castagnoli); got != sum {
		return corrupt("history index has a wrong checksum", "limit", sum, "actual", got)
	}
	f.size = size
	f.spans, f.blocks, err = decodeIndex(index, int64(offset))
	return err
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

func (f *file) release() error {
	switch n := f.refs.Add(-1); {
	case n > 0:
		return nil
	case n < 0:
		panic(fmt.Sprintf("history: file %s was released %d times too often", f.path, -n))
	}
	err := f.f.Close()
	if f.doomed.Load() {
		err = errors.Join(err, f.fs.Remove(f.path))
	}
	return err
}

// read decodes block n.
func (f *file) read(n int) ([]Version, error) {
	at := f.blocks[n]
	b := make([]byte, at.length)
	_, err := f.f.ReadAt(b, at.offset)
	if errors.Is(err, io.EOF) {
		err = corrupt("history file has lost its end", "limit_bytes", f.size)
	}
	if err != nil {
		return nil, fmt.Errorf("read history %s: %w", f.path, err)
	}
	versions, err := decodeBlock(make([]Version, 0, at.length/128+1), b)
	if err != nil {
		return nil, fmt.Errorf("read history %s at %d: %w", f.path, at.offset, err)
	}
	return versions, nil
}

// find returns the block in which the first version at or after a position is,
// unless that is the first of the next one.
func (f *file) find(inst keyspace.InstanceID, key []byte, rev keyspace.Revision) int {
	after := sort.Search(len(f.blocks), func(i int) bool {
		b := &f.blocks[i]
		if b.instance != inst {
			return b.instance > inst
		}
		return before(key, rev, b.key, b.rev)
	})
	return after - 1
}

// before reports whether the first position comes before the second one:
// keys ascend, revisions of a key descend.
func before(key []byte, rev keyspace.Revision, than []byte, thanRev keyspace.Revision) bool {
	if c := bytes.Compare(key, than); c != 0 {
		return c < 0
	}
	return rev > thanRev
}
