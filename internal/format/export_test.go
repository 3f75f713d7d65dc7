package format

import (
	"bytes"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func samplePage() ExportPage {
	return ExportPage{
		Keys: []ExportKey{
			{Key: []byte("a"), Versions: []ExportVersion{{Revision: 1, Value: []byte("one")}, {Revision: 2, Delete: true}, {Revision: 9}}},
			{Key: []byte("b\x00"), Versions: []ExportVersion{{Revision: 1 << 60, Value: []byte("head"), Chunks: [][]byte{[]byte("first"), {}, []byte("last")}}}},
		},
		Last: []byte("b\x00"), Done: true, Floor: 7, To: 1 << 40, Skip: 3,
	}
}

// show is all that a page says.
func show(p *ExportPage) string {
	s := fmt.Sprintf("%x %t %d %d %d\n", p.Last, p.Done, uint64(p.Floor), p.To, p.Skip)
	for _, k := range p.Keys {
		s += fmt.Sprintf("%x", k.Key)
		for _, v := range k.Versions {
			s += fmt.Sprintf(" %d:%x:%t:%x", uint64(v.Revision), v.Value, v.Delete, v.Chunks)
		}
		s += "\n"
	}
	return s
}

func drawPage(t *rapid.T) (p ExportPage) {
	some := rapid.SliceOfN(rapid.Byte(), 0, 40)
	p = ExportPage{Last: some.Draw(t, "last"), Done: rapid.Bool().Draw(t, "done"), Floor: keyspace.Revision(rapid.Uint64().Draw(t, "floor")),
		To: keyspace.Index(rapid.Uint64().Draw(t, "to")), Skip: rapid.Uint32().Draw(t, "skip")}
	key := []byte{}
	for range rapid.IntRange(0, 4).Draw(t, "keys") {
		key = append(bytes.Clone(key), rapid.ByteRange(1, 255).Draw(t, "more")) // above the one before
		k := ExportKey{Key: key}
		rev := keyspace.Revision(0)
		for range rapid.IntRange(1, 4).Draw(t, "versions") {
			rev += keyspace.Revision(rapid.Uint64Range(1, 1<<60).Draw(t, "step"))
			v := ExportVersion{Revision: rev, Delete: rapid.IntRange(0, 3).Draw(t, "delete") == 0}
			if !v.Delete {
				v.Value, v.Chunks = some.Draw(t, "value"), rapid.SliceOfN(some, 0, 3).Draw(t, "chunks")
			}
			k.Versions = append(k.Versions, v)
		}
		p.Keys = append(p.Keys, k)
	}
	return p
}

func TestExportPageRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawPage(t)
		got, err := DecodeExportPage(AppendExportPage([]byte("before"), &want)[len("before"):])
		if err != nil || show(&got) != show(&want) {
			t.Fatalf("%v\n got %s\nwant %s", err, show(&got), show(&want))
		}
	})
}

// Every bit is under a checksum, and every end that is missing is missed.
func TestExportPageDamageIsCorruption(t *testing.T) {
	page := samplePage()
	whole := AppendExportPage(nil, &page)
	for n := range whole {
		if _, err := DecodeExportPage(whole[:n]); fault.CodeOf(err) != fault.Corruption {
			t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
		}
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[n] ^= 1 << bit
			if _, err := DecodeExportPage(b); err == nil {
				t.Fatalf("bit %d of byte %d changes and the page decodes", bit, n)
			}
		}
	}
	if _, err := DecodeExportPage(append(whole, 0)); fault.CodeOf(err) != fault.Corruption {
		t.Fatalf("a byte more: %v", err)
	}
	newer := bytes.Clone(whole)
	newer[0] = Version + 1
	if _, err := DecodeExportPage(newer); fault.CodeOf(err) != fault.Unsupported {
		t.Fatalf("a newer page: %v", err)
	}
}

// What no sender sends is refused, though its checksums are right.
func TestExportPageOrder(t *testing.T) {
	version := func(revs ...keyspace.Revision) (all []ExportVersion) {
		for _, rev := range revs {
			all = append(all, ExportVersion{Revision: rev})
		}
		return all
	}
	for name, keys := range map[string][]ExportKey{
		"keys twice":           {{Key: []byte("a"), Versions: version(1)}, {Key: []byte("a"), Versions: version(2)}},
		"keys descend":         {{Key: []byte("b"), Versions: version(1)}, {Key: []byte("a"), Versions: version(2)}},
		"revisions twice":      {{Key: []byte("a"), Versions: version(1, 1)}},
		"revisions descend":    {{Key: []byte("a"), Versions: version(2, 1)}},
		"no key":               {{Versions: version(1)}},
		"a deletion and value": {{Key: []byte("a"), Versions: []ExportVersion{{Revision: 1, Delete: true, Value: []byte("v")}}}},
	} {
		if _, err := DecodeExportPage(AppendExportPage(nil, &ExportPage{Keys: keys})); fault.CodeOf(err) != fault.Corruption {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeExportPage(f *testing.F) {
	page := samplePage()
	f.Add(AppendExportPage(nil, &page))
	f.Add(AppendExportPage(nil, &ExportPage{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := DecodeExportPage(b)
		if err != nil {
			return
		}
		again, err := DecodeExportPage(AppendExportPage(nil, &got))
		if err != nil || show(&again) != show(&got) {
			t.Fatalf("%v\n got %s\nthen %s", err, show(&got), show(&again))
		}
	})
}
