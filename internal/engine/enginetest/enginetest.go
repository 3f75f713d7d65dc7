package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// Harness makes engines under test.
type Harness struct {
	// Open returns an empty engine.
	Open func(t testing.TB) engine.Engine
	// Reopen closes e and opens it again.
	Reopen func(t testing.TB, e engine.Engine) engine.Engine
	// LargeValue is a size of values that the engine stores apart, 0 if none.
	LargeValue int
}

// Run runs the contract.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"Versions", testVersions},
		{"ReadersSeeWhatFollows", testReadersSeeWhatFollows},
		{"EmptyValue", testEmptyValue},
		{"Model", testModel},
		{"ReopenKeepsSynced", testReopen},
		{"FloorKeepsReadsAboveIt", testFloor},
		{"IteratorsDuringWrites", testIteratorsDuringWrites},
		{"Instances", testInstances},
		{"WriteStopsWithContext", testContext},
		{"Concurrent", testConcurrent},
		{"EstimateBytes", testEstimate},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, h) })
	}
}

func (h Harness) open(t testing.TB) engine.Engine {
	t.Helper()
	e := h.Open(t)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

func mustWrite(t testing.TB, e engine.Engine, writes ...engine.Write) {
	t.Helper()
	if err := e.Write(context.Background(), writes); err != nil {
		t.Fatalf("write: %v", err)
	}
}

func key(i keyspace.InstanceID, k string) []byte {
	return append(keyspace.AppendInstance(nil, i), k...)
}

func wantGet(t testing.TB, r engine.Reader, m model, k []byte, at keyspace.Revision) {
	t.Helper()
	value, rev, ok, err := r.Get(k, at)
	if err != nil {
		t.Fatalf("get %x at %d: %v", k, at, err)
	}
	want := m.get(k, at)
	if want == nil || want.Delete {
		if ok {
			t.Fatalf("get %x at %d: found version %d, want none", k, uint64(at), uint64(rev))
		}
		return
	}
	if !ok || rev != want.Revision || !bytes.Equal(value, want.Value) {
		t.Fatalf("get %x at %d: got ok=%t version %d (%d bytes), want %s",
			k, uint64(at), ok, uint64(rev), len(value), show(*want))
	}
}

func testVersions(t *testing.T, h Harness) {
	e := h.open(t)
	m := model{}
	k := key(1, "k")
	for _, w := range []engine.Write{
		{Key: k, Revision: 30, Value: []byte("c")}, // older versions may come later
		{Key: k, Revision: 10, Value: []byte("a")},
		{Key: k, Revision: 20, Delete: true},
		{Key: key(1, "kk"), Revision: 15, Value: []byte("longer key")},
		{Key: key(2, "k"), Revision: 15, Value: []byte("other instance")},
		{Key: k, Revision: keyspace.MaxRevision - 1, Value: []byte("last")},
	} {
		mustWrite(t, e, w)
		m.write([]engine.Write{w})
	}
	r := e.Reader()
	defer r.Close()
	for _, at := range []keyspace.Revision{1, 9, 10, 11, 19, 20, 29, 30, 31, keyspace.MaxRevision - 2, keyspace.MaxRevision - 1, keyspace.MaxRevision} {
		wantGet(t, r, m, k, at)
		wantGet(t, r, m, key(1, "kk"), at)
		wantGet(t, r, m, key(2, "k"), at)
		wantGet(t, r, m, key(1, "absent"), at)
	}
}

// A reader sees with each call what was written before that call.
func testReadersSeeWhatFollows(t *testing.T, h Harness) {
	e := h.open(t)
	r := e.Reader()
	defer r.Close()
	k := key(1, "k")
	for rev := keyspace.Revision(1); rev <= 3; rev++ {
		mustWrite(t, e, engine.Write{Key: k, Revision: rev, Value: []byte("v")})
		if _, got, ok, err := r.Get(k, keyspace.MaxRevision); err != nil || !ok || got != rev {
			t.Fatalf("get after version %d: %d, %t, %v", uint64(rev), uint64(got), ok, err)
		}
		it := r.Iterate(engine.IterOptions{At: keyspace.MaxRevision})
		if !it.Valid() || it.Revision() != rev {
			t.Fatalf("iterate after version %d: %v", uint64(rev), it.Err())
		}
		it.Close()
	}
}

func testEmptyValue(t *testing.T, h Harness) {
	e := h.open(t)
	k := key(1, "empty")
	mustWrite(t, e, engine.Write{Key: k, Revision: 7})
	for range 2 {
		r := e.Reader()
		value, rev, ok, err := r.Get(k, 7)
		if err != nil || !ok || rev != 7 || len(value) != 0 {
			t.Fatalf("got %q, %d, %t, %v", value, rev, ok, err)
		}
		it := r.Iterate(engine.IterOptions{At: 7})
		if got := collect(t, it); len(got) != 1 {
			t.Fatalf("iterated over %d keys, want 1", len(got))
		}
		it.Close()
		r.Close()
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

// testFloor cannot demand that something is forgotten, only that what is
// visible at or above the floor is not.
func testFloor(t *testing.T, h Harness) {
	e := h.open(t)
	m := model{}
	rng := newRandom(t, h)
	var last, floor keyspace.Revision
	for range 40 {
		batch := rng.batch(&last)
		mustWrite(t, e, batch...)
		m.write(batch)
		if last > 50 {
			floor = last - 50
			e.SetFloor(floor)
			e.SetFloor(floor / 2) // ignored
		}
		if got := e.Stats().Floor; got != floor {
			t.Fatalf("floor is %d, want %d", got, floor)
		}
		r := e.Reader()
		for range 20 {
			wantGet(t, r, m, rng.key(), floor+keyspace.Revision(rng.Uint64N(uint64(last-floor)+1)))
		}
		r.Close()
	}
}

func testIteratorsDuringWrites(t *testing.T, h Harness) {
	e := h.open(t)
	m := model{}
	rng := newRandom(t, h)
	var last keyspace.Revision
	for range 10 {
		batch := rng.batch(&last)
		mustWrite(t, e, batch...)
		m.write(batch)
	}
	at := last
	r := e.Reader()
	defer r.Close()
	for _, o := range []engine.IterOptions{{At: at}, {At: at, Reverse: true}, {At: at, AllVersions: true}} {
		it := r.Iterate(o)
		var got []engine.Write
		for ; it.Valid(); it.Next() {
			value, err := it.Value()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, engine.Write{Key: bytes.Clone(it.Key()), Revision: it.Revision(), Value: bytes.Clone(value), Delete: it.Deleted()})
			mustWrite(t, e, rng.batch(&last)...)
		}
		if it.Err() != nil {
			t.Fatal(it.Err())
		}
		it.Close()
		if err := equal(got, m.scan(o)); err != nil {
			t.Fatalf("iterate %+v during writes: %v", o, err)
		}
	}
}

func testInstances(t *testing.T, h Harness) {
	e := h.open(t)
	ctx := context.Background()
	var last keyspace.Revision
	wantInstances := func(want ...keyspace.InstanceID) {
		t.Helper()
		got, err := e.Instances(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("instances %v, want %v", got, want)
		}
	}
	wantInstances()
	for _, i := range []keyspace.InstanceID{1, 2, 255, 256, 1 << 40} {
		var writes []engine.Write
		for n := range 300 {
			last++
			writes = append(writes, engine.Write{Key: key(i, fmt.Sprint("key", n%200)), Revision: last, Value: make([]byte, h.LargeValue+1)})
		}
		mustWrite(t, e, writes...)
	}
	wantInstances(1, 2, 255, 256, 1<<40)
	for range 2 { // again is harmless
		if err := e.DeleteInstance(ctx, 255); err != nil {
			t.Fatal(err)
		}
	}
	wantInstances(1, 2, 256, 1<<40)
	r := e.Reader()
	defer r.Close()
	if _, _, ok, err := r.Get(key(255, "key7"), keyspace.MaxRevision); ok || err != nil {
		t.Fatalf("a key of a deleted instance: found %t, error %v", ok, err)
	}
	it := r.Iterate(engine.IterOptions{Lower: key(2, ""), Upper: key(3, ""), At: last})
	defer it.Close()
	if got := len(collect(t, it)); got != 200 {
		t.Fatalf("the instance beside has %d keys, want 200", got)
	}
}

func testContext(t *testing.T, h Harness) {
	e := h.open(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := e.Write(ctx, []engine.Write{{Key: key(1, "k"), Revision: 1}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("write returned %v, want canceled", err)
	}
}
