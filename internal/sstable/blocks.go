package sstable

import (
	"bytes"
	"cmp"
	"slices"
	"sort"
	"unsafe"

	"kvstore/internal/keyspace"
)

// blockTable is where the blocks of an open file are. There is one for every few
// kilobytes on disk, so each takes 12 bytes beside the rest of its key, and 8 more in
// the history.
//
// Blocks in a row are a group, whose keys share a prefix that is kept once: of keys
// that are dense, a few bytes are left of each. A search looks for the group by the
// heads of their first keys, and then compares rests that lie beside each other.
type blockTable struct {
	// starts has where each block begins, and behind the last one where it ends:
	// there is nothing between blocks.
	starts []int64
	// keys has of each group the prefix, and then what the keys of its blocks have
	// behind that, from cuts on.
	keys   []byte
	groups []group
	cuts   []uint32
	// heads has the eight bytes of each group's first key behind what those of its
	// instance share: a search goes over these, which lie together.
	heads []uint64
	// revs has the revision of each block's first version. A run has a key once,
	// and needs none to find it.
	revs []keyspace.Revision
	// parts has, in order, which instances there are, and where the blocks of each
	// begin.
	parts []part

	// open is the group that is not full: whole keys, and where each ends.
	open []byte
	ends []int
	last []byte // key
}

// part is an instance, with its first block and group, and what the first keys of all
// of its groups begin with.
type part struct {
	instance     keyspace.InstanceID
	first, group int
	shared       []byte
}

// group is some blocks, with the first of them, and where in keys its prefix begins.
type group struct{ first, prefix uint32 }

// groupBlocks is the number of blocks of a group. The last one of an instance may have
// fewer.
const groupBlocks = 64

// newBlockTable has room for so many blocks, which begin at from.
func newBlockTable(count int, from int64, current bool) (t blockTable) {
	t.starts, t.cuts = append(make([]int64, 0, count+1), from), make([]uint32, 0, count)
	if !current {
		t.revs = make([]keyspace.Revision, 0, count)
	}
	return t
}

// add appends a block, which begins where the last one ends; its key is copied.
// ok is false when it is out of order. What is added can be found after finish.
func (t *blockTable) add(b block) (ok bool) {
	switch n := len(t.parts); {
	case n == 0 || t.parts[n-1].instance < b.instance:
		t.endGroup()
		t.parts = append(t.parts, part{instance: b.instance, first: t.count(), group: len(t.groups)})
	case t.parts[n-1].instance > b.instance || !t.follows(b.key, b.rev):
		return false
	}
	t.last = append(t.last[:0], b.key...)
	t.open = append(t.open, b.key...)
	t.ends = append(t.ends, len(t.open))
	t.starts = append(t.starts, t.end()+int64(b.length))
	if t.revs != nil {
		t.revs = append(t.revs, b.rev)
	}
	if len(t.ends) == groupBlocks {
		t.endGroup()
	}
	return true
}

// follows reports whether a position is behind that of the last block.
func (t *blockTable) follows(key []byte, rev keyspace.Revision) bool {
	c := bytes.Compare(t.last, key)
	return c < 0 || c == 0 && t.revs != nil && t.revs[len(t.revs)-1] > rev
}

// endGroup takes what its keys share out of the keys of the open group.
func (t *blockTable) endGroup() {
	if len(t.ends) == 0 {
		return
	}
	last := t.open
	if n := len(t.ends); n > 1 {
		last = t.open[t.ends[n-2]:]
	}
	shared := keyspace.CommonPrefix(t.open[:t.ends[0]], last)
	t.groups = append(t.groups, group{first: uint32(len(t.cuts)), prefix: uint32(len(t.keys))})
	t.keys = append(t.keys, last[:shared]...)
	begin := 0
	for _, end := range t.ends {
		t.cuts = append(t.cuts, uint32(len(t.keys)))
		t.keys = append(t.keys, t.open[begin+shared:end]...)
		begin = end
	}
	t.open, t.ends = t.open[:0], t.ends[:0]
}

// finish ends the table and lets go of room that was not needed.
func (t *blockTable) finish() {
	t.endGroup()
	t.open, t.ends, t.last = nil, nil, nil
	t.keys, t.groups = bytes.Clone(t.keys), slices.Clone(t.groups)
	t.heads = make([]uint64, len(t.groups))
	var lowest, key []byte
	for i := range t.parts {
		p, end := &t.parts[i], t.endOf(i)
		lowest = t.appendFirst(lowest[:0], p.group)
		key = t.appendFirst(key[:0], end-1)
		p.shared = bytes.Clone(lowest[:keyspace.CommonPrefix(lowest, key)])
		for g := p.group; g < end; g++ {
			key = t.appendFirst(key[:0], g)
			t.heads[g] = keyspace.Head(key, len(p.shared))
		}
	}
}

