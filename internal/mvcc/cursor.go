package mvcc

import (
	"bytes"

	"kvstore/internal/keyspace"
)

// span is the part of a delta a scan covers: one instance, lower inclusive,
// upper exclusive, nil unbounded.
type span struct {
	instance     keyspace.InstanceID
	lower, upper []byte
	at           keyspace.Revision
}

func (s *span) covers(key []byte) bool {
	return bytes.Compare(key, s.lower) >= 0 && (s.upper == nil || bytes.Compare(key, s.upper) < 0)
}

// cursor walks the versions of one delta that a scan may return: newest per
// key in either direction, or all versions forward. It stands on a version of
// item; both are nil at the end.
type cursor struct {
	order *order // nil when the delta has nothing of the instance
	span  *span
	item  *item
	at    *version
	// ahead are the items that follow, copied out of a page.
	ahead []*item
	buf   []*item
	// all: every item ahead will be read, with its value, and looked up in newer.
	all   bool
	newer []*delta
	seen  uint64 // keeps the loads of warm from being left out
	// warmed are how many of ahead are in caches, and window how many are brought
	// there at a time: more and more, since most scans end soon. valueBytes is how much
	// of their values is.
	warmed, window, valueBytes int
}

// seekForward goes to the first key at or above key.
func (c *cursor) seekForward(key []byte) {
	c.window = 0
	c.load(key, false)
	c.settle(false)
}

// seekBackward goes to the highest key below key, or at it if inclusive. A nil
// key is the end of the instance.
func (c *cursor) seekBackward(key []byte, inclusive bool) {
	c.window = 0
	if inclusive {
		key = append(bytes.Clone(key), 0) // the next key there can be
	}
	c.load(key, true)
	c.settle(true)
}

// nextKey goes on to another key.
func (c *cursor) nextKey(reverse bool) { c.settle(reverse) }

// nextVersion goes on to an older version or the next key, forward.
func (c *cursor) nextVersion() {
	if c.at = c.at.prev; c.at == nil {
		c.settle(false)
	}
}

// load copies the items around a position.
func (c *cursor) load(key []byte, reverse bool) {
	c.item, c.at, c.ahead, c.warmed = nil, nil, nil, 0
	switch {
	case c.order == nil:
		return
	case reverse:
		c.buf = c.order.before(c.buf[:0], key, c.span.lower)
	default:
		c.buf = c.order.from(c.buf[:0], key, c.span.upper)
	}
	c.ahead = c.buf
	if c.all {
		c.warm()
	}
}

// warmVersions of each key are brought into caches: as many as fit there.
const warmVersions = 4

// warm brings what is ahead into the processor's caches, as Prefetch does.
func (c *cursor) warm() {
	var versions [pageItems]*version
	items := c.ahead[:min(len(c.ahead), pageItems)]
	for i, it := range items {
		versions[i] = it.newest.Load()
	}
	for _, it := range items {
		if len(it.key) > 0 {
			c.seen += uint64(it.key[0])
		}
	}
	for _, d := range c.newer {
		c.seen += d.index.warm(items)
	}
	for range warmVersions {
		for i := range items {
			if v := versions[i]; v != nil {
				c.seen += uint64(v.depth)
			}
		}
		for i := range items {
			if v := versions[i]; v != nil {
				c.seen += v.touch(prefetchBytes)
				versions[i] = v.prev
			}
		}
	}
}

const (
	firstWindow   = 2
	largestWindow = 32
)

// warmSome does the same for the newest versions of the next items.
func (c *cursor) warmSome() {
	c.window = min(max(2*c.window, firstWindow), largestWindow)
	var versions [largestWindow]*version
	items := c.ahead[:min(len(c.ahead), c.window)]
	for i, it := range items {
		versions[i] = it.newest.Load()
	}
	for i, it := range items {
		if len(it.key) > 0 {
			c.seen += uint64(it.key[0])
		}
		if v := versions[i]; v != nil {
			c.seen += uint64(v.depth)
		}
	}
	for i := range items {
		if v := versions[i]; v != nil {
			c.seen += v.touch(c.valueBytes)
		}
	}
	c.warmed = len(items)
}

// settle stops at the next item that the span covers and that has a version
// old enough.
func (c *cursor) settle(reverse bool) {
	for len(c.ahead) > 0 || c.more(reverse) {
		if c.warmed == 0 && !c.all {
			c.warmSome()
		}
		next := c.ahead[0]
		c.ahead, c.warmed = c.ahead[1:], c.warmed-1
		if !c.span.covers(next.key) {
			break
		}
		c.item = next
		if c.at = next.at(c.span.at); c.at != nil {
			return
		}
	}
	c.item, c.at, c.ahead = nil, nil, nil
}

// more copies what follows the last item.
func (c *cursor) more(reverse bool) bool {
	if c.item == nil {
		return false
	}
	key := c.item.key
	if !reverse {
		key = append(bytes.Clone(key), 0)
	}
	last := c.item
	c.load(key, reverse)
	c.item = last
	return len(c.ahead) > 0
}
