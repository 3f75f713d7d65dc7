package sstable

import (
	"encoding/binary"

	"kvstore/internal/keyspace"
)

const (
	// entriesFirst and entriesPiece bound the pieces of entries.
	entriesFirst = 4 << 10
	entriesPiece = 64 << 10
	// indexPiece is how much of an index is written at once.
	indexPiece = 256 << 10
	// entryHeader is the most that a block takes in entries beside its key.
	entryHeader = 6 * binary.MaxVarintLen64
)

// entries is the index of the blocks so far. It is written with whole keys; until then
// a key has only what it does not share with the one before, so that the index of a
// large run takes little more memory while it is made than when it is open. It grows
// in pieces, as hashes do.
type entries struct {
	pieces       [][]byte
	count, bytes int
	last         []byte // key
}

func (e *entries) add(b *block) {
	shared := keyspace.CommonPrefix(e.last, b.key)
	need := len(b.key) - shared + entryHeader
	last := len(e.pieces) - 1
	if last < 0 || cap(e.pieces[last])-len(e.pieces[last]) < need {
		size := min(entriesPiece, max(entriesFirst, e.bytes))
		e.pieces = append(e.pieces, make([]byte, 0, max(need, size)))
		last++
	}
	before := len(e.pieces[last])
	rest := *b
	rest.key = b.key[shared:]
	e.pieces[last] = appendBlock(binary.AppendUvarint(e.pieces[last], uint64(shared)), &rest)
	e.bytes += len(e.pieces[last]) - before
	e.count++
	e.last = append(e.last[:0], b.key...)
}

// each calls put with what the index has of one block after the other; put keeps
// nothing of it.
func (e *entries) each(put func([]byte) error) error {
	var key, out []byte
	for _, piece := range e.pieces {
		for r := (&decoder{b: piece}); len(r.b) > 0; {
			shared := r.uvarint()
			b := r.block()
			key = append(key[:shared], b.key...)
			b.key = key
			out = appendBlock(out[:0], &b)
			if err := put(out); err != nil {
				return err
			}
		}
	}
	return nil
}