// endOf is the group behind those of a part.
func (t *blockTable) endOf(i int) int {
	if i+1 < len(t.parts) {
		return t.parts[i+1].group
	}
	return len(t.groups)
}

// appendFirst appends the first key of a group.
func (t *blockTable) appendFirst(dst []byte, g int) []byte {
	dst = append(dst, t.prefix(g)...)
	return append(dst, t.rest(int(t.groups[g].first), g)...)
}

func (t *blockTable) count() int { return len(t.starts) - 1 }

// end is where the last block ends.
func (t *blockTable) end() int64 { return t.starts[len(t.starts)-1] }

func (t *blockTable) start(n int) int64 { return t.starts[n] }

func (t *blockTable) length(n int) int { return int(t.starts[n+1] - t.starts[n]) }

// prefix is what the keys of a group begin with.
func (t *blockTable) prefix(g int) []byte {
	return t.keys[t.groups[g].prefix:t.cuts[t.groups[g].first]]
}

// rest is what the key of block n, of group g, has behind the prefix.
func (t *blockTable) rest(n, g int) []byte {
	end := uint32(len(t.keys))
	if g+1 < len(t.groups) {
		end = t.groups[g+1].prefix
	}
	if n+1 < len(t.cuts) {
		end = min(end, t.cuts[n+1])
	}
	return t.keys[t.cuts[n]:end]
}

// precedes reports whether a position is before the first version of block n, of
// group g.
func (t *blockTable) precedes(key []byte, rev keyspace.Revision, n, g int) bool {
	prefix := t.prefix(g)
	if !bytes.HasPrefix(key, prefix) {
		return bytes.Compare(key, prefix) < 0
	}
	return before(key[len(prefix):], rev, t.rest(n, g), t.rev(n))
}

// startsBehind reports whether the first version of block n is behind a position.
func (t *blockTable) startsBehind(n int, key []byte, rev keyspace.Revision) bool {
	p := t.parts[sort.Search(len(t.parts), func(i int) bool { return t.parts[i].first > n })-1]
	return t.precedes(key, rev, n, p.group+(n-p.first)/groupBlocks)
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
	i, there := t.part(inst)
	if !there {
		return t.from(inst) - 1
	}
	g := t.group(i, key, rev)
	if g < t.parts[i].group {
		return t.parts[i].first - 1
	}
	return t.findIn(g, key, rev)
}

// group is the last group of a part that begins at or before a position.
func (t *blockTable) group(i int, key []byte, rev keyspace.Revision) int {
	p := &t.parts[i]
	low, high := p.group, t.endOf(i)
	if !bytes.HasPrefix(key, p.shared) {
		if bytes.Compare(key, p.shared) < 0 {
			return low - 1
		}
		return high - 1
	}
	head := keyspace.Head(key, len(p.shared))
	for low < high {
		mid := (low + high) / 2
		if h := t.heads[mid]; h > head || h == head && t.precedes(key, rev, int(t.groups[mid].first), mid) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low - 1
}

// findIn is find in a group that begins at or before the position.
func (t *blockTable) findIn(g int, key []byte, rev keyspace.Revision) int {
	low, high := int(t.groups[g].first), len(t.cuts)
	if g+1 < len(t.groups) {
		high = int(t.groups[g+1].first)
	}
	prefix := t.prefix(g)
	if !bytes.HasPrefix(key, prefix) {
		return high - 1 // it is above all that begin so
	}
	key = key[len(prefix):]
	for low < high {
		if mid := (low + high) / 2; before(key, rev, t.rest(mid, g), t.rev(mid)) {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low - 1
}

// bytesOf is what the blocks of an instance take on disk; they are contiguous.
func (t *blockTable) bytesOf(inst keyspace.InstanceID) int64 {
	return t.starts[t.behind(inst)] - t.starts[t.from(inst)]
}

// bytes is what the table takes in memory.
func (t *blockTable) bytes() int64 {
	sum := 8*cap(t.starts) + 8*cap(t.groups) + 8*cap(t.heads) + 4*cap(t.cuts) + cap(t.keys) + 8*cap(t.revs)
	for i := range t.parts {
		sum += int(unsafe.Sizeof(part{})) + cap(t.parts[i].shared)
	}
	return int64(sum)
}
