package mvcc

import (
	"runtime"

	"kvstore/internal/keyspace"
)

// PrefetchKeys is the most keys that are looked at together.
const PrefetchKeys = 16

// Prefetch brings into the processor's caches what Get will look at for keys.
//
// Looking up a key is a chain of loads (the tag, the item, its key, the
// version, the value) of which each waits for the one before and nearly all
// miss the caches. Prefetch makes the first step for all keys, then the second
// for all, and so on: within a step nothing depends on anything else, so that
// the processor waits for all of them at the same time. It goes on to the next
// delta with the keys that are not in the one before, and changes nothing.
func (v *View) Prefetch(inst keyspace.InstanceID, keys [][]byte) {
	v.layers.prefetch(inst, keys, prefetchBytes)
}

// PrefetchHeaders does the same for what only wants to know the beginnings of values.
func (v *View) PrefetchHeaders(inst keyspace.InstanceID, keys [][]byte) {
	v.layers.prefetch(inst, keys, headerBytes)
}

// warm does the same for the first n hashes of keys that versions will be inserted of,
// in front of the newest ones.
func (d *delta) warm(hashes [PrefetchKeys]uint64, n int) {
	seen := uint64(0)
	d.prefetch(hashes[:n], 0, &seen)
	runtime.KeepAlive(seen)
}

// prefetch looks at so many bytes of each value.
func (l layers) prefetch(inst keyspace.InstanceID, keys [][]byte, valueBytes int) {
	var hashes [PrefetchKeys]uint64
	keys = keys[:min(len(keys), PrefetchKeys)]
	for i, key := range keys {
		hashes[i] = hashKey(inst, key)
	}
	open, seen := hashes[:len(keys)], uint64(0)
	for _, d := range l[:min(len(l), prefetchLayers)] {
		open = d.prefetch(open, valueBytes, &seen)
	}
	runtime.KeepAlive(seen) // keeps the loads from being left out
}

// prefetch returns the hashes, in their place, of keys that are not here. With no bytes
// of values it looks at what an insertion does.
func (d *delta) prefetch(hashes []uint64, valueBytes int, seen *uint64) (open []uint64) {
	var items [PrefetchKeys]*item
	var versions [PrefetchKeys]*version
	found := 0
	for _, hash := range hashes {
		*seen += d.index.first(hash)
	}
	open = hashes[:0]
	for _, hash := range hashes {
		if it := d.index.likely(hash); it != nil {
			items[found] = it
			found++
		} else {
			open = append(open, hash)
		}
	}
	for i, it := range items[:found] {
		versions[i] = it.newest.Load()
	}
	for i, v := range versions[:found] {
		*seen += uint64(v.depth)
		if key := items[i].key; len(key) > 0 {
			*seen += uint64(key[0])
		}
	}
	if valueBytes == 0 {
		*seen += touchJumps(versions[:found])
		return open
	}
	for _, v := range versions[:found] {
		*seen += v.touch(valueBytes)
	}
	return open
}

// touchJumps loads what linking a version in front of each of these looks at beside
// them.
func touchJumps(versions []*version) (seen uint64) {
	for _, v := range versions {
		if v.jump != nil {
			seen += uint64(v.jump.skips)
		}
	}
	return seen
}

const (
	cacheLine = 64
	// prefetchBytes is how much of a value is looked at: behind it, loads in a
	// row are foreseen by the processor.
	prefetchBytes = 4 * cacheLine
	// headerBytes is where the headers of most values end: they begin anywhere in a
	// line.
	headerBytes = 2 * cacheLine
	// prefetchLayers is how many deltas are looked at: seldom are there more.
	prefetchLayers = 4
)

// touch loads the beginning of the value.
func (v *version) touch(bytes int) (seen uint64) {
	for at := 0; at < min(len(v.value), bytes); at += cacheLine {
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
	return t.slots[t.slot(hash)].tag.Load()
}

// likely returns the item with the tag of a hash that a lookup meets first,
// which is nearly always the one that is looked for; nil when there is none.
func (x *index) likely(hash uint64) *item {
	t := x.shards[hash>>(64-indexShardBits)].Load()
	if t == nil {
		return nil
	}
	tag, mask := tagOf(hash), len(t.slots)-1
	for i := t.slot(hash); ; i = (i + 1) & mask {
		switch s := &t.slots[i]; s.tag.Load() {
		case 0:
			return nil
		case tag:
			return s.item.Load()
		}
	}
}
