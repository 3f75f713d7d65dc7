package sstable

import (
	"bytes"

	"kvstore/internal/keyspace"
)

// Merge walks the versions of several runs within a range in one order: newest
// version per key, or with AllVersions all of them, newest first; a version that
// is in two files comes once. It serves one goroutine.
//
// The iterators are a heap by their positions: a step costs as many comparisons
// as the number of runs has digits, not as many as there are runs.
type Merge struct {
	o    Range
	all  []*Iterator
	heap []*Iterator // those that are at a version
	err  error
	key  []byte // of the position that is being left
	rev  keyspace.Revision
}

func newMerge(files []*file, r Range) *Merge { return &Merge{o: r, all: iterators(files, r)} }

// Version returns the current version, nil at the end, after an error, and before
// the first seek. It stays valid.
func (m *Merge) Version() *Version {
	if m.err != nil || len(m.heap) == 0 {
		return nil
	}
	return m.heap[0].v
}

// Err returns why the walk ended early.
func (m *Merge) Err() error { return m.err }

// SeekForward goes to the first key at or above key.
func (m *Merge) SeekForward(key []byte) {
	m.seek(func(i *Iterator) { i.SeekForward(key) })
}

// SeekBackward goes to the highest key below key, or at it if inclusive. A nil
// key is the end of the instance.
func (m *Merge) SeekBackward(key []byte, inclusive bool) {
	m.seek(func(i *Iterator) { i.SeekBackward(key, inclusive) })
}

func (m *Merge) seek(one func(*Iterator)) {
	m.heap = m.heap[:0]
	for _, i := range m.all {
		one(i)
		m.keep(i)
	}
	for n := len(m.heap)/2 - 1; n >= 0; n-- {
		m.sink(n)
	}
}

// keep puts an iterator at the end of the heap unless it is at its own end.
func (m *Merge) keep(i *Iterator) {
	switch {
	case i.Err() != nil:
		m.err = i.Err()
	case i.v != nil:
		m.heap = append(m.heap, i)
	}
}

// Next goes on by one key, or one version with AllVersions.
func (m *Merge) Next() {
	first := m.heap[0].v
	m.key, m.rev = first.Key, first.Revision
	m.step()
	for len(m.heap) > 0 && m.err == nil && m.left(m.heap[0].v) {
		m.heap[0].passed++
		m.step()
	}
}

// passed tells the files what was passed over in them.
func (m *Merge) passed() {
	for _, i := range m.all {
		if i.passed > 0 {
			i.c.file.passed.Add(i.passed)
			i.passed = 0
		}
	}
}

// left reports whether a version belongs to the position that is being left.
func (m *Merge) left(v *Version) bool {
	return (!m.o.AllVersions || v.Revision == m.rev) && bytes.Equal(v.Key, m.key)
}

// step moves the first iterator on.
func (m *Merge) step() {
	i := m.heap[0]
	i.Next()
	switch {
	case i.Err() != nil:
		m.err = i.Err()
		return
	case i.v == nil:
		last := len(m.heap) - 1
		m.heap[0] = m.heap[last]
		m.heap = m.heap[:last]
	}
	m.sink(0)
}

func (m *Merge) sink(n int) {
	for {
		first := n
		for child := 2*n + 1; child <= 2*n+2 && child < len(m.heap); child++ {
			if m.less(m.heap[child].v, m.heap[first].v) {
				first = child
			}
		}
		if first == n {
			return
		}
		m.heap[n], m.heap[first] = m.heap[first], m.heap[n]
		n = first
	}
}

func (m *Merge) less(a, b *Version) bool {
	c := bytes.Compare(a.Key, b.Key)
	if m.o.Reverse {
		c = -c
	}
	return c < 0 || c == 0 && a.Revision > b.Revision
}
