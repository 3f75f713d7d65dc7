package mvcc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/keyspace"
)

// TestOrderAgainstSortedSlice holds pages, splits and shared parts to a sorted
// slice of the same keys.
func TestOrderAgainstSortedSlice(t *testing.T) {
	key := rapid.Custom(func(t *rapid.T) []byte {
		prefix := rapid.SampledFrom([]string{"", "a", "user/", "user/000", "user/0000000000",
			"\x01\x00\x00\x00\x02", "\x01\x00\x00\x00\x02user/000000", "\x01\x00\x00\x01\x00", "\x01\x00", "\x02\x00\x00"}).Draw(t, "prefix")
		return append([]byte(prefix), rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 255}), 0, 6).Draw(t, "rest")...)
	})
	rapid.Check(t, func(t *rapid.T) {
		var o order
		var want [][]byte
		for _, k := range rapid.SliceOfN(key, 0, 700).Draw(t, "keys") {
			i, found := slices.BinarySearchFunc(want, k, bytes.Compare)
			if !found {
				o.insert(&item{key: k})
				want = slices.Insert(want, i, k)
			}
			if rapid.IntRange(0, 9).Draw(t, "reads") == 0 { // of pages with and without fresh items
				at, _ := slices.BinarySearchFunc(want, k, bytes.Compare)
				if got := o.from(nil, k, nil); len(got) == 0 || !sameItems(got, want[at:]) {
					t.Fatalf("from %x: %d items, of %d expected", k, len(got), len(want)-at)
				}
			}
		}
		probe := key.Draw(t, "probe")
		at, found := slices.BinarySearchFunc(want, probe, bytes.Compare)
		if got := o.from(nil, probe, nil); len(got) == 0 != (at == len(want)) || len(got) > pageItems || !sameItems(got, want[at:]) {
			t.Fatalf("from %x: %d items, of %d expected", probe, len(got), len(want)-at)
		}
		below := slices.Clone(want[:at])
		slices.Reverse(below)
		if got := o.before(nil, probe, nil); len(got) == 0 != (at == 0) || !sameItems(got, below) {
			t.Fatalf("before %x (there %t): %d items, of %d expected", probe, found, len(got), at)
		}
		slices.Reverse(want)
		if got := o.before(nil, nil, nil); len(got) == 0 != (len(want) == 0) || !sameItems(got, want) {
			t.Fatalf("before the end: %d items of %d", len(got), len(want))
		}
	})
}

// sameItems reports whether items are the first of keys.
func sameItems(items []*item, keys [][]byte) bool {
	if len(items) > len(keys) {
		return false
	}
	for i, it := range items {
		if !bytes.Equal(it.key, keys[i]) {
			return false
		}
	}
	return true
}

// TestAscendingKeysFillPages: keys in order do not leave half-empty pages.
func TestAscendingKeysFillPages(t *testing.T) {
	var o order
	const n = 10 * pageItems
	for i := range n {
		o.insert(&item{key: []byte{'k', byte(i >> 8), byte(i)}})
		o.from(nil, nil, nil)
	}
	if got, most := len(o.parts[0].pages), n/(pageItems-1)+1; got > most {
		t.Errorf("%d keys are on %d pages, want at most %d", n, got, most)
	}
}

// TestNamespacesAreParts: what tells keys of one namespace apart is not lost among
// those of others.
func TestNamespacesAreParts(t *testing.T) {
	var o order
	for i := range 10 * pageItems {
		for ns := range keyspace.NamespaceID(3) {
			o.insert(&item{key: keyspace.AppendDataKey(nil, ns, fmt.Appendf(nil, "key %08d", i))})
			o.from(nil, keyspace.AppendDataKey(nil, ns, nil), nil)
		}
	}
	if len(o.parts) != 3 {
		t.Fatalf("%d parts", len(o.parts))
	}
	for _, p := range o.parts {
		for i, head := range p.first.heads[1:] {
			if head == p.first.heads[i] {
				t.Fatalf("two pages have the head %x", head)
			}
		}
	}
}

