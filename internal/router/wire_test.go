package router

import (
	"fmt"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
)

func wireRecords() map[string]*format.Record {
	full := format.Header{Version: math.MaxUint64, Revision: math.MaxUint64, Created: 1 << 40, Expires: math.MaxInt64,
		Size: 300, Checksum: math.MaxUint32}
	return map[string]*format.Record{
		"empty":   {},
		"plain":   {Header: format.Header{Version: 1, Revision: 99 << 16, Created: 98 << 16, Size: 5, Checksum: 7}, Value: []byte("value")},
		"numbers": {Header: full, Value: make([]byte, 300), ContentType: "text/plain", Encoding: "gzip"},
		"leased":  {Header: format.Header{Version: 1, Revision: 99 << 16, Created: 98 << 16, Lease: "{jobs}worker"}},
		"maps": {Header: full, Tags: map[string]string{"a": "1", "": "", "empty": ""},
			Metadata: map[string]string{"m": string(make([]byte, 200))}},
	}
}

func TestWireRecords(t *testing.T) {
	for name, rec := range wireRecords() {
		for _, keysOnly := range []bool{false, true} {
			key := "key/" + name
			got, w := appendRecord([]byte("before"), []byte(key), rec, keysOnly)
			got = got[len("before"):]
			want := new(api.Record)
			fillRecord(want, key, rec, keysOnly)
			page := &api.ListResponse{}
			if err := proto.Unmarshal(got, page); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if len(page.Records) != 1 || !proto.Equal(page.Records[0], want) {
				t.Fatalf("%s: got %v, want %v", name, page, want)
			}
			if n := proto.Size(want); w.size() != n || len(got) != proto.Size(page) {
				t.Fatalf("%s: %d bytes, want %d", name, w.size(), n)
			}
		}
	}
}

func TestFindRecords(t *testing.T) {
	var page []byte
	var want []wireRecord
	for i := range 20 {
		var w wireRecord
		page, w = appendRecord(page, fmt.Append(nil, "k", i), wireRecords()["maps"], i%2 == 0)
		want = append(want, w)
	}
	got, ok := findRecords(page)
	if !ok || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("got %v, want %v", got, want)
	}
	for n := range page {
		got, ok := findRecords(page[:n]) // must not panic, and be whole if it is taken
		if ok && n > 0 && got[len(got)-1].to != n {
			t.Fatalf("%d bytes of %d taken as %v", n, len(page), got)
		}
	}
}

// A record of a list costs no allocation of its own.
func TestScannedRecordsAllocateNothing(t *testing.T) {
	rec := wireRecords()["plain"]
	key := []byte("some key")
	p := &scanPage{bytes: make([]byte, 0, 1<<16), records: make([]wireRecord, 0, 1<<10)}
	add := p.add(false)
	if n := testing.AllocsPerRun(100, func() { add(key, rec) }); n > 0 {
		t.Fatalf("%v allocations", n)
	}
}
