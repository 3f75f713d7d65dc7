package format

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func valueRecord(value string) Record {
	return Record{
		Header: Header{Version: 1, Revision: 99, Created: 42, Size: uint64(len(value)), Checksum: CRC32C([]byte(value))},
		Value:  []byte(value),
	}
}

func sampleRecords() []Record {
	full := valueRecord("value")
	full.Version, full.Expires, full.Created = 1<<40, 1_800_000_000_000, keyspace.RevisionAt(1_700_000_000_000)
	full.KeyID, full.Tenant, full.Origin, full.Lease = 1, 2, 3, "{jobs}worker"
	full.ContentType, full.Encoding = "application/json", "gzip"
	full.Tags = map[string]string{"a": "1", "b": "", "": "x"}
	full.Metadata = map[string]string{"owner": "someone"}
	tombstone := Record{Header: Header{Flags: FlagTombstone | FlagExpired, Version: 7, Revision: 99, Created: 1}, Value: []byte{}}
	ended := Record{Header: Header{Flags: FlagTombstone, Version: 7, Revision: 99, Created: 1, Lease: "l"}, Value: []byte{}}
	chunked := Record{
		Header: Header{Flags: FlagChunked, Version: 2, Revision: 99, Created: 3, Size: 16 << 20, Checksum: 0xdeadbeef,
			Chunks: ChunkRef{Upload: 1 << 50, Count: 128}},
		ContentType: "video/mp4", Value: []byte{},
	}
	return []Record{valueRecord(""), valueRecord("v"), valueRecord(strings.Repeat("large", 50_000)), full, tombstone, ended, chunked}
}

