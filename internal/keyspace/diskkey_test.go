package keyspace

import (
	"bytes"
	"sort"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
)

var sampleKeys = []string{
	"", "\x00", "\x00\x00", "\x00\x01", "\x00\xff", "\x01", "a", "a\x00", "a\x00b", "a\x00\xffb",
	"a\x01", "ab", "b", "key/with/slashes", "ключ", "\u007f", "\U0010ffff", "\xff", "\xff\xff",
	strings.Repeat("\x00", MaxKeyBytes), strings.Repeat("k", MaxKeyBytes),
}

func TestDataKeysSortAsUserKeys(t *testing.T) {
	keys := append([]string(nil), sampleKeys...)
	sort.Strings(keys)
	var last []byte
	for _, ns := range []NamespaceID{0, 1, 255, 256, 1 << 31} {
		for _, k := range keys {
			disk := AppendDataKey(nil, ns, []byte(k))
			if bytes.Compare(last, disk) >= 0 {
				t.Fatalf("%d %q does not sort after the one before", ns, k)
			}
			last = disk
			gotNS, got, err := DecodeDataKey(disk)
			if err != nil || gotNS != ns || string(got) != k {
				t.Fatalf("%d %q decodes to %d %q, %v", ns, k, gotNS, got, err)
			}
			if n := InstanceBytes + len(disk); n > MaxDiskKeyBytes {
				t.Fatalf("a disk key of %d bytes, limit %d", n, MaxDiskKeyBytes)
			}
		}
	}
}

// checkPrefix wants the disk prefix to cover a key exactly if the user prefix
// does.
func checkPrefix(t *testing.T, prefix, key string) {
	t.Helper()
	lower := AppendDataPrefix(nil, 1, []byte(prefix))
	upper := PrefixEnd(lower)
	disk := AppendDataKey(nil, 1, []byte(key))
	covered := bytes.Compare(disk, lower) >= 0 && bytes.Compare(disk, upper) < 0
	if want := strings.HasPrefix(key, prefix); covered != want {
		t.Fatalf("prefix %q covers key %q: %t, want %t", prefix, key, covered, want)
	}
}

func TestDataPrefixIsExact(t *testing.T) {
	for _, prefix := range sampleKeys {
		for _, key := range sampleKeys {
			checkPrefix(t, prefix, key)
			checkPrefix(t, prefix, prefix+key)
		}
	}
}

func TestDecodeRefusesDamagedKeys(t *testing.T) {
	good := AppendDataKey(nil, 1, []byte("a\x00b"))
	for _, b := range [][]byte{
		nil, good[:3], good[:len(good)-1], append(bytes.Clone(good), 0),
		AppendDataPrefix(nil, 1, []byte("abc")),
		append(AppendDataPrefix(nil, 1, nil), 'a', 0, 'b', 0, 1),
		append(AppendDataPrefix(nil, 1, nil), 'a', 0, 0, 1),
		AppendChunkKey(nil, 5, 6),
	} {
		if _, _, err := DecodeDataKey(b); fault.CodeOf(err) != fault.Corruption {
			t.Errorf("%x decodes with error %v, want corruption", b, err)
		}
	}
	if _, _, err := DecodeChunkKey(good); fault.CodeOf(err) != fault.Corruption {
		t.Errorf("a data key is taken for a chunk key: %v", err)
	}
	if _, _, err := DecodeInstance([]byte("1234567")); fault.CodeOf(err) != fault.Corruption {
		t.Errorf("a short instance: %v", err)
	}
}

func TestChunkAndInstanceKeys(t *testing.T) {
	var last []byte
	for _, upload := range []Revision{1, 2, 1 << 40, MaxRevision} {
		for _, n := range []uint32{0, 1, 255, 256, 1<<32 - 1} {
			b := AppendChunkKey(nil, upload, n)
			if bytes.Compare(last, b) >= 0 || KindOf(b) != KindChunk {
				t.Fatalf("chunk %d of %d does not sort after the one before", n, upload)
			}
			last = b
			if u, m, err := DecodeChunkKey(b); err != nil || u != upload || m != n {
				t.Fatalf("chunk %d of %d decodes to %d of %d, %v", n, upload, m, u, err)
			}
		}
	}
	i, rest, err := DecodeInstance(append(AppendInstance(nil, 77), "rest"...))
	if i != 77 || string(rest) != "rest" || err != nil {
		t.Fatalf("got %d %q %v", i, rest, err)
	}
	if KindOf(nil) != 0 {
		t.Error("an empty key has a kind")
	}
}

