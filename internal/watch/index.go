package watch

import "sort"

// index finds the watches of a key without looking at the others: those of keys
// in a hash table, those of prefixes in one that is asked once for every length
// that a watched prefix has, those of ranges in an interval tree.
//
// A radix tree would find all prefixes of a key in one walk. It costs more memory
// per watch and a pointer per step; prefixes that are watched have few different
// lengths.
type index struct {
	keys     map[string]*watches
	prefixes map[string]*watches
	// lengths are those of the prefixes, ascending, with how many have each.
	lengths []prefixLength
	ranges  intervals
	count   int
}

type prefixLength struct{ bytes, prefixes int }

// watches share a key or prefix. Each knows its place in the list.
type watches struct{ list []*watch }

func (l *watches) add(w *watch) {
	w.place = len(l.list)
	l.list = append(l.list, w)
}

// remove takes w out and reports whether the list is empty.
func (l *watches) remove(w *watch) bool {
	last := len(l.list) - 1
	l.list[w.place] = l.list[last]
	l.list[w.place].place = w.place
	l.list[last] = nil
	l.list = l.list[:last]
	return last == 0
}

func newIndex() *index {
	return &index{keys: make(map[string]*watches), prefixes: make(map[string]*watches)}
}

func (x *index) add(w *watch) {
	x.count++
	switch p := w.pattern; p.kind {
	case oneKey:
		addTo(x.keys, p.lower, w)
	case allWithPrefix:
		if addTo(x.prefixes, p.lower, w) {
			x.changeLength(len(p.lower), 1)
		}
	case inRange:
		x.ranges.add(w)
	}
}

// addTo reports whether w is the first of its key or prefix.
func addTo(m map[string]*watches, at string, w *watch) (first bool) {
	l := m[at]
	if l == nil {
		l, first = new(watches), true
		m[at] = l
	}
	l.add(w)
	return first
}

func (x *index) remove(w *watch) {
	x.count--
	switch p := w.pattern; p.kind {
	case oneKey:
		if x.keys[p.lower].remove(w) {
			delete(x.keys, p.lower)
		}
	case allWithPrefix:
		if x.prefixes[p.lower].remove(w) {
			delete(x.prefixes, p.lower)
			x.changeLength(len(p.lower), -1)
		}
	case inRange:
		x.ranges.remove(w)
	}
}

func (x *index) changeLength(bytes, by int) {
	i := sort.Search(len(x.lengths), func(i int) bool { return x.lengths[i].bytes >= bytes })
	if i == len(x.lengths) || x.lengths[i].bytes != bytes {
		x.lengths = append(x.lengths, prefixLength{})
		copy(x.lengths[i+1:], x.lengths[i:])
		x.lengths[i] = prefixLength{bytes: bytes}
	}
	if x.lengths[i].prefixes += by; x.lengths[i].prefixes == 0 {
		x.lengths = append(x.lengths[:i], x.lengths[i+1:]...)
	}
}

// match calls each with the watches of a disk key.
func (x *index) match(key []byte, each func(*watch)) {
	if l := x.keys[string(key)]; l != nil {
		for _, w := range l.list {
			each(w)
		}
	}
	for _, n := range x.lengths {
		if n.bytes > len(key) {
			break
		}
		if l := x.prefixes[string(key[:n.bytes])]; l != nil {
			for _, w := range l.list {
				each(w)
			}
		}
	}
	x.ranges.match(key, each)
}

// each calls f with all watches of keys and prefixes.
func (x *index) each(f func(*watch)) {
	for _, m := range []map[string]*watches{x.keys, x.prefixes} {
		for _, l := range m {
			for _, w := range l.list {
				f(w)
			}
		}
	}
}