func TestRecordRoundTrip(t *testing.T) {
	for i, want := range sampleRecords() {
		b := AppendRecord([]byte("before"), &want)[len("before"):]
		got, err := DecodeRecord(b, 99)
		if err != nil {
			t.Fatalf("record %d: %v", i, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("record %d:\n got %+v\nwant %+v", i, got, want)
		}
		header, err := DecodeHeader(b, 99)
		if err != nil || header != want.Header {
			t.Fatalf("record %d: header %+v, %v; want %+v", i, header, err, want.Header)
		}
		if again := AppendRecord(nil, &want); !bytes.Equal(again, b) {
			t.Fatalf("record %d has two encodings", i)
		}
	}
}

// S1.7: any changed bit and any lost tail is noticed.
func TestRecordDamageIsCorruption(t *testing.T) {
	for i, r := range sampleRecords() {
		if len(r.Value) > 1000 {
			continue
		}
		b := AppendRecord(nil, &r)
		for bit := range len(b) * 8 {
			damaged := bytes.Clone(b)
			damaged[bit/8] ^= 1 << (bit % 8)
			if _, err := DecodeRecord(damaged, 99); !refused(err) {
				t.Fatalf("record %d with bit %d flipped: error %v", i, bit, err)
			}
		}
		for n := range len(b) {
			if _, err := DecodeRecord(b[:n], 99); fault.CodeOf(err) != fault.Corruption {
				t.Fatalf("record %d cut to %d of %d: error %v", i, n, len(b), err)
			}
		}
	}
}

func refused(err error) bool {
	code := fault.CodeOf(err)
	return code == fault.Corruption || code == fault.Unsupported
}

func TestNewerRecordIsUnsupported(t *testing.T) {
	r := valueRecord("v")
	b := AppendRecord(nil, &r)
	b[0] = Version + 1
	if _, err := DecodeRecord(b, 1); fault.CodeOf(err) != fault.Unsupported {
		t.Errorf("record: %v", err)
	}
	if _, err := DecodeHeader(b, 1); fault.CodeOf(err) != fault.Unsupported {
		t.Errorf("header: %v", err)
	}
	s := AppendSnapshotRecord(nil, []byte("k"), 1, nil, false)
	s[0] = Version + 1
	if _, _, _, _, _, err := NextSnapshotRecord(s); fault.CodeOf(err) != fault.Unsupported {
		t.Errorf("snapshot: %v", err)
	}
}

func TestHeaderDoesNotAllocate(t *testing.T) {
	for i, r := range sampleRecords() {
		b := AppendRecord(nil, &r)
		allocs := testing.AllocsPerRun(100, func() {
			if _, err := DecodeHeader(b, 99); err != nil {
				t.Fatal(err)
			}
		})
		if want := float64(min(len(r.Lease), 2) / 2); allocs != want { // the name of a lease, unless it is one byte
			t.Errorf("the header of record %d makes %v allocations, want %v", i, allocs, want)
		}
	}
	plain := valueRecord("v")
	plain.ContentType = "text/plain"
	b := AppendRecord(nil, &plain)
	allocs := testing.AllocsPerRun(100, func() {
		if _, err := DecodeRecord(b, 99); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("a plain record makes %v allocations", allocs)
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	type record struct {
		key   string
		rev   keyspace.Revision
		value string
		del   bool
	}
	want := []record{{"k", 1, "v", false}, {"k", keyspace.MaxRevision, "", true}, {"", 5, "", false}, {"\x00", 7, strings.Repeat("x", 200_000), false}}
	var b []byte
	size := 0
	for _, r := range want {
		b = AppendSnapshotRecord(b, []byte(r.key), r.rev, []byte(r.value), r.del)
		size += len(r.key) + len(r.value) + SnapshotOverheadBytes
	}
	if len(b) > size {
		t.Errorf("%d bytes, more than the stated overhead allows (%d)", len(b), size)
	}
	for i, w := range want {
		key, rev, value, del, rest, err := NextSnapshotRecord(b)
		if got := (record{string(key), rev, string(value), del}); err != nil || got != w {
			t.Fatalf("record %d: %v, %v", i, got.key, err)
		}
		b = rest
	}
	if len(b) != 0 {
		t.Fatalf("%d bytes left", len(b))
	}
}

func TestSnapshotDamageIsCorruption(t *testing.T) {
	b := AppendSnapshotRecord(nil, []byte("some key"), 1<<40, []byte("some value"), false)
	for bit := range len(b) * 8 {
		damaged := bytes.Clone(b)
		damaged[bit/8] ^= 1 << (bit % 8)
		if _, _, _, _, _, err := NextSnapshotRecord(damaged); !refused(err) {
			t.Fatalf("bit %d flipped: error %v", bit, err)
		}
	}
	for n := range len(b) {
		if _, _, _, _, _, err := NextSnapshotRecord(b[:n]); fault.CodeOf(err) != fault.Corruption {
			t.Fatalf("cut to %d: error %v", n, err)
		}
	}
}

func FuzzDecodeRecord(f *testing.F) {
	for _, r := range sampleRecords() {
		if len(r.Value) < 1000 {
			f.Add(AppendRecord(nil, &r))
		}
	}
	f.Add([]byte{Version, 0, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b, 5)
		if err != nil {
			if !refused(err) {
				t.Fatalf("error %v", err)
			}
			return
		}
		// Numbers and maps have more than one encoding, so only the meaning
		// has to survive.
		again, err := DecodeRecord(AppendRecord(nil, &r), 5)
		if err != nil || again.Header != r.Header || !bytes.Equal(again.Value, r.Value) || again.ContentType != r.ContentType {
			t.Fatalf("%+v encodes to %+v, %v", r, again, err)
		}
		if header, err := DecodeHeader(b, 5); err != nil || header != r.Header {
			t.Fatalf("header %+v, %v", header, err)
		}
	})
}

func FuzzNextSnapshotRecord(f *testing.F) {
	f.Add(AppendSnapshotRecord(nil, []byte("k"), 1, []byte("v"), false))
	f.Add(AppendSnapshotRecord(AppendSnapshotRecord(nil, nil, 2, nil, true), []byte("k2"), 3, []byte("v2"), false))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			key, rev, value, del, rest, err := NextSnapshotRecord(b)
			if err != nil {
				if !refused(err) {
					t.Fatalf("error %v", err)
				}
				return
			}
			again := AppendSnapshotRecord(nil, key, rev, value, del)
			if k, r, v, d, _, err := NextSnapshotRecord(again); err != nil || !bytes.Equal(k, key) || r != rev || !bytes.Equal(v, value) || d != del {
				t.Fatalf("does not survive: %v", err)
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
		}
	})
}

func BenchmarkDecodeHeader(b *testing.B) {
	r := sampleRecords()[3]
	buf := AppendRecord(nil, &r)
	b.ReportAllocs()
	for range b.N {
		if _, err := DecodeHeader(buf, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeRecord(b *testing.B) {
	r := valueRecord(strings.Repeat("v", 100))
	buf := AppendRecord(nil, &r)
	b.ReportAllocs()
	for range b.N {
		if _, err := DecodeRecord(buf, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRecord(b *testing.B) {
	r := valueRecord(strings.Repeat("v", 100))
	var buf []byte
	b.ReportAllocs()
	for range b.N {
		buf = AppendRecord(buf[:0], &r)
	}
}

func TestRecordSize(t *testing.T) {
	records := sampleRecords()
	for shift := range 64 {
		n := uint64(1) << shift
		records = append(records, Record{Header: Header{Version: n, Size: n - 1, Flags: FlagChunked, Chunks: ChunkRef{Count: uint32(n)}}})
	}
	for i := range records {
		if n := len(AppendRecord(nil, &records[i])); RecordSize(&records[i]) != n {
			t.Errorf("record %d: size %d, has %d bytes", i, RecordSize(&records[i]), n)
		}
	}
}
