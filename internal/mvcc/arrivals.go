package mvcc

import (
	"bytes"
	"cmp"
	"slices"

	"kvstore/internal/keyspace"
)

// arrivals are items in the order in which they came, with their heads. Putting all of
// them in order when somebody wants that costs a fraction of finding a place for each
// one: a sort goes over contiguous memory, a search over pages that are in no cache.
type arrivals struct {
	pieces []piece
	count  int
}

// piece is some items in a row. Heads begin behind what those share: a key that shares
// less with the others makes work for its piece only.
type piece struct {
	prefix
	items []headed
}

const (
	// arrivalsPiece is how many items a piece has before there is another one,
	// firstArrivals how many the first one has room for at the beginning.
	arrivalsPiece = 512
	firstArrivals = 8
)

// headed is an item with its head.
type headed struct {
	head uint64
	item *item
}

func (a *arrivals) add(it *item) {
	if a.count%arrivalsPiece == 0 {
		room := arrivalsPiece
		if a.count == 0 {
			room = firstArrivals
		}
		a.pieces = append(a.pieces, piece{items: make([]headed, 0, room)})
	}
	a.pieces[len(a.pieces)-1].add(it)
	a.count++
}

func (p *piece) add(it *item) {
	if len(p.items) == 0 {
		p.share(it.key)
	} else if p.narrow(it.key) {
		renew(p.items, p.skip)
	}
	p.items = append(p.items, headed{keyspace.Head(it.key, p.skip), it})
}

// renew makes heads begin at skip.
func renew(items []headed, skip int) {
	for i := range items {
		items[i].head = keyspace.Head(items[i].item.key, skip)
	}
}

// copyTo copies all items to dst, and what each piece's share.
func (a *arrivals) copyTo(dst []headed) (all []headed, shared []prefix) {
	shared = make([]prefix, len(a.pieces))
	for i := range a.pieces {
		dst, shared[i] = append(dst, a.pieces[i].items...), a.pieces[i].prefix
	}
	return dst, shared
}

// level makes all heads of such a copy begin behind what all keys share.
func level(all []headed, shared []prefix) (of prefix) {
	of = shared[0]
	for i := range shared {
		of.narrow(shared[i].shared())
	}
	for i := range shared {
		if shared[i].skip != of.skip {
			renew(all[i*arrivalsPiece:min(len(all), (i+1)*arrivalsPiece)], of.skip)
		}
	}
	return of
}

// since calls f for all items but the first n.
func (a *arrivals) since(n int, f func(*item)) {
	for ; n < a.count; n++ {
		f(a.pieces[n/arrivalsPiece].items[n%arrivalsPiece].item)
	}
}

// manyHeads is from how many items on going over all of them once for each byte of
// their heads costs less than comparing them.
const manyHeads = 512

// sortByHeads sorts many items by each byte of their heads, the last one first, which
// keeps the order of the bytes behind it (radix sort). A byte that all have alike is
// passed over.
func sortByHeads(all []headed) {
	if len(all) < manyHeads {
		slices.SortFunc(all, func(a, b headed) int { return cmp.Compare(a.head, b.head) })
		return
	}
	var places [8][256]uint32 // of each byte, how many items have a value, then where they begin
	for i := range all {
		head := all[i].head
		for n := range places {
			places[n][byte(head>>(8*n))]++
		}
	}
	from, to := all, make([]headed, len(all))
	for n := range places {
		place, shift := &places[n], 8*n
		if place[byte(all[0].head>>shift)] == uint32(len(all)) {
			continue
		}
		begin := uint32(0)
		for value, count := range place {
			place[value] = begin
			begin += count
		}
		for _, h := range from {
			at := &place[byte(h.head>>shift)]
			to[*at] = h
			*at++
		}
		from, to = to, from
	}
	if &from[0] != &all[0] {
		copy(all, from)
	}
}

// fewAlike is how many items with equal heads are compared by their keys.
const fewAlike = 8

// sortHeaded sorts items of different keys; heads begin at skip.
func sortHeaded(all []headed, skip int) {
	sortByHeads(all)
	for begin, end := 0, 0; begin < len(all); begin = end {
		for end = begin + 1; end < len(all) && all[end].head == all[begin].head; end++ {
		}
		if end > begin+1 {
			sortAlike(all[begin:end], skip)
		}
	}
}

// sortAlike sorts items with equal heads: many by heads that begin where their keys
// part, so that few comparisons go to the keys themselves.
func sortAlike(all []headed, skip int) {
	deeper := len(all[0].item.key)
	if len(all) > fewAlike {
		for _, h := range all[1:] {
			deeper = keyspace.CommonPrefix(all[0].item.key[:deeper], h.item.key)
		}
	}
	if len(all) <= fewAlike || deeper <= skip { // a head does not tell an end from a zero
		slices.SortFunc(all, func(a, b headed) int { return bytes.Compare(a.item.key, b.item.key) })
		return
	}
	head := all[0].head
	for i := range all {
		all[i].head = keyspace.Head(all[i].item.key, deeper)
	}
	sortHeaded(all, deeper)
	for i := range all {
		all[i].head = head
	}
}

// arrangedItems is how many items a page has that is made of arrivals: more may come.
const arrangedItems = pageItems * 3 / 4

// pagesOf makes pages of items in order, whose heads begin behind shared.
func pagesOf(all []headed, shared *prefix) (first sorted, pages []*page) {
	for some := range slices.Chunk(all, arrangedItems) {
		p := newPage()
		p.prefix = *shared
		alike := false
		for i, h := range some {
			p.heads, p.items = append(p.heads, h.head), append(p.items, h.item)
			alike = alike || i > 0 && h.head == some[i-1].head
		}
		if alike {
			p.reshare()
		}
		first.insert(len(pages), p.items[0])
		pages = append(pages, p)
	}
	return first, pages
}
