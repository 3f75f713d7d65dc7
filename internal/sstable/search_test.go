package sstable

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// search is searchBlock by decodeBlock.
func search(versions []Version, key []byte, at keyspace.Revision) (Version, bool) {
	for _, v := range versions {
		if !before(v.Key, v.Revision, key, at) {
			return v, bytes.Equal(v.Key, key)
		}
	}
	return Version{}, false
}

// wantSearch compares the two for a position.
func wantSearch(t failer, block []byte, versions []Version, key []byte, at keyspace.Revision) {
	t.Helper()
	want, wanted := search(versions, key, at)
	got, ok, err := searchBlock(block, key, at)
	if err != nil || ok != wanted || ok && !equal(placed{0, got}, placed{0, want}) {
		t.Fatalf("%.20q at %d: %t, %v, %v; want %t, %v", key, at, ok, placed{0, got}, err, wanted, placed{0, want})
	}
}

var genBlockKey = rapid.OneOf(
	genKey,
	rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', 'b', 0xff}), 0, 3), func(b []byte) string { return string(b) }),
)

// genBlock is versions of one instance, in order, several of some keys.
func genBlock(t *rapid.T) (all []placed) {
	for range rapid.IntRange(1, 30).Draw(t, "count") {
		v := cur(1, genBlockKey.Draw(t, "key"), keyspace.Revision(rapid.Uint64Range(0, 12).Draw(t, "revision")))
		v.Value = bytes.Repeat([]byte{byte(v.Revision)}, genSize.Draw(t, "size"))
		if v.Delete = rapid.Bool().Draw(t, "delete"); rapid.Bool().Draw(t, "replaced") {
			v.Until = v.Revision + keyspace.Revision(rapid.Uint64Range(1, 1<<40).Draw(t, "for"))
		}
		all = append(all, v)
	}
	slices.SortStableFunc(all, placed.order)
	return slices.CompactFunc(all, func(p, q placed) bool { return p.order(q) == 0 })
}

func encoded(all []placed) (b []byte) {
	for i, v := range all {
		b = appendVersion(b, &v.Version, i > 0 && bytes.Equal(v.Key, all[i-1].Key))
	}
	return b
}

// searchBlock finds what decodeBlock has, for every key and revision.
func TestSearchBlockAgreesWithDecodeBlock(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := genBlock(t)
		block := sealed(encoded(all))
		versions, err := decodeBlock(nil, block)
		if err != nil || !slices.EqualFunc(versions, all, func(v Version, p placed) bool { return equal(placed{1, v}, p) }) {
			t.Fatalf("%v, %v become %v", err, list(all), versions)
		}
		keys := []string{"", "\x00", "\xff", "\xff\xff\xff\xff", genBlockKey.Draw(t, "another")}
		for _, v := range all {
			keys = append(keys, string(v.Key), string(v.Key)+"\x00", string(v.Key[:len(v.Key)/2]))
		}
		for _, key := range keys {
			for at := range keyspace.Revision(14) {
				wantSearch(t, block, versions, []byte(key), at)
			}
			wantSearch(t, block, versions, []byte(key), keyspace.MaxRevision)
		}
	})
}

// A search stops at its answer, but a block that is damaged behind it is damaged.
func TestSearchBlockChecksTheWholeBlock(t *testing.T) {
	body := encoded([]placed{cur(1, "a", 1), cur(1, "b", 2), cur(1, "c", 3)})
	whole := sealed(body)
	for i := range whole {
		b := bytes.Clone(whole)
		b[i] ^= 1
		_, ok, err := searchBlock(b, []byte("a"), 9)
		if wantCode(t, err, fault.Corruption); ok {
			t.Errorf("byte %d is damaged and something is found", i)
		}
	}
	for n := range crcBytes {
		_, _, err := searchBlock(whole[:n], nil, 9)
		wantCode(t, err, fault.Corruption)
	}
}

// A version that is cut, in a block with a right checksum, is no answer.
func TestSearchBlockFindsNoCutVersion(t *testing.T) {
	all := []placed{cur(1, "a", 1), cur(1, "b", 2), cur(1, "c", 3)}
	body, each := encoded(all), len(encoded(all[:1]))
	for n := range body {
		whole := n / each
		for i, key := range []string{"a", "b", "c", "d"} {
			v, ok, err := searchBlock(sealed(body[:n]), []byte(key), 9)
			switch {
			case i < whole:
				if !ok || err != nil || !equal(placed{1, v}, all[i]) {
					t.Errorf("%s, cut at %d: %v, %t, %v", key, n, v, ok, err)
				}
			case ok, n%each == 0 && err != nil:
				t.Errorf("%s, cut at %d: %v, %t, %v", key, n, v, ok, err)
			case n%each != 0:
				wantCode(t, err, fault.Corruption)
			}
		}
	}
}

