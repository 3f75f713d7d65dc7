package host

import (
	"bytes"

	"kvstore/internal/mvcc"
)

// merge is a binary heap of scanners with the next key of all on top. No key
// is in two groups.
type merge struct {
	reverse bool
	heap    []*mvcc.Scanner
}

// add takes a scanner on its first position, unless it has none.
func (m *merge) add(it *mvcc.Scanner) error {
	if !it.Valid() {
		return it.Err()
	}
	m.heap = append(m.heap, it)
	for i := len(m.heap) - 1; i > 0; {
		parent := (i - 1) / 2
		if !m.before(i, parent) {
			break
		}
		m.heap[i], m.heap[parent] = m.heap[parent], m.heap[i]
		i = parent
	}
	return nil
}

// next moves on by one key.
func (m *merge) next() error {
	top := m.heap[0]
	top.Next()
	if !top.Valid() {
		if err := top.Err(); err != nil {
			return err
		}
		last := len(m.heap) - 1
		m.heap[0], m.heap[last] = m.heap[last], nil
		m.heap = m.heap[:last]
	}
	for i := 0; ; {
		child := 2*i + 1
		if child >= len(m.heap) {
			return nil
		}
		if child+1 < len(m.heap) && m.before(child+1, child) {
			child++
		}
		if !m.before(child, i) {
			return nil
		}
		m.heap[i], m.heap[child] = m.heap[child], m.heap[i]
		i = child
	}
}

func (m *merge) before(a, b int) bool {
	c := bytes.Compare(m.heap[a].Key(), m.heap[b].Key())
	if m.reverse {
		return c > 0
	}
	return c < 0
}
