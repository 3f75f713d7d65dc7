package sstable

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const (
	// syncBytes is how much is written between two syncs: the raft log shares
	// the disk, and must not find a whole file in front of its next sync.
	syncBytes = 4 << 20
	// pageBytes is what pieces are multiples of.
	pageBytes = 4 << 10
	// gatherBytes is how much is written at once where pieces are not asked for: a few
	// blocks, which the caches of the processor still have. A file of which nothing
	// goes past the page cache gets whole pages, since the system fills up others.
	gatherBytes = 16 << 10
	// fullRetry is the hint when the disk is full.
	fullRetry = 5 * time.Second
)

// Writer makes one file. Nothing of it can be read before Finish.
type Writer struct {
	store  *dir
	number uint64
	path   string // of the file, which has its final name after the rename
	made   bool   // the file is there and belongs to the Writer
	f      env.File
	at     int64 // end of what was written
	synced int64
	piece  int // pieceBytes for the instance; 0: blocks are written when they are gatherBytes
	unread func(keyspace.InstanceID) bool

	spans    map[keyspace.InstanceID]*Span
	span     *Span // of instance
	index    entries
	first    block  // the open block, without its length
	buf      []byte // what was not written: blocks that ended, and the open one
	open     int    // where the open block begins in buf
	limit    int    // the size from which that ends
	instance keyspace.InstanceID
	key      []byte // the last one of the open block
	any      bool
	keys     int    // of a run
	hashes   hashes // of those, unless
	filter   filter // is there to take them
}

// Writer begins a file; it is made with the first version.
func (s *dir) Writer() *Writer {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &Writer{store: s, number: s.next, piece: s.kind.pieceBytes, spans: make(map[keyspace.InstanceID]*Span)}
	w.path = s.dir + "/" + s.kind.nameOf(w.number) + temporary
	s.next++
	return w
}

// Expect says how many keys will come at most to a run: what is kept of each until
// Finish is then a filter's ten bits, not a hash.
func (w *Writer) Expect(keys int) { w.filter = emptyFilter(keys) }

// Unread says of which instances hardly anybody will read: their blocks are written
// past the page cache, as history is. A node has replicas of three times as much as it
// leads, and what it leads is read: it should find room there.
func (w *Writer) Unread(of func(keyspace.InstanceID) bool) { w.unread = of }

// Add appends a version of an instance; it keeps nothing of v. Versions come in
// order of instance, key, and descending revision; those of a run have no
// successor, and one per key. fault.Overloaded means that the disk is full.
func (w *Writer) Add(inst keyspace.InstanceID, v Version) error {
	end := v.Until
	if w.store.kind.current {
		end = v.Revision + 1
		w.addHash(Hash(inst, v.Key))
	}
	if end <= v.Revision || w.store.kind.current && v.Until != 0 {
		panic(fmt.Sprintf("sstable: version %d of key %x in a %s is replaced at %d",
			uint64(v.Revision), v.Key, w.store.kind.name, uint64(v.Until)))
	}
	if len(w.buf)-w.open >= w.limit || w.any && inst != w.instance {
		if err := w.endBlock(); err != nil {
			return err
		}
	}
	if w.buf == nil {
		w.begin()
	}
	if w.unread != nil && (!w.any || inst != w.instance) {
		w.piece = 0
		if w.unread(inst) {
			w.piece = writePiece
		}
	}
	empty := len(w.buf) == w.open
	if empty {
		w.first = block{instance: inst, key: append(w.first.key[:0], v.Key...), rev: v.Revision}
		w.limit = w.store.kind.blockOf(len(v.Key))
	}
	same := !empty && bytes.Equal(v.Key, w.key)
	w.buf = appendVersion(w.buf, &v, same)
	w.key = append(w.key[:0], v.Key...)
	if w.span == nil || inst != w.instance {
		w.span = w.spanOf(inst, v.Revision)
	}
	w.any, w.instance = true, inst
	w.span.Low, w.span.Until = min(w.span.Low, v.Revision), max(w.span.Until, end)
	return nil
}

// addHash notes a key for the filter.
func (w *Writer) addHash(hash uint64) {
	w.keys++
	if w.filter != nil {
		w.filter.add(hash)
		return
	}
	w.hashes.add(hash)
}

// begin makes the buffer.
func (w *Writer) begin() {
	k := w.store.kind
	size := gatherBytes + 2*k.blockBytes
	if w.direct() {
		size += writePiece // it begins at a page, as large allocations do
	}
	w.buf = append(make([]byte, 0, size), k.magic...)
	w.open = len(w.buf)
}

// direct reports whether something may be written past the page cache.
func (w *Writer) direct() bool { return w.store.kind.pieceBytes > 0 || w.unread != nil }

// spanOf is the span of an instance, which a version at rev belongs to.
func (w *Writer) spanOf(inst keyspace.InstanceID, rev keyspace.Revision) *Span {
	s := w.spans[inst]
	if s == nil {
		s = &Span{Low: rev}
		w.spans[inst] = s
	}
	return s
}

// endBlock ends the open block, and writes what it can.
func (w *Writer) endBlock() error {
	if len(w.buf) == w.open {
		return nil
	}
	if err := w.create(); err != nil {
		return err
	}
	w.buf = binary.LittleEndian.AppendUint32(w.buf, crc32.Checksum(w.buf[w.open:], castagnoli))
	w.first.offset, w.first.length = w.at+int64(w.open), len(w.buf)-w.open
	w.index.add(&w.first)
	w.open = len(w.buf)
	enough := w.piece
	if enough == 0 {
		enough = gatherBytes
	}
	if len(w.buf) < enough {
		return nil
	}
	return w.writeOn(w.piece > 0 || !w.direct())
}

