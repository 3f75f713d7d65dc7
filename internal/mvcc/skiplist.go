package mvcc

import (
	"bytes"
	"sync/atomic"

	"kvstore/internal/keyspace"
)

// A skiplist holds versions ordered by (instance, key ascending, revision
// descending, most recently inserted first). One goroutine inserts; any number
// read without locks.
//
// Nothing is ever changed or removed but the next pointers: an insertion fills
// its own tower first and then publishes the node bottom up, so that a reader
// meets either a complete node or none. A second insertion of the same key and
// revision goes in front of the first one, which readers skip from then on;
// swapping the value in place would need a second allocation per node.
//
// Nodes and towers are cut from slabs, so that an insertion allocates about
// once in slabNodes times, and a dropped delta is freed in few pieces. Keys
// and values are not copied: they are parts of log entries that are in memory
// anyway.
const (
	maxHeight = 14
	// branching is the inverse of the probability that a node reaches one
	// level higher.
	branching = 4
	slabNodes = 512
	// nodeBytes is what a node costs beside its key and value: the node and
	// its towers on average.
	nodeBytes = 112
)

type node struct {
	tower    []atomic.Pointer[node]
	key      []byte
	value    []byte
	instance keyspace.InstanceID
	rev      keyspace.Revision
	del      bool
}

func (n *node) next() *node { return n.tower[0].Load() }

// compare orders n against a position.
func (n *node) compare(inst keyspace.InstanceID, key []byte, rev keyspace.Revision) int {
	if n.instance != inst {
		if n.instance < inst {
			return -1
		}
		return 1
	}
	if c := bytes.Compare(n.key, key); c != 0 {
		return c
	}
	switch {
	case n.rev > rev:
		return -1
	case n.rev < rev:
		return 1
	}
	return 0
}

func (n *node) sameKey(inst keyspace.InstanceID, key []byte) bool {
	return n.instance == inst && bytes.Equal(n.key, key)
}

type skiplist struct {
	head   node
	height atomic.Int32 // levels in use, at least 1

	// The writer's own.
	seed   uint64
	nodes  []node
	towers []atomic.Pointer[node]
}

func newSkiplist() *skiplist {
	l := &skiplist{seed: 0x9e3779b97f4a7c15}
	l.head.tower = make([]atomic.Pointer[node], maxHeight)
	l.height.Store(1)
	return l
}

// insert adds a version. Only the writer calls it.
func (l *skiplist) insert(inst keyspace.InstanceID, key []byte, rev keyspace.Revision, value []byte, del bool) {
	var before [maxHeight]*node
	l.around(inst, key, rev, &before)
	height := l.randomHeight()
	n := l.newNode(height)
	n.instance, n.key, n.rev, n.value, n.del = inst, key, rev, value, del
	for level := range height {
		if before[level] == nil {
			before[level] = &l.head
		}
		n.tower[level].Store(before[level].tower[level].Load())
	}
	for level := range height {
		before[level].tower[level].Store(n)
	}
	if int32(height) > l.height.Load() {
		l.height.Store(int32(height))
	}
}

// seek returns the first node at or after the position, nil at the end.
func (l *skiplist) seek(inst keyspace.InstanceID, key []byte, rev keyspace.Revision) *node {
	_, found := l.around(inst, key, rev, nil)
	return found
}

// seekBefore returns the last node before the position, nil when there is none.
func (l *skiplist) seekBefore(inst keyspace.InstanceID, key []byte, rev keyspace.Revision) *node {
	before, _ := l.around(inst, key, rev, nil)
	if before == &l.head {
		return nil
	}
	return before
}

// around returns the last node before the position (head if none) and the
// first one at or after it. It fills path, unless nil, with the last node before
// the position on each level in use.
func (l *skiplist) around(inst keyspace.InstanceID, key []byte, rev keyspace.Revision, path *[maxHeight]*node) (before, found *node) {
	at := &l.head
	var known *node // the last node found to be at or after the position
	for level := int(l.height.Load()) - 1; level >= 0; level-- {
		for {
			next := at.tower[level].Load()
			if next == nil || next == known {
				break
			}
			if next.compare(inst, key, rev) >= 0 {
				known = next
				break
			}
			at = next
		}
		if path != nil {
			path[level] = at
		}
	}
	return at, known
}

// get returns the newest version of key at or below at, nil when there is
// none.
func (l *skiplist) get(inst keyspace.InstanceID, key []byte, at keyspace.Revision) *node {
	n := l.seek(inst, key, at)
	if n == nil || !n.sameKey(inst, key) {
		return nil
	}
	return n
}

// first returns the first node, nil when the list is empty.
func (l *skiplist) first() *node { return l.head.next() }

// randomHeight draws a tower height. The sequence is the same for every list:
// it balances the list and needs no secret.
func (l *skiplist) randomHeight() int {
	l.seed ^= l.seed << 13
	l.seed ^= l.seed >> 7
	l.seed ^= l.seed << 17
	height := 1
	for bits := l.seed >> 16; height < maxHeight && bits%branching == 0; bits /= branching {
		height++
	}
	return height
}

func (l *skiplist) newNode(height int) *node {
	if len(l.nodes) == 0 {
		l.nodes = make([]node, slabNodes)
	}
	if len(l.towers) < height {
		l.towers = make([]atomic.Pointer[node], slabNodes+slabNodes/2)
	}
	n := &l.nodes[0]
	l.nodes = l.nodes[1:]
	n.tower = l.towers[:height:height]
	l.towers = l.towers[height:]
	return n
}
