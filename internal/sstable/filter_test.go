package sstable

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func TestFilterFindsEveryKey(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sums := rapid.SliceOfN(rapid.Uint64(), 1, 500).Draw(t, "hashes")
		f := newFilter(collect(sums))
		for _, h := range sums {
			if !f.has(h) {
				t.Fatalf("%x is not found among %d", h, len(sums))
			}
		}
	})
}

// The corners of what picks a line and bits.
func TestFilterFindsExtremeHashes(t *testing.T) {
	sums := []uint64{0, 1, 1 << 63, 1<<64 - 1, 1<<32 - 1, 1 << 32}
	for len(sums) < 1000 {
		sums = append(sums, uint64(len(sums))<<54, ^uint64(len(sums)))
	}
	f := newFilter(collect(sums))
	for _, h := range sums {
		if !f.has(h) {
			t.Errorf("%x is not found", h)
		}
	}
}

// falsePositives returns the share of absent keys that a filter takes for there,
// in percent.
func falsePositives(t *testing.T, present, absent func(n int) uint64) float64 {
	t.Helper()
	const keys, asked = 100_000, 400_000
	sums := make([]uint64, keys)
	for n := range sums {
		sums[n] = present(n)
	}
	f := newFilter(collect(sums))
	if least, most := keys*filterBits/8, keys*filterBits/8+filterLine; len(f) < least || len(f) > most {
		t.Errorf("%d bytes for %d keys, want %d bits of each", len(f), keys, filterBits)
	}
	for n, h := range sums {
		if !f.has(h) {
			t.Fatalf("key %d is not found", n)
		}
	}
	found := 0
	for n := range asked {
		if f.has(absent(n)) {
			found++
		}
	}
	return 100 * float64(found) / asked
}

func TestFilterHasFewFalsePositives(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	numbered := func(inst keyspace.InstanceID) func(int) uint64 {
		return func(n int) uint64 { return Hash(inst, binary.BigEndian.AppendUint64(nil, uint64(n))) }
	}
	named := func(format string) func(int) uint64 {
		return func(n int) uint64 { return Hash(1, fmt.Appendf(nil, format, n)) }
	}
	any64 := func(int) uint64 { return random.Uint64() }
	for name, keys := range map[string][2]func(int) uint64{
		"random hashes":         {any64, any64},
		"numbers":               {numbered(1), func(n int) uint64 { return numbered(1)(n + 1<<20) }},
		"the same, elsewhere":   {numbered(1), numbered(2)},
		"names, one way longer": {named("user/%d"), named("user/%d/")},
	} {
		percent := falsePositives(t, keys[0], keys[1])
		if percent >= 2 || percent < 0.2 { // far better than the theory is a broken count
			t.Errorf("%s: %.2f %% of absent keys are found", name, percent)
		}
		t.Logf("%s: %.2f %%", name, percent)
	}
}

// A filter made for more keys than came finds every key, and is folded to what
// they need: no more of absent keys are found than in one that is filled twice.
func TestFoldedFiltersAreSmallAndFindEveryKey(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, c := range []struct{ expected, came int }{
		{0, 0}, {0, 1}, {1, 1}, {100, 1}, {10_000, 0}, {10_000, 1}, {10_000, 4_999}, {10_000, 5_100}, {10_000, 10_000},
		{100_000, 3_000}, {100_000, 50_000}, {100_000, 12_000}, {100, 5_000},
	} {
		f, sums := emptyFilter(c.expected), make([]uint64, c.came)
		for n := range sums {
			sums[n] = random.Uint64()
			f.add(sums[n])
		}
		before := len(f)
		f = f.fold(c.came)
		for _, h := range sums {
			if !f.has(h) {
				t.Fatalf("%d of %d: %x is not found", c.came, c.expected, h)
			}
		}
		if f.keys() < min(c.came, c.expected) || len(f)%filterLine != 0 {
			t.Errorf("%d of %d: %d bytes, of %d keys", c.came, c.expected, len(f), f.keys())
		}
		if most := 2 * (linesOf(c.came) + 1) * filterLine; len(f) > max(most, before/foldLines) {
			t.Errorf("%d of %d: %d bytes, want at most %d", c.came, c.expected, len(f), most)
		}
	}
}

func TestFilterWithoutKeysHasNone(t *testing.T) {
	for _, f := range []filter{nil, {}, newFilter(new(hashes))} {
		if len(f) != 0 {
			t.Errorf("%d bytes for no keys", len(f))
		}
		for _, h := range []uint64{0, 1, 1<<64 - 1, Hash(1, nil)} {
			if f.has(h) {
				t.Errorf("%x is in an empty filter", h)
			}
		}
	}
}

// The hash tells instances and keys apart, and a key without bytes is a key.
func TestHashIsOfInstanceAndKey(t *testing.T) {
	seen := map[uint64]string{}
	for inst := range keyspace.InstanceID(20) {
		for _, key := range []string{"", "\x00", "\x00\x00", "a", "ab", "\xff"} {
			h, id := Hash(inst, []byte(key)), fmt.Sprintf("%d/%q", inst, key)
			if other, there := seen[h]; there {
				t.Errorf("%s and %s have the hash %x", id, other, h)
			}
			seen[h] = id
		}
	}
	if Hash(1, nil) != Hash(1, []byte{}) {
		t.Error("nil is another key than the empty one")
	}
}

// indexWithFilter is an index of one block whose filter has some bytes.
func indexWithFilter(bytes int) []byte {
	index := encodeIndex([]instanceSpan{{1, Span{1, 2}}}, []block{{offset: 8, length: 20, instance: 1, rev: 1}})
	return append(binary.AppendUvarint(index, uint64(bytes)), make([]byte, bytes)...)
}

func TestFilterOfAnIndexIsOfWholeLines(t *testing.T) {
	const end = 28
	for _, c := range []struct {
		bytes int
		whole bool
	}{{0, true}, {filterLine, true}, {5 * filterLine, true}, {1, false}, {filterLine - 1, false}, {filterLine + 1, false}, {filterLine / 2, false}} {
		spans, blocks, keys, err := decodeIndex(indexWithFilter(c.bytes), end, true)
		if !c.whole {
			wantCode(t, err, fault.Corruption)
		} else if err != nil || len(keys) != c.bytes || len(spans) != 1 || len(blocks) != 1 {
			t.Errorf("filter of %d bytes: %d, %d spans, %d blocks, %v", c.bytes, len(keys), len(spans), len(blocks), err)
		}
	}
}

func TestIndexHasAFilterExactlyWhenItShould(t *testing.T) {
	const end = 28
	with := indexWithFilter(filterLine)
	without := with[:len(with)-filterLine-1]
	for name, c := range map[string]struct {
		b        []byte
		filtered bool
	}{
		"no filter in a run":     {without, true},
		"a filter in history":    {with, false},
		"a filter cut short":     {with[:len(with)-1], true},
		"bytes behind a filter":  {append(append([]byte{}, with...), 0), true},
		"a length without bytes": {binary.AppendUvarint(append([]byte{}, without...), 1<<63), true},
		"a length without end":   {append(append([]byte{}, without...), 0x80), true},
	} {
		if _, _, _, err := decodeIndex(c.b, end, c.filtered); fault.CodeOf(err) != fault.Corruption {
			t.Errorf("%s: error %v, want corruption", name, err)
		}
	}
	if _, _, _, err := decodeIndex(without, end, false); err != nil {
		t.Error(err)
	}
}

func collect(all []uint64) *hashes {
	h := new(hashes)
	for _, hash := range all {
		h.add(hash)
	}
	return h
}
