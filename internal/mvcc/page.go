package mvcc

import (
	"bytes"
	"cmp"
	"slices"

	"kvstore/internal/keyspace"
)

// pageItems bounds a page, and what is copied under the lock.
const pageItems = 128

// page is a page of an order. Its last fresh items are in the order in which they
// came, all before them in that of their keys: putting each in its place would look
// for it, and move half a page, in memory that is in no cache.
type page struct {
	sorted
	fresh int
}

func newPage() *page {
	return &page{sorted: sorted{heads: make([]uint64, 0, pageItems), items: make([]*item, 0, pageItems)}}
}

// add puts an item at the end, for which there must be room.
func (p *page) add(it *item) {
	p.admit(it)
	head := keyspace.Head(it.key, p.skip)
	if n := len(p.heads); p.fresh > 0 || n > 0 && p.heads[n-1] >= head {
		p.fresh++
	}
	p.heads, p.items = append(p.heads, head), append(p.items, it)
}

// settle puts all items in order.
func (p *page) settle() {
	var fresh [pageItems]headed
	n, old := p.fresh, len(p.items)-p.fresh
	for i := range n {
		fresh[i] = headed{p.heads[old+i], p.items[old+i]}
	}
	slices.SortFunc(fresh[:n], headed.compare)
	for end := len(p.items) - 1; n > 0; end-- { // the highest that is left goes to the end
		if last := (headed{}); old > 0 {
			last = headed{p.heads[old-1], p.items[old-1]}
			if last.compare(fresh[n-1]) > 0 {
				p.heads[end], p.items[end] = last.head, last.item
				old--
				continue
			}
		}
		n--
		p.heads[end], p.items[end] = fresh[n].head, fresh[n].item
	}
	p.fresh = 0
}

func (h headed) compare(other headed) int {
	if c := cmp.Compare(h.head, other.head); c != 0 {
		return c
	}
	return bytes.Compare(h.item.key, other.item.key)
}

// split moves the upper half of a settled page into a new one. A page that grows at
// its end keeps nearly all: keys in ascending order fill their pages.
func (p *page) split(ascending bool) *page {
	half := len(p.items) / 2
	if ascending {
		half = len(p.items) - 1
	}
	upper := newPage()
	upper.items = append(upper.items, p.items[half:]...)
	upper.heads = upper.heads[:len(upper.items)]
	clear(p.items[half:])
	p.items, p.heads = p.items[:half], p.heads[:half]
	p.reshare()
	upper.reshare()
	return upper
}

// reshare finds out anew what the keys of a settled page share.
func (p *page) reshare() {
	first, last := p.items[0].key, p.items[len(p.items)-1].key
	p.share(first[:keyspace.CommonPrefix(first, last)])
	p.renew()
}
