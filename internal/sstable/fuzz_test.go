package sstable

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// sampleBlock is the body of a block with every kind of version.
func sampleBlock() (b []byte) {
	var last []byte
	for i, v := range small() {
		b = appendVersion(b, &v.Version, i > 0 && bytes.Equal(v.Key, last))
		last = v.Key
	}
	return b
}

func sampleIndex() (b []byte, end int64) {
	blocks := []block{
		{offset: 8, length: 300, instance: 1, key: []byte(""), rev: 7},
		{offset: 308, length: 70_000, instance: 1, key: []byte("k"), rev: 1 << 60},
		{offset: 70_308, length: crcBytes, instance: 1 << 40, key: bytes.Repeat([]byte("k"), 200), rev: 1},
	}
	return encodeIndex([]instanceSpan{{1, Span{1, 1 << 61}}, {1 << 40, Span{1, 2}}}, blocks), 70_312
}

// FuzzDecode reads arbitrary bytes as a block and as an index: no panic, no more
// than the bytes can hold, and what is accepted is written back the same.
func FuzzDecode(f *testing.F) {
	index, end := sampleIndex()
	f.Add(sampleBlock(), end)
	f.Add(index, end)
	f.Add(encodeIndex(nil, nil), int64(len(magic)))
	f.Add([]byte{}, int64(0))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0}, int64(-1))
	f.Fuzz(func(t *testing.T, b []byte, end int64) {
		_, _ = decodeBlock(nil, b)
		fuzzBlock(t, b)
		fuzzIndex(t, b, end)
	})
}

func sealed(body []byte) []byte {
	return binary.LittleEndian.AppendUint32(slices.Clone(body), crc32.Checksum(body, castagnoli))
}

// fuzzBlock gives the body its checksum.
func fuzzBlock(t *testing.T, body []byte) {
	const leastBytes = 1 + 8 + 1 + 1
	versions, err := decodeBlock(nil, sealed(body))
	if len(versions) > len(body)/leastBytes || cap(versions) > 2*len(body)/leastBytes+16 {
		t.Fatalf("%d versions, room for %d, in %d bytes", len(versions), cap(versions), len(body))
	}
	if err != nil {
		return
	}
	var again []byte
	for i := range versions {
		again = appendVersion(again, &versions[i], i > 0 && bytes.Equal(versions[i-1].Key, versions[i].Key))
	}
	got, err := decodeBlock(nil, sealed(again))
	if err != nil || !slices.EqualFunc(got, versions, func(v, w Version) bool { return equal(placed{0, v}, placed{0, w}) }) {
		t.Fatalf("block %x: %v become %v, %v", body, versions, got, err)
	}
}

func fuzzIndex(t *testing.T, b []byte, end int64) {
	spans, blocks, _, err := decodeIndex(b, end, false)
	const leastSpan = 3
	if len(spans) > len(b)/leastSpan || len(blocks) > len(b)/leastBlock || cap(blocks) > 2*len(b)/leastBlock+16 {
		t.Fatalf("%d spans, %d blocks, room for %d, in %d bytes", len(spans), len(blocks), cap(blocks), len(b))
	}
	if err != nil {
		return
	}
	at := int64(len(magic))
	for _, d := range blocks {
		if d.offset != at || d.length < crcBytes {
			t.Fatalf("block %+v, want it at %d", d, at)
		}
		at += int64(d.length)
	}
	if at != end {
		t.Fatalf("blocks end at %d, want %d", at, end)
	}
	fuzzTable(t, blocks)
	var list []instanceSpan
	for _, inst := range slices.Sorted(maps.Keys(spans)) {
		list = append(list, instanceSpan{inst, spans[inst]})
	}
	gotSpans, gotBlocks, _, err := decodeIndex(encodeIndex(list, blocks), end, false)
	same := func(d, e block) bool {
		return d.offset == e.offset && d.length == e.length && d.instance == e.instance && bytes.Equal(d.key, e.key) && d.rev == e.rev
	}
	if err != nil || !maps.Equal(gotSpans, spans) || !slices.EqualFunc(gotBlocks, blocks, same) {
		t.Fatalf("index %x: %v %v become %v %v, %v", b, spans, blocks, gotSpans, gotBlocks, err)
	}
}

// fuzzTable makes a table of blocks in any order: what it takes it gives back.
func fuzzTable(t *testing.T, blocks []block) {
	for _, current := range []bool{true, false} {
		table := newBlockTable(len(blocks), int64(len(magic)), current)
		taken := 0
		for taken < len(blocks) && table.add(blocks[taken]) {
			taken++
		}
		table.finish()
		for n, want := range blocks[:taken] {
			if got := table.at(n); got.offset != want.offset || got.instance != want.instance || !bytes.Equal(got.key, want.key) {
				t.Fatalf("block %d of %d is %+v, want %+v", n, taken, got, want)
			}
		}
	}
}

// The seeds of FuzzDecode are what they are meant to be.
func TestSamplesAreDecoded(t *testing.T) {
	versions, err := decodeBlock(nil, sealed(sampleBlock()))
	if err != nil || !slices.EqualFunc(versions, small(), func(v Version, p placed) bool { return equal(placed{p.inst, v}, p) }) {
		t.Errorf("%v, %v", versions, err)
	}
	index, end := sampleIndex()
	spans, blocks, _, err := decodeIndex(index, end, false)
	if err != nil || len(blocks) != 3 || spans[1<<40] != (Span{1, 2}) || blocks[1].rev != keyspace.Revision(1<<60) {
		t.Errorf("%v, %v, %v", spans, blocks, err)
	}
}

func TestIndexNamesBlocksThatAreThereOneAfterTheOther(t *testing.T) {
	one := func(offset int64, length int) block { return block{offset: offset, length: length, instance: 1} }
	for name, c := range map[string]struct {
		blocks []block
		end    int64
	}{
		"a gap in front":     {[]block{one(9, 10)}, 19},
		"a gap between":      {[]block{one(8, 10), one(19, 10)}, 29},
		"an overlap":         {[]block{one(8, 10), one(17, 10)}, 27},
		"less than its sum":  {[]block{one(8, 3), one(11, 7)}, 18},
		"a negative length":  {[]block{one(8, -4)}, 4},
		"behind the end":     {[]block{one(8, 10)}, 17},
		"bytes of no block":  {[]block{one(8, 10)}, 19},
		"no block but bytes": {nil, 9},
		"a huge length":      {[]block{one(8, 1<<62)}, 1 << 20},
		"a wrong order":      {[]block{one(18, 10), one(8, 10)}, 28},
	} {
		_, _, _, err := decodeIndex(encodeIndex(nil, c.blocks), c.end, false)
		if fault.CodeOf(err) != fault.Corruption {
			t.Errorf("%s: error %v, want corruption", name, err)
		}
	}
}
