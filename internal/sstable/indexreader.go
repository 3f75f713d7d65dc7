package sstable

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// indexReader reads an index of a file a piece at a time: that of a large run has
// hundreds of megabytes, of which what stays in memory is a part.
type indexReader struct {
	decoder
	from  io.ReaderAt
	at    int64 // where what was not read into b begins
	end   int64
	sum   uint32 // of what was read
	err   error  // of reading
	piece int    // how much is read at once, if not indexPiece
	room  []byte // what b is a part of
}

// left is how many bytes of the index are left.
func (r *indexReader) left() int64 { return int64(len(r.b)) + r.end - r.at }

// fill makes the next n bytes, or all that are left, those of b. What was taken of b
// before is not valid any more.
func (r *indexReader) fill(n int) {
	if len(r.b) >= n || r.at == r.end || r.bad {
		return
	}
	piece := r.piece
	if piece == 0 {
		piece = indexPiece
	}
	size := int(min(int64(max(n, piece)), r.left()))
	if cap(r.room) < size {
		r.room = make([]byte, size)
	}
	b := r.room[:size]
	have := copy(b, r.b)
	if r.readInto(b[have:]) {
		r.b = b
	}
}

// readInto fills b with what follows in the file.
func (r *indexReader) readInto(b []byte) (ok bool) {
	if len(b) == 0 {
		return true
	}
	if n, err := r.from.ReadAt(b, r.at); n < len(b) {
		r.err = err
		r.fail()
		return false
	}
	r.at += int64(len(b))
	r.sum = crc32.Update(r.sum, castagnoli, b)
	return true
}

func (r *indexReader) uvarint() uint64 {
	r.fill(binary.MaxVarintLen64)
	return r.decoder.uvarint()
}

// block reads the next block, whose key is valid until the next one is read.
func (r *indexReader) block() block {
	r.fill(4 * binary.MaxVarintLen64)
	ahead := decoder{b: r.b} // as far as the length of the key
	for range 3 {
		ahead.uvarint()
	}
	if key := ahead.uvarint(); !ahead.bad && key <= uint64(r.left()) {
		r.fill(int(key) + 5*binary.MaxVarintLen64)
	}
	return r.decoder.block()
}

// rest returns a copy of the next n bytes.
func (r *indexReader) rest(n uint64) []byte {
	if r.bad || n > uint64(r.left()) {
		r.fail()
		return nil
	}
	b := make([]byte, n)
	have := copy(b, r.b)
	r.b = r.b[have:]
	r.readInto(b[have:])
	return b
}
