package watch

import "strings"

// intervals finds the ranges that hold a key: a treap in the order of lower
// bounds, where every node knows the highest upper bound below it, so that whole
// branches that end before the key are left out. Priorities are hashes of
// addresses' stand-ins, the order of arrival, which nobody chooses.
type intervals struct {
	root *interval
	next uint64
}

type interval struct {
	w           *watch
	seq         uint64 // order of arrival, tells equal bounds apart
	priority    uint64
	highest     string // of the upper bounds in this branch; "" is above all
	left, right *interval
}

func (t *intervals) add(w *watch) {
	t.next++
	w.place = int(t.next)
	n := &interval{w: w, seq: t.next, priority: scramble(t.next)}
	n.settle()
	t.root = t.root.insert(n)
}

// scramble is the finalizer of splitmix64.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (t *intervals) remove(w *watch) { t.root = t.root.without(w.pattern.lower, uint64(w.place)) }

func (t *intervals) match(key []byte, each func(*watch)) {
	if t.root != nil {
		t.root.match(string(key), each)
	}
}

// before is the tree's order.
func (n *interval) before(lower string, seq uint64) bool {
	if c := strings.Compare(n.w.pattern.lower, lower); c != 0 {
		return c < 0
	}
	return n.seq < seq
}

// settle computes highest from the children.
func (n *interval) settle() {
	n.highest = n.w.pattern.upper
	for _, c := range []*interval{n.left, n.right} {
		if c != nil && endsLater(c.highest, n.highest) {
			n.highest = c.highest
		}
	}
}

func endsLater(a, b string) bool { return b != "" && (a == "" || a > b) }

func (n *interval) insert(added *interval) *interval {
	switch {
	case n == nil:
		return added
	case added.priority > n.priority:
		added.left, added.right = n.split(added.w.pattern.lower, added.seq)
		added.settle()
		return added
	case n.before(added.w.pattern.lower, added.seq):
		n.right = n.right.insert(added)
	default:
		n.left = n.left.insert(added)
	}
	n.settle()
	return n
}

// split parts a branch into what is before a bound and the rest.
func (n *interval) split(lower string, seq uint64) (left, right *interval) {
	if n == nil {
		return nil, nil
	}
	if n.before(lower, seq) {
		n.right, right = n.right.split(lower, seq)
		n.settle()
		return n, right
	}
	left, n.left = n.left.split(lower, seq)
	n.settle()
	return left, n
}

func (n *interval) without(lower string, seq uint64) *interval {
	switch {
	case n == nil:
		return nil
	case n.seq == seq:
		return join(n.left, n.right)
	case n.before(lower, seq):
		n.right = n.right.without(lower, seq)
	default:
		n.left = n.left.without(lower, seq)
	}
	n.settle()
	return n
}

// join makes one branch of two, all of left being before right.
func join(left, right *interval) *interval {
	switch {
	case left == nil:
		return right
	case right == nil:
		return left
	case left.priority > right.priority:
		left.right = join(left.right, right)
		left.settle()
		return left
	default:
		right.left = join(left, right.left)
		right.settle()
		return right
	}
}

func (n *interval) match(key string, each func(*watch)) {
	if n == nil || n.highest != "" && n.highest <= key {
		return
	}
	n.left.match(key, each)
	if n.w.pattern.lower > key {
		return
	}
	if upper := n.w.pattern.upper; upper == "" || key < upper {
		each(n.w)
	}
	n.right.match(key, each)
}