// writeOn writes, and syncs when that is due, if there is room for as much again.
func (w *Writer) writeOn(pages bool) error {
	if err := w.write(pages); err != nil {
		return err
	}
	if w.at-w.synced < syncBytes {
		return nil
	}
	w.synced = w.at
	if err := w.admit(); err != nil {
		return err
	}
	return w.sync()
}

// admit refuses to go on when too little of the disk is left.
func (w *Writer) admit() error {
	free, err := w.store.fs.Free(w.store.dir)
	if err != nil {
		return fmt.Errorf("free space of %s directory: %w", w.store.kind.name, err)
	}
	if need := uint64(w.store.reserve + syncBytes); free < need {
		return fault.New(fault.Overloaded, "disk is nearly full",
			"limit_free_bytes", need, "actual_free_bytes", free).WithRetry(fullRetry)
	}
	return nil
}

func (w *Writer) create() error {
	if w.f != nil {
		return nil
	}
	if err := w.admit(); err != nil {
		return err
	}
	f, err := w.store.fs.Create(w.path)
	if err != nil {
		return w.failed("make", "file", err)
	}
	w.f, w.made = f, true
	if w.direct() {
		env.Uncached(f)
	}
	return nil
}

// write writes the blocks that ended, or only whole pages of them, after what is
// missing of a page that was begun.
func (w *Writer) write(pages bool) error {
	n := w.open
	switch begun := int(w.at % pageBytes); {
	case pages && begun > 0:
		n = min(n, pageBytes-begun)
	case pages:
		n -= n % pageBytes
	}
	if _, err := w.f.WriteAt(w.buf[:n], w.at); err != nil {
		return w.failed("write", "", err)
	}
	w.at += int64(n)
	w.open -= n
	w.buf = w.buf[:copy(w.buf, w.buf[n:])]
	return nil
}

func (w *Writer) sync() error {
	if err := w.f.Sync(); err != nil {
		return w.failed("sync", "", err)
	}
	return nil
}

// failed tells a full disk, where one may try again, from other errors.
func (w *Writer) failed(verb, part string, err error) error {
	what := strings.TrimSpace(verb + " " + w.store.kind.name + " " + part)
	if errors.Is(err, env.ErrNoSpace) {
		return fault.Wrap(fault.Overloaded, err, what+": the disk is full").WithRetry(fullRetry)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Finish makes the file durable and readable. Without a version there is none.
// After an error the file must be aborted.
func (w *Writer) Finish() error {
	if !w.any {
		return nil
	}
	if err := w.endBlock(); err != nil {
		return err
	}
	if err := w.writeIndex(); err != nil {
		return err
	}
	err := w.f.Close()
	w.f = nil
	if err != nil {
		return w.failed("close", "", err)
	}
	s := w.store
	path := s.dir + "/" + s.kind.nameOf(w.number)
	if err := s.fs.Rename(w.path, path); err != nil {
		return w.failed("finish", "", err)
	}
	w.path = path
	if err := s.fs.SyncDir(s.dir); err != nil {
		return w.failed("sync", "directory", err)
	}
	w.index, w.hashes, w.filter, w.buf = entries{}, hashes{}, nil, nil // opening takes as much again
	f, err := openFile(s.fs, path, w.number, s.kind)
	if err != nil {
		return fmt.Errorf("open finished %s %s: %w", s.kind.name, path, err)
	}
	w.made = false
	s.publish(f)
	return nil
}

// writeIndex writes the index piece by piece, and the trailer.
func (w *Writer) writeIndex() error {
	var spans []instanceSpan
	for _, inst := range slices.Sorted(maps.Keys(w.spans)) {
		spans = append(spans, instanceSpan{inst, *w.spans[inst]})
	}
	begin, length, sum := w.at+int64(len(w.buf)), 0, uint32(0)
	put := func(b []byte) error {
		length, sum = length+len(b), crc32.Update(sum, castagnoli, b)
		return w.put(b)
	}
	if err := put(appendSpans(nil, spans, w.index.count)); err != nil {
		return err
	}
	if err := w.index.each(put); err != nil {
		return err
	}
	if w.store.kind.current {
		keys := w.filterOfKeys()
		if err := put(binary.AppendUvarint(nil, uint64(len(keys)))); err != nil {
			return err
		}
		for b := range slices.Chunk(keys, indexPiece) {
			if err := put(b); err != nil {
				return err
			}
		}
	}
	if uint64(length) > math.MaxUint32 {
		return fault.New(fault.Internal, "index is too long", "limit_bytes", uint32(math.MaxUint32), "actual_bytes", length)
	}
	w.buf = binary.LittleEndian.AppendUint64(w.buf, uint64(begin))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(length))
	w.buf = binary.LittleEndian.AppendUint32(w.buf, sum)
	w.buf = append(w.buf, w.store.kind.magic...)
	w.open = len(w.buf)
	if err := w.write(false); err != nil {
		return err
	}
	return w.sync()
}

// put appends a part of the index and writes what waits when that is enough.
func (w *Writer) put(b []byte) error {
	w.buf = append(w.buf, b...)
	w.open = len(w.buf)
	if len(w.buf) < indexPiece {
		return nil
	}
	return w.writeOn(w.store.kind.pieceBytes > 0)
}

func (w *Writer) filterOfKeys() filter {
	if w.filter == nil {
		return newFilter(&w.hashes)
	}
	return w.filter.fold(w.keys)
}

// Abort removes what was written. It may be called after Finish, and then does
// nothing unless that failed.
func (w *Writer) Abort() error {
	if !w.made {
		return nil
	}
	var err error
	if w.f != nil {
		err = w.f.Close()
	}
	w.f, w.made = nil, false
	return errors.Join(err, w.store.fs.Remove(w.path))
}
