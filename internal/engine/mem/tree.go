package mem

import (
	"bytes"

	"github.com/zeebo/xxh3"

	"kvstore/internal/keyspace"
)

// tree is an immutable treap of versions ordered by (key ascending, revision
// descending): every change returns a new tree that shares what it did not
// touch, so a reader's snapshot is a root. Priorities are hashes of the
// position, so one content has one shape, whatever the order of changes.
type tree struct {
	left, right *tree
	priority    uint64
	version
}

type version struct {
	key    []byte
	rev    keyspace.Revision
	value  []byte
	delete bool
}

// compare orders v against a position.
func (v *version) compare(key []byte, rev keyspace.Revision) int {
	if c := bytes.Compare(v.key, key); c != 0 {
		return c
	}
	switch {
	case v.rev > rev:
		return -1
	case v.rev < rev:
		return 1
	}
	return 0
}

func (t *tree) with(left, right *tree) *tree {
	c := *t
	c.left, c.right = left, right
	return &c
}

// insert returns t with v, which replaces the same key and revision.
func (t *tree) insert(v version) *tree {
	return t.insertNode(&tree{priority: xxh3.HashSeed(v.key, uint64(v.rev)), version: v})
}

func (t *tree) insertNode(n *tree) *tree {
	switch {
	case t == nil:
		return n
	case n.priority > t.priority:
		// n's position is not in t: it would have n's priority there.
		n.left, n.right = t.split(n.key, n.rev)
		return n
	}
	switch c := t.compare(n.key, n.rev); {
	case c < 0:
		return t.with(t.left, t.right.insertNode(n))
	case c > 0:
		return t.with(t.left.insertNode(n), t.right)
	}
	n.left, n.right = t.left, t.right
	return n
}

// remove returns t without a version.
func (t *tree) remove(key []byte, rev keyspace.Revision) *tree {
	if t == nil {
		return nil
	}
	switch c := t.compare(key, rev); {
	case c < 0:
		return t.with(t.left, t.right.remove(key, rev))
	case c > 0:
		return t.with(t.left.remove(key, rev), t.right)
	}
	return merge(t.left, t.right)
}

// split parts t into what is before the position and the rest.
func (t *tree) split(key []byte, rev keyspace.Revision) (before, rest *tree) {
	if t == nil {
		return nil, nil
	}
	if t.compare(key, rev) < 0 {
		inner, rest := t.right.split(key, rev)
		return t.with(t.left, inner), rest
	}
	before, inner := t.left.split(key, rev)
	return before, t.with(inner, t.right)
}

// merge joins two trees, all of a before all of b.
func merge(a, b *tree) *tree {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		return a.with(a.left, merge(a.right, b))
	}
	return b.with(merge(a, b.left), b.right)
}

// seek returns the first version at or after the position, nil at the end.
func (t *tree) seek(key []byte, rev keyspace.Revision) *version {
	var found *version
	for t != nil {
		if t.compare(key, rev) < 0 {
			t = t.right
			continue
		}
		found, t = &t.version, t.left
	}
	return found
}

// seekBefore returns the last version before the position, nil when there is
// none.
func (t *tree) seekBefore(key []byte, rev keyspace.Revision) *version {
	var found *version
	for t != nil {
		if t.compare(key, rev) >= 0 {
			t = t.left
			continue
		}
		found, t = &t.version, t.right
	}
	return found
}

// last returns the last version, nil when there is none.
func (t *tree) last() *version {
	if t == nil {
		return nil
	}
	for t.right != nil {
		t = t.right
	}
	return &t.version
}
