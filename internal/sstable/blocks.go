package sstable

import (
	"bytes"
	"cmp"
	"slices"
	"sort"

	"kvstore/internal/keyspace"
)

// blockTable is where the blocks of an open file are. There is one for every few
// kilobytes on disk, so each takes 12 bytes beside its key, and 8 more in the
// history.
type blockTable struct {
	// starts has where each block begins, and behind the last one where it ends:
	// there is nothing between blocks.
	starts []int64
	// cuts has where the key of each block begins in keys.
	cuts []uint32
	keys []byte
	// revs has the revision of each block's first version. A run has a key once,
	// and needs none to find it.
	revs []keyspace.Revision
	// parts has, in order, which instances there are, and where the blocks of each
	// begin.
	parts []part
}

type part struct {
	instance keyspace.InstanceID
	first    int // block
}

// newBlockTable has room for so many blocks, which begin at from.
func newBlockTable(count int, from int64, current bool) (t blockTable) {
	t.starts, t.cuts = append(make([]int64, 0, count+1), from), make([]uint32, 0, count)
	if !current {
		t.revs = make([]keyspace.Revision, 0, count)
	}
	return t
}

// add appends a block, which begins where the last one ends; its key is copied.
// ok is false when its instance is out of order.
func (t *blockTable) add(b block) (ok bool) {
	if n := len(t.parts); n == 0 || t.parts[n-1].instance != b.instance {
		if n > 0 && t.parts[n-1].instance > b.instance {
			return false
		}
		t.parts = append(t.parts, part{instance: b.instance, first: t.count()})
	}
	t.cuts = append(t.cuts, uint32(len(t.keys)))
	t.keys = append(t.keys, b.key...)
	t.starts = append(t.starts, t.end()+int64(b.length))
	if t.revs != nil {
		t.revs = append(t.revs, b.rev)
	}
	return true
}

// clip lets go of room that was not needed.
func (t *blockTable) clip() { t.keys = bytes.Clone(t.keys) }

func (t *blockTable) count() int { return len(t.cuts) }

// end is where the last block ends.
func (t *blockTable) end() int64 { return t.starts[len(t.starts)-1] }

func (t *blockTable) start(n int) int64 { return t.starts[n] }

func (t *blockTable) length(n int) int { return int(t.starts[n+1] - t.starts[n]) }

func (t *blockTable) key(n int) []byte {
	if n+1 < len(t.cuts) {
		return t.keys[t.cuts[n]:t.cuts[n+1]:t.cuts[n+1]]
	}
	return t.keys[t.cuts[n]:]
}

// rev is the highest revision that the first version of a block can have.
func (t *blockTable) rev(n int) keyspace.Revision {
	if t.revs == nil {
		return keyspace.MaxRevision
	}
	return t.revs[n]
}

// part is the place of an instance in parts, or that of the next one.
func (t *blockTable) part(inst keyspace.InstanceID) (n int, there bool) {
	return slices.BinarySearchFunc(t.parts, inst, func(p part, inst keyspace.InstanceID) int {
		return cmp.Compare(p.instance, inst)
	})
}

// from is the first block of an instance, or of the next one that there is.
func (t *blockTable) from(inst keyspace.InstanceID) int {
	n, _ := t.part(inst)
	if n == len(t.parts) {
		return t.count()
	}
	return t.parts[n].first
}

// behind is the first block behind those of an instance.
func (t *blockTable) behind(inst keyspace.InstanceID) int {
	if inst == ^keyspace.InstanceID(0) {
		return t.count()
	}
	return t.from(inst + 1)
}

// of reports whether there is a block n and it is of an instance.
func (t *blockTable) of(n int, inst keyspace.InstanceID) bool {
	return n >= t.from(inst) && n < t.behind(inst)
}

// find returns the block in which the first version at or after a position is,
// unless that is the first of the next one.
func (t *blockTable) find(inst keyspace.InstanceID, key []byte, rev keyspace.Revision) int {
	low, high := t.from(inst), t.behind(inst)
	return low + sort.Search(high-low, func(i int) bool {
		return before(key, rev, t.key(low+i), t.rev(low+i))
	}) - 1
}

// bytesOf is what the blocks of an instance take on disk; they are contiguous.
func (t *blockTable) bytesOf(inst keyspace.InstanceID) int64 {
	return t.starts[t.behind(inst)] - t.starts[t.from(inst)]
}

// bytes is what the table takes in memory.
func (t *blockTable) bytes() int64 {
	return int64(8*cap(t.starts) + 4*cap(t.cuts) + cap(t.keys) + 8*cap(t.revs))
}
