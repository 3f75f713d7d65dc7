package mvcc

import (
	"bytes"
	"slices"
	"sync"
	"sync/atomic"

	"kvstore/internal/keyspace"
)

// order keeps the items of one instance sorted by key. One goroutine inserts,
// any number read.
//
// Keys of one kind and namespace are a part of it. Most parts are read once, when all
// of a delta is flushed: so until its first reader a part has its items as they came,
// and that reader sorts them, beside the writer, who waits only while they are copied and
// while what came meanwhile is put among them.
//
// From then on the part is a B+tree of two levels:
// pages of items, and a directory of the pages' first keys. A page that is full
// becomes two; the directory is one array, and making room in it is a copy of a few
// kilobytes once per half page. What comes to a page waits at its end until somebody
// reads it or it is full; then all of it is put in order. Keys of a page share what
// their first and last one share, so each array holds, beside the items, the eight
// bytes behind that common part: a search compares
// integers in contiguous memory and looks at a key only between equals. Parts are
// what makes that so for the directory too: keys of two namespaces share nothing,
// and eight bytes from the start tell no two keys of one of them apart.
//
// Readers copy items out under the lock, a page at most, and walk the copy.
// Nothing is ever removed and a copy lacks only what was inserted after it, so
// a walk goes on behind the last item of a copy by searching again. A skip list
// needs no lock and cost several times as much per insertion: two cache misses
// per step, and twenty steps.
type order struct {
	mu    sync.RWMutex
	parts []*part // in order of their classes
	// arranging is held by who sorts a part.
	arranging sync.Mutex
	// newest is the highest revision of all versions; the writer's, and a
	// flush's once the delta is sealed.
	newest keyspace.Revision
	// bytes of keys and values of all versions; only the writer stores it.
	bytes atomic.Int64
}

// part has the keys that begin with class and are all of it.
type part struct {
	class []byte
	// arrived are its items until somebody reads it; then they are on pages.
	arrived arrivals
	read    bool
	first   sorted  // the first item of each page when it was made
	pages   []*page // parallel to first; page 0 also holds what is below it
}

// prefix is what keys share.
type prefix struct {
	skip   int // bytes of it
	common [maxSkip]byte
}

// maxSkip bounds the part that keys share, as far as it is looked at.
const maxSkip = 56

// shared is what all keys begin with.
func (p *prefix) shared() []byte { return p.common[:p.skip] }

// share takes what key and others like it begin with.
func (p *prefix) share(key []byte) { p.skip = copy(p.common[:], key) }

// narrow leaves what key begins with too, and reports whether that is less.
func (p *prefix) narrow(key []byte) bool {
	n := keyspace.CommonPrefix(p.shared(), key)
	less := n < p.skip
	p.skip = n
	return less
}

// sorted is an array of items in order with the discriminating bytes of their
// keys. A search touches the memory of no key unless two of them are equal in those.
type sorted struct {
	prefix
	heads []uint64
	items []*item
}

// search returns the number of items below key.
func (s *sorted) search(key []byte) int {
	if len(s.items) == 0 {
		return 0
	}
	if shared := s.shared(); !bytes.HasPrefix(key, shared) {
		if bytes.Compare(key, shared) < 0 {
			return 0
		}
		return len(s.items)
	}
	head := keyspace.Head(key, s.skip)
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
	s.admit(it)
	s.heads = append(s.heads, 0)
	copy(s.heads[i+1:], s.heads[i:])
	s.heads[i] = keyspace.Head(it.key, s.skip)
	s.items = append(s.items, nil)
	copy(s.items[i+1:], s.items[i:])
	s.items[i] = it
}

// admit makes what all keys share what it shares too.
func (s *sorted) admit(it *item) {
	if len(s.items) == 0 {
		s.share(it.key)
	} else if s.narrow(it.key) {
		s.renew()
	}
}

// renew makes the heads fit what is shared.
func (s *sorted) renew() {
	for i, it := range s.items {
		s.heads[i] = keyspace.Head(it.key, s.skip)
	}
}

// insert adds items that are not there. Only the writer calls it.
func (o *order) insert(items ...*item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, it := range items {
		if p := o.part(it.key); p.read {
			p.insert(it)
		} else {
			p.arrived.add(it)
		}
	}
}

// arrange puts the items of a part in order that nobody has read. What comes
// meanwhile is inserted among them.
func (o *order) arrange(p *part) {
	if count, read := o.arrivedIn(p); count == 0 || read {
		return
	}
	o.arranging.Lock()
	defer o.arranging.Unlock()
	count, read := o.arrivedIn(p)
	if read {
		return
	}
	all := make([]headed, 0, count+arrivalsPiece) // not while the writer waits
	o.mu.RLock()
	all, parts := p.arrived.copyTo(all)
	o.mu.RUnlock()
	shared := level(all, parts)
	sortHeaded(all, shared.skip)
	first, pages := pagesOf(all, &shared)
	o.mu.Lock()
	defer o.mu.Unlock()
	p.first, p.pages, p.read = first, pages, true
	p.arrived.since(len(all), p.insert)
	p.arrived = arrivals{}
}

// part returns the part of a key, a new one if there is none.
func (o *order) part(key []byte) *part {
	class := key[:keyspace.ClassBytes(key)]
	i, found := slices.BinarySearchFunc(o.parts, class, func(p *part, class []byte) int { return bytes.Compare(p.class, class) })
	if !found {
		o.parts = slices.Insert(o.parts, i, &part{class: class})
	}
	return o.parts[i]
}

