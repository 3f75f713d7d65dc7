package sstable

import (
	"math/bits"

	"github.com/zeebo/xxh3"

	"kvstore/internal/keyspace"
)

// filter is a Bloom filter of keys of which each sets all of its bits in one
// cache line: a key that is not there costs one load of memory. With ten bits a
// key one absent key in a hundred is not told apart.
type filter []byte

const (
	filterLine   = 64
	filterBits   = 10 // per key
	filterProbes = 6
	probeBits    = 9 // name a bit of a line
)

// Hash is the hash of a key that filters take.
func Hash(inst keyspace.InstanceID, key []byte) uint64 { return xxh3.HashSeed(key, uint64(inst)) }

// hashes collects the hashes of a run's keys. It grows in pieces: there may be
// millions, and a slice that grows is there twice.
type hashes struct {
	pieces [][]uint64
	count  int
}

const hashesPiece = 8 << 10

func (h *hashes) add(hash uint64) {
	last := len(h.pieces) - 1
	if last < 0 || len(h.pieces[last]) == hashesPiece {
		h.pieces = append(h.pieces, make([]uint64, 0, hashesPiece))
		last++
	}
	h.pieces[last] = append(h.pieces[last], hash)
	h.count++
}

func newFilter(of *hashes) filter {
	f := make(filter, linesOf(of.count)*filterLine)
	for _, piece := range of.pieces {
		for _, h := range piece {
			f.add(h)
		}
	}
	return f
}

func linesOf(keys int) int { return (keys*filterBits + 8*filterLine - 1) / (8 * filterLine) }

// foldLines is what the lines of an empty filter of many keys are a multiple of.
const foldLines = 32

// emptyFilter has room for so many keys, which is to be folded when fewer came.
func emptyFilter(keys int) filter {
	lines := max(1, linesOf(keys))
	if lines >= 2*foldLines {
		lines = (lines + foldLines - 1) / foldLines * foldLines
	}
	return make(filter, lines*filterLine)
}

// fold returns the filter of half, a quarter and so on of the lines, as few as so
// many keys need: a key's line is chosen by a part of its hash, so that it is in
// the half of the place, with what was beside it there.
func (f filter) fold(keys int) filter {
	for lines := len(f) / filterLine; lines%2 == 0 && lines/2 >= linesOf(keys) && lines > 1; lines /= 2 {
		for n := range lines / 2 {
			into, from := f[n*filterLine:], f[2*n*filterLine:2*(n+1)*filterLine]
			for i, b := range from[:filterLine] {
				into[i] = b | from[filterLine+i]
			}
		}
		f = f[:lines/2*filterLine]
	}
	return f
}

// keys is about how many keys the filter is of, no fewer.
func (f filter) keys() int { return len(f) * 8 / filterBits }

func (f filter) add(hash uint64) {
	line := f.line(hash)
	for n := range filterProbes {
		at := probe(hash, n)
		line[at>>3] |= 1 << (at & 7)
	}
}

// line is chosen by the upper part of a hash.
func (f filter) line(hash uint64) []byte {
	n, _ := bits.Mul64(hash, uint64(len(f)/filterLine))
	return f[n*filterLine : (n+1)*filterLine]
}

// probe is the n-th bit in a line, by the lower part of a hash.
func probe(hash uint64, n int) uint64 {
	return hash * 0x9e3779b97f4a7c15 >> (uint(n) * probeBits) & (1<<probeBits - 1)
}

// has is false when the key with a hash is not there.
func (f filter) has(hash uint64) bool {
	if len(f) == 0 {
		return false
	}
	line := f.line(hash)
	for n := range filterProbes {
		at := probe(hash, n)
		if line[at>>3]&(1<<(at&7)) == 0 {
			return false
		}
	}
	return true
}
