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
	from io.ReaderAt
	at   int64 // where what was not read into b begins
	end  int64
	err  error // of reading
}

// left is how many bytes of the index are left.
func (r *indexReader) left() int64 { return int64(len(r.b)) + r.end - r.at }

// fill makes the next n bytes, or all that are left, those of b.
func (r *indexReader) fill(n int) {
	if len(r.b) >= n || r.at == r.end || r.bad {
		return
	}
	size := min(int64(max(n, indexPiece)), r.left())
	b := make([]byte, size)
	have := copy(b, r.b)
	r.readInto(b[have:])
	if !r.bad {
		r.b = b
	}
}

// readInto fills b with what follows in the file.
func (r *indexReader) readInto(b []byte) {
	if len(b) == 0 {
		return
	}
	if n, err := r.from.ReadAt(b, r.at); n < len(b) {
		r.err = err
		r.fail()
		return
	}
	r.at += int64(len(b))
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

// checksum returns that of all that is left, of which it reads nothing away.
func (r *indexReader) checksum() (uint32, error) {
	sum, b := uint32(0), make([]byte, min(indexPiece, r.end-r.at))
	for at := r.at; at < r.end; at += int64(len(b)) {
		b = b[:min(int64(len(b)), r.end-at)]
		if n, err := r.from.ReadAt(b, at); n < len(b) {
			return 0, err
		}
		sum = crc32.Update(sum, castagnoli, b)
	}
	return sum, nil
}
