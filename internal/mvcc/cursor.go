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

func (s *span) covers(n *node) bool {
	return n != nil && n.instance == s.instance &&
		bytes.Compare(n.key, s.lower) >= 0 && (s.upper == nil || bytes.Compare(n.key, s.upper) < 0)
}

// cursor walks the versions of one delta that a scan may return; at is nil at
// the end. How it walks depends on the mode: newest per key forward, newest
// per key backward, or all versions forward.
type cursor struct {
	list *skiplist
	span *span
	at   *node
}

// Forward, newest version at or below span.at per key.

func (c *cursor) seekForward(key []byte) {
	c.settleForward(c.list.seek(c.span.instance, key, keyspace.MaxRevision))
}

func (c *cursor) nextForward() {
	c.settleForward(c.afterKey(c.at))
}

// afterKey returns the first node of a higher key than n's. It walks a few
// versions and then searches.
func (c *cursor) afterKey(n *node) *node {
	const walk = 4
	next := n
	for range walk {
		next = next.next()
		if next == nil || !next.sameKey(n.instance, n.key) {
			return next
		}
	}
	// Revision 0 is below every version, so this is the first node of the next
	// key; nothing is ever stored at it.
	return c.list.seek(n.instance, n.key, 0)
}

// settleForward moves on from n, the first node of a key, to a version that is
// old enough.
func (c *cursor) settleForward(n *node) {
	c.at = nil
	for c.span.covers(n) {
		if n.rev <= c.span.at {
			c.at = n
			return
		}
		first := n
		n = c.list.seek(first.instance, first.key, c.span.at)
		if n != nil && n.sameKey(first.instance, first.key) {
			c.at = n
			return
		}
	}
}

// Backward, newest version at or below span.at per key.

// seekBackward goes to the highest key below key, or at it if inclusive. A nil
// key is the end of the instance.
func (c *cursor) seekBackward(key []byte, inclusive bool) {
	switch {
	case key == nil && c.span.instance == ^keyspace.InstanceID(0):
		// No instance is numbered so high that nothing could follow it.
		panic("mvcc: instance id out of range")
	case key == nil:
		c.settleBackward(c.list.seekBefore(c.span.instance+1, nil, keyspace.MaxRevision))
	case inclusive:
		c.settleBackward(c.list.seekBefore(c.span.instance, key, 0))
	default:
		c.settleBackward(c.list.seekBefore(c.span.instance, key, keyspace.MaxRevision))
	}
}

func (c *cursor) nextBackward() {
	c.settleBackward(c.list.seekBefore(c.at.instance, c.at.key, keyspace.MaxRevision))
}

// settleBackward moves on from n, the oldest version of a key.
func (c *cursor) settleBackward(n *node) {
	c.at = nil
	for c.span.covers(n) {
		newest := c.list.seek(n.instance, n.key, c.span.at)
		if newest != nil && newest.sameKey(n.instance, n.key) {
			c.at = newest
			return
		}
		n = c.list.seekBefore(n.instance, n.key, keyspace.MaxRevision)
	}
}

// Forward, all versions at or below span.at.

func (c *cursor) seekVersions(key []byte) {
	c.settleVersions(c.list.seek(c.span.instance, key, keyspace.MaxRevision))
}

// nextVersion leaves out versions that were replaced by a later insertion of
// the same key and revision.
func (c *cursor) nextVersion() {
	n := c.at.next()
	for n != nil && n.rev == c.at.rev && n.sameKey(c.at.instance, c.at.key) {
		n = n.next()
	}
	c.settleVersions(n)
}

func (c *cursor) settleVersions(n *node) {
	for c.span.covers(n) && n.rev > c.span.at {
		n = n.next()
	}
	c.at = nil
	if c.span.covers(n) {
		c.at = n
	}
}