// TestPartsAreArrangedOnce: a part that nobody read is put in order by its first
// reader, all of it, whatever its keys share; other parts are not, and what comes
// later finds its place.
func TestPartsAreArrangedOnce(t *testing.T) {
	var o order
	var want [][]byte
	other := keyspace.AppendDataKey(nil, 2, []byte("other"))
	random := rand.New(rand.NewPCG(1, 2))
	add := func(n int) {
		for range n {
			dir := len(want) / 700 % 3 // pieces of one directory, and of two
			if len(want) > 5*arrivalsPiece {
				dir = random.IntN(3)
			}
			k := keyspace.AppendDataKey(nil, 1, fmt.Appendf(nil, "%c/shared by ten thousand/%08d", 'a'+dir, len(want)))
			want = append(want, k)
			o.insert(&item{key: k})
		}
	}
	add(10 * arrivalsPiece)
	o.insert(&item{key: other})
	if o.parts[0].read || len(o.parts[0].pages) > 0 {
		t.Fatal("nobody read it yet")
	}
	check := func() {
		t.Helper()
		slices.SortFunc(want, bytes.Compare)
		var got []*item
		for key := []byte(nil); ; key = append(bytes.Clone(got[len(got)-1].key), 0) {
			more := o.from(nil, key, nil)
			if len(more) == 0 || len(got) == len(want) {
				break
			}
			got = append(got, more...)
		}
		if len(got) < len(want) || !sameItems(got[:len(want)], want) {
			t.Fatalf("%d items of %d, or not in order", len(got), len(want))
		}
	}
	o.from(nil, want[0], nil)
	if !o.parts[0].read || o.parts[1].read || o.parts[0].arrived.count > 0 {
		t.Fatalf("parts read: %t, %t", o.parts[0].read, o.parts[1].read)
	}
	check()
	add(3 * pageItems)
	check()
}

// TestWalksKeepToTheirNamespace: a walk over one namespace, to its end in either
// direction, does not put others in order.
func TestWalksKeepToTheirNamespace(t *testing.T) {
	var o order
	for ns := range keyspace.NamespaceID(3) {
		for i := range 3 * pageItems {
			o.insert(&item{key: keyspace.AppendDataKey(nil, ns, fmt.Appendf(nil, "%08d", i))})
		}
	}
	lower, upper := keyspace.AppendDataPrefix(nil, 1, nil), keyspace.AppendDataPrefix(nil, 2, nil)
	forward, backward := 0, 0
	for key := lower; ; {
		some := o.from(nil, key, upper)
		if forward += len(some); len(some) == 0 {
			break
		}
		key = append(bytes.Clone(some[len(some)-1].key), 0)
	}
	for key := upper; ; {
		some := o.before(nil, key, lower)
		if backward += len(some); len(some) == 0 {
			break
		}
		key = some[len(some)-1].key
	}
	if forward != 3*pageItems || backward != 3*pageItems {
		t.Errorf("%d items forward, %d backward", forward, backward)
	}
	if o.parts[0].read || !o.parts[1].read || o.parts[2].read {
		t.Errorf("read: %t, %t, %t", o.parts[0].read, o.parts[1].read, o.parts[2].read)
	}
}

// TestReadersArrangeBesideTheWriter: what is inserted while a reader sorts a part is
// there when that is done.
func TestReadersArrangeBesideTheWriter(t *testing.T) {
	var o order
	const n = 40 * arrivalsPiece
	inserted := make(chan int, n)
	go func() {
		defer close(inserted)
		for i := range n {
			o.insert(&item{key: fmt.Appendf(nil, "k%08d", i*7919%n)})
			inserted <- i
		}
	}()
	for i := range inserted {
		if i%1000 != 0 {
			continue
		}
		key := fmt.Appendf(nil, "k%08d", i*7919%n)
		if got := o.from(nil, key, nil); len(got) == 0 || !bytes.Equal(got[0].key, key) {
			t.Fatalf("%s is not there", key)
		}
	}
	var all []*item
	for {
		var from []byte
		if len(all) > 0 {
			from = append(bytes.Clone(all[len(all)-1].key), 0)
		}
		more := o.from(nil, from, nil)
		if len(more) == 0 {
			break
		}
		all = append(all, more...)
	}
	if len(all) != n || !slices.IsSortedFunc(all, func(a, b *item) int { return bytes.Compare(a.key, b.key) }) {
		t.Fatalf("%d items of %d, or not in order", len(all), n)
	}
}

// TestOldVersionIsFoundInFewSteps: reading far back in a key that was
// overwritten very often takes a logarithmic number of steps.
func TestOldVersionIsFoundInFewSteps(t *testing.T) {
	var it item
	const n = 1 << 16
	for rev := keyspace.Revision(1); rev <= n; rev++ {
		it.add(&version{rev: 2 * rev})
	}
	for _, at := range []keyspace.Revision{2, 3, 1000, n, 2*n - 1, 2 * n} {
		steps, v := 0, it.newest.Load()
		for ; v.rev > at; steps++ {
			if v.jump != nil && v.jump.rev > at {
				v = v.jump
			} else {
				v = v.prev
			}
		}
		if found := it.at(at); found != v || found.rev != at/2*2 {
			t.Fatalf("at %d: found %v", at, found)
		}
		if steps > 3*16 {
			t.Errorf("at %d: %d steps", at, steps)
		}
	}
	if it.at(1) != nil {
		t.Error("found a version before the first")
	}
}
