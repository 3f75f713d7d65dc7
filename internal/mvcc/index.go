package mvcc

import (
	"bytes"
	"sync/atomic"

	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// index finds the item of a key in about two cache misses. One goroutine
// inserts, any number look up without locks.
//
// It is a hash table with linear probing, split into shards by the top bits of
// the hash, so that growing copies little at a time. In each slot stands the
// hash: a probe looks at memory of the key only when that matches, and growing at
// none. Items are never removed. An insertion publishes the item and then
// the tag; growing publishes a whole new table. A reader that holds an old
// table misses what was inserted after, which it may not see anyway.
type index struct {
	shards [indexShards]atomic.Pointer[hashTable]
	used   [indexShards]int // the writer's
}

const (
	indexShardBits = 6
	indexShards    = 1 << indexShardBits
	firstSlots     = 8
)

type hashTable struct{ slots []hashSlot }

// hashSlot has both of what a lookup wants beside each other, mostly in one cache line.
type hashSlot struct {
	tag  atomic.Uint64 // 0 is free
	item atomic.Pointer[item]
}

func newHashTable(slots int) *hashTable { return &hashTable{slots: make([]hashSlot, slots)} }

func hashKey(inst keyspace.InstanceID, key []byte) uint64 { return sstable.Hash(inst, key) }

// tagOf is the hash, but never 0.
func tagOf(hash uint64) uint64 { return max(1, hash) }

// slot uses no bits of the shard, and is the same for a hash and its tag.
func (t *hashTable) slot(hash uint64) int { return int(hash>>32) & (len(t.slots) - 1) }

func (t *hashTable) get(hash uint64, inst keyspace.InstanceID, key []byte) *item {
	tag, mask := tagOf(hash), len(t.slots)-1
	for i := t.slot(hash); ; i = (i + 1) & mask {
		switch s := &t.slots[i]; s.tag.Load() {
		case 0:
			return nil
		case tag:
			if it := s.item.Load(); it.instance == inst && bytes.Equal(it.key, key) {
				return it
			}
		}
	}
}

func (t *hashTable) put(hash uint64, it *item) {
	mask := len(t.slots) - 1
	i := t.slot(hash)
	for t.slots[i].tag.Load() != 0 {
		i = (i + 1) & mask
	}
	t.slots[i].item.Store(it)
	t.slots[i].tag.Store(tagOf(hash))
}

func (x *index) get(hash uint64, inst keyspace.InstanceID, key []byte) *item {
	t := x.shards[hash>>(64-indexShardBits)].Load()
	if t == nil {
		return nil
	}
	return t.get(hash, inst, key)
}

// put adds an item that is not there. Only the writer calls it.
func (x *index) put(hash uint64, it *item) {
	shard := hash >> (64 - indexShardBits)
	t := x.shards[shard].Load()
	if t == nil || 2*(x.used[shard]+1) > len(t.slots) {
		t = grow(t)
		t.put(hash, it)
		x.shards[shard].Store(t)
	} else {
		t.put(hash, it)
	}
	x.used[shard]++
}

func grow(old *hashTable) *hashTable {
	if old == nil {
		return newHashTable(firstSlots)
	}
	t := newHashTable(2 * len(old.slots))
	for i := range old.slots {
		if s := &old.slots[i]; s.tag.Load() != 0 {
			t.put(s.tag.Load(), s.item.Load())
		}
	}
	return t
}

// each calls visit with every item and its hash.
func (x *index) each(visit func(hash uint64, it *item)) {
	for i := range x.shards {
		t := x.shards[i].Load()
		if t == nil {
			continue
		}
		for j := range t.slots {
			s := &t.slots[j]
			switch hash := s.tag.Load(); hash {
			case 0:
			case 1: // or 0
				it := s.item.Load()
				visit(hashKey(it.instance, it.key), it)
			default:
				visit(hash, s.item.Load())
			}
		}
	}
}
