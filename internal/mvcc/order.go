package mvcc

import (
	"bytes"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"kvstore/internal/keyspace"
)

// order keeps the items of one instance sorted by key. One goroutine inserts,
// any number read.
//
// It is a B+tree of two levels: pages of items, and a directory of the pages'
// first keys. A page that is full becomes two; the directory is one array, and
// making room in it is a copy of a few kilobytes once per half page. Keys of a
// page share what their first and last one share, so each array holds, beside
// the items, the eight bytes behind that common part: a search compares
// integers in contiguous memory and looks at a key only between equals.
//
// Readers copy items out under the lock, a page at most, and walk the copy.
// Nothing is ever removed and a copy lacks only what was inserted after it, so
// a walk goes on behind the last item of a copy by searching again. A skip list
// needs no lock and cost several times as much per insertion: two cache misses
// per step, and twenty steps.
type order struct {
	mu    sync.RWMutex
	first sorted    // the first item of each page when it was made
	pages []*sorted // parallel to first; page 0 also holds what is below it
	// newest is the highest revision of all versions; the writer's, and a
	// flush's once the delta is sealed.
	newest keyspace.Revision
	// bytes of keys and values of all versions; only the writer stores it.
	bytes atomic.Int64
}

// pageItems bounds a page, and what is copied under the lock.
const pageItems = 128

// sorted is an array of items in order with the discriminating bytes of their
// keys.
type sorted struct {
	skip  int // bytes that all keys share
	heads []uint64
	items []*item
}

func newPage() *sorted {
	return &sorted{heads: make([]uint64, 0, pageItems), items: make([]*item, 0, pageItems)}
}

// headOf is the eight bytes of key from skip on, filled up with zeros.
func headOf(key []byte, skip int) uint64 {
	if len(key) >= skip+8 {
		return binary.BigEndian.Uint64(key[skip:])
	}
	var b [8]byte
	if skip < len(key) {
		copy(b[:], key[skip:])
	}
	return binary.BigEndian.Uint64(b[:])
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// search returns the number of items below key.
func (s *sorted) search(key []byte) int {
	if len(s.items) == 0 {
		return 0
	}
	if s.skip > 0 {
		switch shared := s.items[0].key[:s.skip]; {
		case len(key) < s.skip || !bytes.Equal(key[:s.skip], shared):
			if bytes.Compare(key, shared) < 0 {
				return 0
			}
			return len(s.items)
		}
	}
	head := headOf(key, s.skip)
	low, high := 0, len(s.heads)
	for low < high {
		mid := int(uint(low+high) >> 1)
		if s.heads[mid] < head || s.heads[mid] == head && bytes.Compare(s.items[mid].key, key) < 0 {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return low
}

// insert puts it at position i, which search gave.
func (s *sorted) insert(i int, it *item) {
	if len(s.items) == 0 {
		s.skip = len(it.key)
	} else if shared := commonPrefix(s.items[0].key, it.key); shared < s.skip {
		s.reduce(shared)
	}
	s.heads = append(s.heads, 0)
	copy(s.heads[i+1:], s.heads[i:])
	s.heads[i] = headOf(it.key, s.skip)
	s.items = append(s.items, nil)
	copy(s.items[i+1:], s.items[i:])
	s.items[i] = it
}

// reduce takes a shorter common part.
func (s *sorted) reduce(skip int) {
	s.skip = skip
	for i, it := range s.items {
		s.heads[i] = headOf(it.key, skip)
	}
}

// split moves the upper half into a new page. A page that grows at its end
// keeps nearly all: keys in ascending order fill their pages.
func (s *sorted) split(ascending bool) *sorted {
	half := len(s.items) / 2
	if ascending {
		half = len(s.items) - 1
	}
	upper := newPage()
	upper.items = append(upper.items, s.items[half:]...)
	upper.heads = upper.heads[:len(upper.items)]
	clear(s.items[half:])
	s.items, s.heads = s.items[:half], s.heads[:half]
	for _, p := range []*sorted{s, upper} {
		p.reduce(commonPrefix(p.items[0].key, p.items[len(p.items)-1].key))
	}
	return upper
}

// page returns the position of the page that key belongs to.
func (o *order) page(key []byte) int {
	i := o.first.search(key)
	if i < len(o.pages) && i > 0 && bytes.Equal(o.first.items[i].key, key) {
		return i
	}
	return max(0, i-1)
}

// insert adds an item that is not there. Only the writer calls it.
func (o *order) insert(it *item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.pages) == 0 {
		o.addPage(0, newPage(), it)
	}
	n := o.page(it.key)
	p := o.pages[n]
	i := p.search(it.key)
	if len(p.items) == pageItems {
		upper := p.split(i == len(p.items))
		o.addPage(n+1, upper, upper.items[0])
		if low := len(p.items); i > low {
			p, i = upper, i-low
		}
	}
	p.insert(i, it)
}

func (o *order) addPage(n int, p *sorted, first *item) {
	o.first.insert(n, first)
	o.pages = append(o.pages, nil)
	copy(o.pages[n+1:], o.pages[n:])
	o.pages[n] = p
}

// from appends to dst the items at or above key, to the end of their page.
// None are appended only at the end of all.
func (o *order) from(dst []*item, key []byte) []*item {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if len(o.pages) == 0 {
		return dst
	}
	n := o.page(key)
	p := o.pages[n]
	i := p.search(key)
	if i == len(p.items) && n+1 < len(o.pages) {
		p, i = o.pages[n+1], 0
	}
	return append(dst, p.items[i:]...)
}

// before appends to dst the items below key, highest first, to the start of
// their page; a nil key is the end of all.
func (o *order) before(dst []*item, key []byte) []*item {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if len(o.pages) == 0 {
		return dst
	}
	n := len(o.pages) - 1
	i := len(o.pages[n].items)
	if key != nil {
		n = o.page(key)
		i = o.pages[n].search(key)
	}
	if i == 0 && n > 0 {
		n--
		i = len(o.pages[n].items)
	}
	for i--; i >= 0; i-- {
		dst = append(dst, o.pages[n].items[i])
	}
	return dst
}
