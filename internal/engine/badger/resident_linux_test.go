package badger

import (
	"bytes"
	"context"
	"testing"
	"time"

	"kvstore/internal/engine"
)

// What is mapped leaves memory when it is more than the bound, and is read from
// the disk again.
func TestMappedFilesLeaveMemory(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	const keys, largest = 200, 20_000
	value := func(k int) []byte { return bytes.Repeat([]byte{byte(k)}, 100+k*(largest-100)/keys) }
	var writes []engine.Write
	for k := range keys {
		writes = append(writes, engine.Write{Key: historyKey(k), Revision: 1, Value: value(k)})
	}
	if err := e.Write(t.Context(), writes); err != nil {
		t.Fatal(err)
	}
	mustClose(t, e) // there is a table then
	e = mustOpen(t, dir)
	defer mustClose(t, e)
	read := func() {
		r := e.Reader()
		defer r.Close()
		for k := range keys {
			if got, _, ok, err := r.Get(historyKey(k), 1); !ok || err != nil || !bytes.Equal(got, value(k)) {
				t.Fatalf("key %d: %d bytes, found %v, %v", k, len(got), ok, err)
			}
		}
	}
	reads := readsOfUsers()
	read()
	if got := readsOfUsers() - reads; got < keys {
		t.Errorf("%d reads were counted, there were %d", got, keys)
	}
	before := mustResident(t, e)
	if before < keys*largest/4 {
		t.Fatalf("%d bytes of what was read are in memory", before)
	}

	look := func(limit, reads int64) (left int64) {
		sum, looks := int64(0), 0
		counted := func() int64 { sum += reads; return sum }
		e.resident(limit, counted, func(time.Duration) bool { looks++; return looks == 1 })
		return mustResident(t, e)
	}
	if got := look(1<<40, 0); got != before {
		t.Errorf("%d bytes are in memory, %d before; the bound is higher", got, before)
	}
	if got := look(before/2, quietReads+1); got != before {
		t.Errorf("%d bytes are in memory, %d before, while much is read", got, before)
	}
	if got := look(before/2, quietReads); got > before/2 {
		t.Errorf("%d bytes are in memory, at most %d may", got, before/2)
	}
	read()
	if got := mustResident(t, e); got < before/2 {
		t.Errorf("%d bytes of what was read again are in memory, %d before", got, before)
	}
}

func mustResident(t *testing.T, e *Engine) int64 {
	t.Helper()
	sum, err := residentBytes(e.pagedOut)
	if err != nil {
		t.Fatal(err)
	}
	if filePages() <= 0 {
		t.Error("the memory of this process that shows files is not known")
	}
	return sum
}

// The goroutine that looks ends with the engine.
func TestResidentEndsWithTheEngine(t *testing.T) {
	o := testOptions()
	o.ResidentBytes = 1
	e, err := open(t.TempDir(), o, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	mustClose(t, e)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e.boundResident(ctx, 1)
}
