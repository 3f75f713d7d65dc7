package badger

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// A flush hands over large values a few at a time; with each Badger must not
// make room for as many writes as fit into a memtable.
func TestWritingFewLargeValuesAllocatesLittle(t *testing.T) {
	o := testOptions()
	o.MemtableSize = DefaultOptions().MemtableSize
	o.ValueLogFileSize = DefaultOptions().ValueLogFileSize
	e, err := open(t.TempDir(), o, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	defer mustClose(t, e)
	const (
		rounds     = 20
		valueBytes = 128 << 10
	)
	value := bytes.Repeat([]byte{7}, valueBytes)
	key := keyspace.AppendInstance(nil, 1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for rev := keyspace.Revision(2); rev <= 2*rounds; rev += 2 {
		if err := e.Write(t.Context(), []engine.Write{{Key: key, Revision: rev - 1, Value: value}, {Key: key, Revision: rev, Value: value}}); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	const limit = 4 * valueBytes
	if each := (after.TotalAlloc - before.TotalAlloc) / rounds; each > limit {
		t.Errorf("writing two values of %d bytes allocates %d bytes, want at most %d", valueBytes, each, limit)
	} else {
		t.Logf("%d bytes allocated for two values of %d", each, valueBytes)
	}
}
