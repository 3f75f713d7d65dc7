package sstable

import "encoding/binary"

const (
	// entriesFirst and entriesPiece bound the pieces of entries.
	entriesFirst = 4 << 10
	entriesPiece = 64 << 10
	// indexPiece is how much of an index is written at once.
	indexPiece = 256 << 10
	// entryHeader is the most that a block takes in an index beside its key.
	entryHeader = 5 * binary.MaxVarintLen64
)

// entries is the index of the blocks so far, as it will be written. It grows in
// pieces, as hashes do.
type entries struct {
	pieces       [][]byte
	count, bytes int
}

func (e *entries) add(b *block) {
	need := len(b.key) + entryHeader
	last := len(e.pieces) - 1
	if last < 0 || cap(e.pieces[last])-len(e.pieces[last]) < need {
		size := min(entriesPiece, max(entriesFirst, e.bytes))
		e.pieces = append(e.pieces, make([]byte, 0, max(need, size)))
		last++
	}
	before := len(e.pieces[last])
	e.pieces[last] = appendBlock(e.pieces[last], b)
	e.bytes += len(e.pieces[last]) - before
	e.count++
}