// sampleRunIndex is sampleIndex with a filter.
func sampleRunIndex() (b []byte, end int64) {
	b, end = sampleIndex()
	return withFilter(b, newFilter(collect([]uint64{1, 1 << 40, 1<<64 - 1}))), end
}

func withFilter(index []byte, f filter) []byte {
	return append(binary.AppendUvarint(index, uint64(len(f))), f...)
}

// FuzzRun reads arbitrary bytes as a block that is searched and as the index of a
// run: no panic, the search finds what is decoded, and what is accepted is written
// back the same.
func FuzzRun(f *testing.F) {
	index, end := sampleRunIndex()
	f.Add(sampleBlock(), end, []byte("a"), uint64(9))
	f.Add(encoded(smallRun()[:4]), end, []byte("ab"), uint64(7))
	f.Add(index, end, []byte{}, uint64(1<<64-1))
	f.Add(withFilter(encodeIndex(nil, nil), nil), int64(len(magic)), []byte{0}, uint64(0))
	f.Add(indexWithFilter(filterLine-1), int64(28), []byte{0}, uint64(0))
	f.Add(append(encodeIndex(nil, nil), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), int64(len(magic)), []byte{0}, uint64(0))
	f.Fuzz(func(t *testing.T, b []byte, end int64, key []byte, at uint64) {
		_, _, _ = searchBlock(b, key, keyspace.Revision(at))
		fuzzSearch(t, b, key, keyspace.Revision(at))
		fuzzRunIndex(t, b, end, at)
	})
}

// fuzzSearch gives the body its checksum. Its versions are in any order; a search
// ends at the first that is not before the position.
func fuzzSearch(t *testing.T, body, key []byte, at keyspace.Revision) {
	block := sealed(body)
	versions, bad := decodeBlock(nil, block)
	if bad != nil {
		if _, _, err := searchBlock(block, key, at); err != nil {
			wantCode(t, err, fault.Corruption)
		}
		return
	}
	wantSearch(t, block, versions, key, at)
	for _, v := range versions {
		wantSearch(t, block, versions, v.Key, v.Revision)
		wantSearch(t, block, versions, v.Key, v.Revision-1)
	}
}

func fuzzRunIndex(t *testing.T, b []byte, end int64, hash uint64) {
	spans, blocks, keys, err := decodeIndex(b, end, true)
	if err != nil {
		if wantCode(t, err, fault.Corruption); spans != nil || blocks != nil || keys != nil {
			t.Fatalf("%v, %v, %x with %v", spans, blocks, keys, err)
		}
		return
	}
	if len(keys)%filterLine != 0 || len(keys) > len(b) {
		t.Fatalf("filter of %d in %d bytes", len(keys), len(b))
	}
	for _, h := range []uint64{hash, 0, 1<<64 - 1} {
		_ = keys.has(h)
	}
	var list []instanceSpan
	for _, inst := range slices.Sorted(maps.Keys(spans)) {
		list = append(list, instanceSpan{inst, spans[inst]})
	}
	gotSpans, gotBlocks, gotKeys, err := decodeIndex(withFilter(encodeIndex(list, blocks), keys), end, true)
	same := func(d, e block) bool {
		return d.offset == e.offset && d.length == e.length && d.instance == e.instance && bytes.Equal(d.key, e.key) && d.rev == e.rev
	}
	if err != nil || !maps.Equal(gotSpans, spans) || !slices.EqualFunc(gotBlocks, blocks, same) || !bytes.Equal(gotKeys, keys) {
		t.Fatalf("index %x: %v %v %x become %v %v %x, %v", b, spans, blocks, keys, gotSpans, gotBlocks, gotKeys, err)
	}
}

// The seeds of FuzzRun are what they are meant to be.
func TestSamplesOfRunsAreDecoded(t *testing.T) {
	index, end := sampleRunIndex()
	spans, blocks, keys, err := decodeIndex(index, end, true)
	if err != nil || len(spans) != 2 || len(blocks) != 3 || len(keys) != filterLine || !keys.has(1<<40) || keys.has(7) {
		t.Errorf("%v, %v, %x, %v", spans, blocks, keys, err)
	}
	if _, _, keys, err = decodeIndex(withFilter(encodeIndex(nil, nil), nil), int64(len(magic)), true); err != nil || len(keys) != 0 {
		t.Errorf("%x, %v", keys, err)
	}
}