// Keys of the index sort by deadline, then as the records' keys do, apart from all
// other kinds.
func TestTTLKeys(t *testing.T) {
	keys := append([]string(nil), sampleKeys...)
	sort.Strings(keys)
	last := AppendChunkKey(nil, MaxRevision, 1<<32-1)
	for _, deadline := range []int64{0, 1, 255, 256, 1 << 40, 1<<63 - 1} {
		if bound := AppendTTLPrefix(nil, deadline); bytes.Compare(last, bound) >= 0 {
			t.Fatalf("the bound of %d does not sort after the one before", deadline)
		}
		for _, k := range keys {
			data := AppendDataKey(nil, 7, []byte(k))
			b := AppendTTLKey(nil, deadline, data)
			if bytes.Compare(last, b) >= 0 || KindOf(b) != KindTTL || InstanceBytes+len(b) > MaxDiskKeyBytes {
				t.Fatalf("%d %q: %x", deadline, k, b)
			}
			last = b
			at, got, err := DecodeTTLKey([]byte("x"), b)
			if err != nil || at != deadline || string(got) != "x"+string(data) {
				t.Fatalf("%d %q decodes to %d %q, %v", deadline, k, at, got, err)
			}
		}
	}
	for _, b := range [][]byte{nil, last[:9], AppendDataKey(nil, 1, []byte("a long key of a record")), AppendTTLKey(nil, -1, AppendDataKey(nil, 1, []byte("k"))), append(bytes.Clone(last), 0)} {
		if _, _, err := DecodeTTLKey(nil, b); fault.CodeOf(err) != fault.Corruption {
			t.Errorf("%x decodes with %v", b, err)
		}
	}
}

func TestPrefixEnd(t *testing.T) {
	for in, want := range map[string]string{"a": "b", "a\xff": "b", "\x00": "\x01", "\xfe\xff\xff": "\xff"} {
		if got := PrefixEnd([]byte(in)); string(got) != want {
			t.Errorf("the end of %q is %q, want %q", in, got, want)
		}
	}
	for _, in := range []string{"", "\xff", "\xff\xff"} {
		if got := PrefixEnd([]byte(in)); got != nil {
			t.Errorf("the end of %q is %q, want none", in, got)
		}
	}
}

func FuzzDataKeys(f *testing.F) {
	for i, k := range sampleKeys {
		f.Add(uint32(i), k, sampleKeys[(i*7+3)%len(sampleKeys)])
	}
	f.Fuzz(func(t *testing.T, ns uint32, a, b string) {
		diskA := AppendDataKey(nil, NamespaceID(ns), []byte(a))
		diskB := AppendDataKey(nil, NamespaceID(ns), []byte(b))
		if strings.Compare(a, b) != bytes.Compare(diskA, diskB) {
			t.Fatalf("%q and %q sort differently on disk", a, b)
		}
		gotNS, got, err := DecodeDataKey(diskA)
		if err != nil || uint32(gotNS) != ns || string(got) != a {
			t.Fatalf("%q decodes to %d %q, %v", a, gotNS, got, err)
		}
		checkPrefix(t, a, b)
		checkPrefix(t, a, a+b)
	})
}

func FuzzDecodeDataKey(f *testing.F) {
	for _, k := range sampleKeys {
		f.Add(AppendDataKey(nil, 9, []byte(k)))
	}
	f.Add([]byte("\x01\x00\x00\x00\x01a\x00b\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ns, key, err := DecodeDataKey(b)
		if err != nil {
			if fault.CodeOf(err) != fault.Corruption {
				t.Fatalf("error %v, want corruption", err)
			}
			return
		}
		if again := AppendDataKey(nil, ns, key); !bytes.Equal(again, b) {
			t.Fatalf("%x decodes to %d %q, which encodes to %x", b, ns, key, again)
		}
	})
}

// TestCommonPrefixAndHead: what two keys begin with alike, byte by byte, and that heads
// behind it are in the order of the keys.
func TestCommonPrefixAndHead(t *testing.T) {
	key := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 255}), 0, 30)
	rapid.Check(t, func(t *rapid.T) {
		shared := key.Draw(t, "shared")
		a := append(bytes.Clone(shared), key.Draw(t, "a")...)
		b := append(bytes.Clone(shared), key.Draw(t, "b")...)
		want := 0
		for want < min(len(a), len(b)) && a[want] == b[want] {
			want++
		}
		if got := CommonPrefix(a, b); got != want || CommonPrefix(b, a) != want {
			t.Fatalf("%x and %x begin with %d bytes alike, want %d", a, b, got, want)
		}
		for skip := range want + 1 {
			if x, y := Head(a, skip), Head(b, skip); x != y && (x < y) != (bytes.Compare(a, b) < 0) {
				t.Fatalf("heads %x of %x, %x of %x from %d on", x, a, y, b, skip)
			}
		}
	})
}
