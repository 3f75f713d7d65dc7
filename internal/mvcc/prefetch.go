package mvcc

import (
	"runtime"

	"kvstore/internal/keyspace"
)

// PrefetchKeys is the most keys that Prefetch looks at.
const PrefetchKeys = 16

// Prefetch brings into the processor's caches what Get will look at for keys.
//
// Looking up a key is a chain of loads (the tag, the item, its key, the
// version, the value) of which each waits for the one before and nearly all
// miss the caches. Prefetch makes the first step for all keys, then the second
// for all, and so on: within a step nothing depends on anything else, so that
// the processor waits for all of them at the same time. It looks at the active
// delta only and changes nothing.
func (v *View) Prefetch(inst keyspace.InstanceID, keys [][]byte) {
	v.layers.active().prefetch(inst, keys)
}

// Prefetch does the same for keys that versions will be inserted of; anybody
// may call it.
func (s *Store) Prefetch(inst keyspace.InstanceID, keys [][]byte) {
	s.layers().active().prefetch(inst, keys)
}

func (d *delta) prefetch(inst keyspace.InstanceID, keys [][]byte) {
	var hashes [PrefetchKeys]uint64
	var items [PrefetchKeys]*item
	var versions [PrefetchKeys]*version
	var seen uint64 // keeps the loads from being left out
	keys = keys[:min(len(keys), PrefetchKeys)]
	for i, key := range keys {
		hashes[i] = hashKey(inst, key)
		seen += d.index.first(hashes[i])
	}
	for i := range keys {
		items[i] = d.index.likely(hashes[i])
	}
	for i := range keys {
		if it := items[i]; it != nil {
			versions[i] = it.newest.Load()
		}
	}
	for i := range keys {
		if v := versions[i]; v != nil {
			seen += uint64(v.depth)
			if key := items[i].key; len(key) > 0 {
				seen += uint64(key[0])
			}
		}
	}
	for i := range keys {
		if v := versions[i]; v != nil {
			seen += v.touch()
		}
	}
	runtime.KeepAlive(seen)
}

const (
	cacheLine = 64
	// prefetchBytes is how much of a value is looked at: behind it, loads in a
	// row are foreseen by the processor.
	prefetchBytes = 4 * cacheLine
)

// touch loads the beginning of the value.
func (v *version) touch() (seen uint64) {
	for at := 0; at < min(len(v.value), prefetchBytes); at += cacheLine {
		seen += uint64(v.value[at])
	}
	return seen
}

// warm loads what lookups of the keys of items will look at.
func (x *index) warm(items []*item) (seen uint64) {
	var hashes [pageItems]uint64
	var found [pageItems]*item
	for i, it := range items {
		hashes[i] = hashKey(it.instance, it.key)
		seen += x.first(hashes[i])
	}
	for i := range items {
		found[i] = x.likely(hashes[i])
	}
	for i := range items {
		if it := found[i]; it != nil && len(it.key) > 0 {
			seen += uint64(it.key[0])
			if v := it.newest.Load(); v != nil {
				seen += uint64(v.depth)
			}
		}
	}
	return seen
}

// first loads the tag where the lookup of a hash begins.
func (x *index) first(hash uint64) uint64 {
	t := x.shards[hash>>(64-indexShardBits)].Load()
	if t == nil {
		return 0
	}
	return t.tags[t.slot(hash)].Load()
}

// likely returns the item with the tag of a hash that a lookup meets first,
// which is nearly always the one that is looked for; nil when there is none.
func (x *index) likely(hash uint64) *item {
	t := x.shards[hash>>(64-indexShardBits)].Load()
	if t == nil {
		return nil
	}
	tag, mask := tagOf(hash), len(t.tags)-1
	for i := t.slot(hash); ; i = (i + 1) & mask {
		switch t.tags[i].Load() {
		case 0:
			return nil
		case tag:
			return t.items[i].Load()
		}
	}
}