// arrivedIn counts the items of a part that nobody has read.
func (o *order) arrivedIn(p *part) (count int, read bool) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	return p.arrived.count, p.read
}

// from appends to dst the items at or above key, to the end of their page.
// None are appended only at the end of all, or when what follows is at or above upper,
// unless that is nil.
func (o *order) from(dst []*item, key, upper []byte) []*item {
	return o.read(func(settle bool) ([]*item, *part) { return o.walk(dst, key, upper, settle) })
}

// before appends to dst the items below key, highest first, to the start of
// their page; a nil key is the end of all. None are appended only at the start of all,
// or when what comes before is below lower.
func (o *order) before(dst []*item, key, lower []byte) []*item {
	return o.read(func(settle bool) ([]*item, *part) { return o.walkBack(dst, key, lower, settle) })
}

// read reads beside others. A part that nobody has read yet is arranged, and what is
// met of a page that is not settled is read again, alone. walk returns the part that
// it met in such a state.
func (o *order) read(walk func(settle bool) ([]*item, *part)) []*item {
	for {
		o.mu.RLock()
		items, met := walk(false)
		o.mu.RUnlock()
		if met == nil {
			return items
		}
		o.arrange(met)
		o.mu.Lock()
		items, met = walk(true)
		o.mu.Unlock()
		if met == nil {
			return items
		}
	}
}

func (o *order) walk(dst []*item, key, upper []byte, settle bool) (items []*item, met *part) {
	for _, p := range o.parts {
		within := bytes.HasPrefix(key, p.class)
		if !within && bytes.Compare(key, p.class) > 0 {
			continue
		}
		if upper != nil && bytes.Compare(p.class, upper) >= 0 {
			break
		}
		n := len(dst)
		if !within {
			key = nil // all of the part is above it
		}
		var ok bool
		if dst, ok = p.from(dst, key, settle); !ok {
			return dst[:n], p
		} else if len(dst) > n {
			return dst, nil
		}
	}
	return dst, nil
}

func (o *order) walkBack(dst []*item, key, lower []byte, settle bool) (items []*item, met *part) {
	for _, p := range slices.Backward(o.parts) {
		if bytes.Compare(p.class, lower) < 0 && !bytes.HasPrefix(lower, p.class) {
			break // all of it is below
		}
		if key != nil && bytes.Equal(key, p.class) {
			continue
		}
		end := key
		if key != nil && !bytes.HasPrefix(key, p.class) {
			if bytes.Compare(key, p.class) < 0 {
				continue
			}
			end = nil
		}
		n := len(dst)
		var ok bool
		if dst, ok = p.before(dst, end, settle); !ok {
			return dst[:n], p
		} else if len(dst) > n {
			return dst, nil
		}
	}
	return dst, nil
}

// page returns the position of the page that key belongs to.
func (p *part) page(key []byte) int {
	i, f := p.first.search(key), &p.first
	if i < len(p.pages) && i > 0 && f.heads[i] == keyspace.Head(key, f.skip) && bytes.Equal(f.items[i].key, key) {
		return i
	}
	return max(0, i-1)
}

func (p *part) insert(it *item) {
	if len(p.pages) == 0 {
		p.addPage(0, newPage(), it)
	}
	n := p.page(it.key)
	page := p.pages[n]
	if len(page.items) == pageItems {
		page.settle()
		upper := page.split(page.search(it.key) == len(page.items))
		first := upper.items[0]
		p.addPage(n+1, upper, first)
		if bytes.Compare(it.key, first.key) > 0 {
			page = upper
		}
	}
	page.add(it)
}

func (p *part) addPage(n int, page *page, first *item) {
	p.first.insert(n, first)
	p.pages = slices.Insert(p.pages, n, page)
}

// settled returns a page whose items are in order; ok is false when they are not and
// it must not be changed.
func (p *part) settled(n int, settle bool) (items *page, ok bool) {
	page := p.pages[n]
	if page.fresh > 0 && settle {
		page.settle()
	}
	return page, page.fresh == 0
}

// from is that of the order; none are appended at the end of the part. ok is false when
// the part must be arranged first or a page settled.
func (p *part) from(dst []*item, key []byte, settle bool) (items []*item, ok bool) {
	if !p.read {
		return dst, false
	}
	n := p.page(key)
	page, ok := p.settled(n, settle)
	if !ok {
		return dst, false
	}
	i := page.search(key)
	if i == len(page.items) && n+1 < len(p.pages) {
		if page, ok = p.settled(n+1, settle); !ok {
			return dst, false
		}
		i = 0
	}
	return append(dst, page.items[i:]...), true
}

// before is that of the order; none are appended at the start of the part. ok is as
// from's.
func (p *part) before(dst []*item, key []byte, settle bool) (items []*item, ok bool) {
	if !p.read {
		return dst, false
	}
	n := len(p.pages) - 1
	if key != nil {
		n = p.page(key)
	}
	page, ok := p.settled(n, settle)
	if !ok {
		return dst, false
	}
	i := len(page.items)
	if key != nil {
		i = page.search(key)
	}
	if i == 0 && n > 0 {
		if page, ok = p.settled(n-1, settle); !ok {
			return dst, false
		}
		i = len(page.items)
	}
	for i--; i >= 0; i-- {
		dst = append(dst, page.items[i])
	}
	return dst, true
}
