package raftlog

import "go.etcd.io/raft/v3/raftpb"

// entryCache bounds the bytes of the entries that the groups keep in memory.
// Each group caches a suffix of its log; the entry that was appended first,
// over all groups, goes first.
type entryCache struct {
	limit   int64
	bytes   int64
	entries int
	// queue is a ring in append order. An item whose entry has gone already
	// (truncated, compacted) is skipped when it is met.
	queue []cacheItem
	head  int
	count int
}

type cacheItem struct {
	group *groupLog
	index uint64
}

// caches reports whether the item's entry, or one that replaced it, is cached.
func (i cacheItem) caches() bool {
	g := i.group
	return len(g.cache) > 0 && i.index >= g.cacheFirst() && i.index <= g.last()
}

// cachedEntryBytes is what an entry costs beside its data: the message, three
// boxed integers, its places in slices.
const cachedEntryBytes = 160

func cacheBytes(e *raftpb.Entry) int64 { return cachedEntryBytes + int64(len(e.Data)) }

// add caches e, the last entry of g.
func (c *entryCache) add(g *groupLog, e *raftpb.Entry) {
	g.cache = append(g.cache, e)
	c.bytes += cacheBytes(e)
	c.entries++
	c.push(cacheItem{g, e.GetIndex()})
	for c.bytes > c.limit && c.count > 0 {
		c.evict(c.pop())
	}
}

func (c *entryCache) evict(i cacheItem) {
	if g := i.group; i.caches() {
		c.drop(g, int(i.index-g.cacheFirst())+1)
	}
}

// drop forgets the n oldest cached entries of g.
func (c *entryCache) drop(g *groupLog, n int) {
	c.entries -= n
	for i, e := range g.cache[:n] {
		c.bytes -= cacheBytes(e)
		g.cache[i] = nil
	}
	if g.cache = g.cache[n:]; len(g.cache) == 0 {
		g.cache = nil
	}
}

// dropNewest forgets the n newest cached entries of g.
func (c *entryCache) dropNewest(g *groupLog, n int) {
	c.entries -= n
	keep := len(g.cache) - n
	for i := keep; i < len(g.cache); i++ {
		c.bytes -= cacheBytes(g.cache[i])
		g.cache[i] = nil
	}
	g.cache = g.cache[:keep]
}

func (c *entryCache) push(i cacheItem) {
	if c.count == len(c.queue) {
		c.grow()
	}
	c.queue[(c.head+c.count)%len(c.queue)] = i
	c.count++
}

func (c *entryCache) pop() cacheItem {
	i := c.queue[c.head]
	c.queue[c.head] = cacheItem{}
	c.head = (c.head + 1) % len(c.queue)
	c.count--
	return i
}

// grow makes room in the ring, first by leaving out the items whose entries
// have gone, or have been replaced and have a later item.
func (c *entryCache) grow() {
	kept := make([]cacheItem, 0, max(64, 2*c.count))
	for range c.count {
		if i := c.pop(); i.caches() {
			kept = append(kept, i)
		}
	}
	if len(kept) > c.entries {
		kept = latest(kept)
	}
	c.head, c.count = 0, len(kept)
	c.queue = kept[:cap(kept)]
}

// latest keeps the last of equal items, in place.
func latest(items []cacheItem) []cacheItem {
	last := make(map[cacheItem]int, len(items))
	for n, i := range items {
		last[i] = n
	}
	kept := items[:0]
	for n, i := range items {
		if last[i] == n {
			kept = append(kept, i)
		}
	}
	return kept
}
