package mvcc

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/engine/mem"
	"kvstore/internal/keyspace"
)

// flaky fails the write with a given number, half done, and can fail Sync.
type flaky struct {
	*mem.Mem
	failWrite int
	failSync  bool
	syncs     int
}

var errFlaky = errors.New("disk fell over")

func (f *flaky) Write(ctx context.Context, writes []engine.Write) error {
	f.failWrite--
	if f.failWrite != 0 {
		return f.Mem.Write(ctx, writes)
	}
	if err := f.Mem.Write(ctx, writes[:len(writes)/2]); err != nil {
		return err
	}
	return errFlaky
}

func (f *flaky) Sync() error {
	if f.failSync {
		return errFlaky
	}
	f.syncs++
	return f.Mem.Sync()
}

func fill(s *Store, inst keyspace.InstanceID, from, to keyspace.Revision) {
	for rev := from; rev <= to; rev++ {
		s.Insert(inst, fmt.Appendf(nil, "key%03d", rev%100), rev, fmt.Appendf(nil, "value%d", rev), false)
	}
}

func mustCount(t *testing.T, s *Store, inst keyspace.InstanceID, want int) {
	t.Helper()
	v := s.View()
	defer v.Close()
	scan := v.Scan(ScanOptions{Instance: inst, At: keyspace.MaxRevision, AllVersions: true})
	defer scan.Close()
	got := 0
	for ; scan.Valid(); scan.Next() {
		got++
	}
	if got != want || scan.Err() != nil {
		t.Fatalf("instance %d has %d versions, error %v, want %d", inst, got, scan.Err(), want)
	}
}

// DESIGN 5: a flush is durable before its delta goes.
func TestFlushFailuresKeepTheDelta(t *testing.T) {
	eng := &flaky{Mem: mem.Open()}
	s := New(eng, Options{FlushBatchBytes: 512})
	fill(s, 1, 1, 100)
	sealed := s.Seal()
	for _, fault := range []func(){
		func() { eng.failWrite = 3 },
		func() { eng.failSync = true },
	} {
		fault()
		id, ok, err := s.FlushOldest(context.Background(), nil)
		if !errors.Is(err, errFlaky) || !ok || id != sealed || s.Oldest() != sealed {
			t.Fatalf("flush returned %d, %t, %v; oldest is %d", id, ok, err, s.Oldest())
		}
		mustCount(t, s, 1, 100)
		eng.failWrite, eng.failSync = 0, false
	}
	if id, ok, err := s.FlushOldest(context.Background(), nil); err != nil || !ok || id != sealed {
		t.Fatalf("flush returned %d, %t, %v", id, ok, err)
	}
	if eng.syncs != 1 || s.Oldest() != s.Active() || eng.Unsynced() != 0 {
		t.Fatalf("%d syncs, oldest delta %d, active %d, %d unsynced", eng.syncs, s.Oldest(), s.Active(), eng.Unsynced())
	}
	mustCount(t, s, 1, 100)
	if _, ok, err := s.FlushOldest(context.Background(), nil); ok || err != nil {
		t.Fatalf("a second flush returned %t, %v", ok, err)
	}
}

func TestFlushStopsWithContext(t *testing.T) {
	s := New(mem.Open(), Options{})
	fill(s, 1, 1, 10)
	s.Seal()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, ok, err := s.FlushOldest(ctx, nil); !ok || !errors.Is(err, context.Canceled) {
		t.Fatalf("flush returned %t, %v", ok, err)
	}
}

// DESIGN 4: a flush skips dead instances.
func TestFlushSkipsDeadInstances(t *testing.T) {
	eng := mem.Open()
	s := New(eng, Options{})
	for inst := keyspace.InstanceID(1); inst <= 3; inst++ {
		fill(s, inst, 1, 20)
	}
	s.Seal()
	asked := map[keyspace.InstanceID]int{}
	_, _, err := s.FlushOldest(context.Background(), func(i keyspace.InstanceID) bool {
		asked[i]++
		return i != 2
	})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(asked) != "map[1:1 2:1 3:1]" {
		t.Errorf("asked %v, want once per instance", asked)
	}
	if got, err := eng.Instances(context.Background()); err != nil || fmt.Sprint(got) != "[1 3]" {
		t.Fatalf("the engine has instances %v, error %v", got, err)
	}
}

func TestSealAndFullBounds(t *testing.T) {
	s := New(mem.Open(), Options{SealBytes: 4 << 10, MaxSealed: 2})
	var rev keyspace.Revision
	fillActive := func() {
		for s.ActiveBytes() < 4<<10 {
			rev++
			fill(s, 1, rev, rev)
		}
	}
	for range 2 {
		if s.NeedSeal() || s.Full() {
			t.Fatalf("an active delta of %d bytes: need seal %t, full %t", s.ActiveBytes(), s.NeedSeal(), s.Full())
		}
		fillActive()
		if !s.NeedSeal() || s.Full() {
			t.Fatalf("a large active delta: need seal %t, full %t", s.NeedSeal(), s.Full())
		}
		s.Seal()
	}
	fillActive()
	if s.NeedSeal() || !s.Full() {
		t.Fatalf("with two sealed deltas: need seal %t, full %t", s.NeedSeal(), s.Full())
	}
	if got, limit := s.Bytes(), int64(3*(4<<10+200)); got > limit || got < 3*4<<10 {
		t.Fatalf("all deltas have %d bytes, want up to %d", got, limit)
	}
	if _, _, err := s.FlushOldest(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	if !s.NeedSeal() || s.Full() {
		t.Fatalf("after a flush: need seal %t, full %t", s.NeedSeal(), s.Full())
	}
}

// The host seals by time too, so a flush that cannot proceed piles up deltas.
func TestManyDeltas(t *testing.T) {
	eng := &flaky{Mem: mem.Open()}
	s := New(eng, Options{})
	for rev := keyspace.Revision(1); rev <= 100; rev++ {
		fill(s, 1, rev, rev)
		s.Seal()
		s.Seal() // empty
	}
	mustCount(t, s, 1, 100)
	for s.Sealed() > 0 {
		if _, _, err := s.FlushOldest(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
	}
	if eng.syncs != 100 {
		t.Errorf("%d syncs, want none for empty deltas", eng.syncs)
	}
	mustCount(t, s, 1, 100)
}

// After a crash the deltas are gone and any unsynced part of the engine with
// them; inserting again from the checkpoint on restores everything (DESIGN 5).
func TestReplayAfterCrashIsIdempotent(t *testing.T) {
	eng := &flaky{Mem: mem.Open()}
	s := New(eng, Options{FlushBatchBytes: 300})
	fill(s, 1, 1, 50)
	s.Seal()
	if _, _, err := s.FlushOldest(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	checkpoint := keyspace.Revision(50)
	fill(s, 1, 51, 100)
	s.Seal()
	eng.failSync = true
	if _, _, err := s.FlushOldest(context.Background(), nil); err == nil {
		t.Fatal("flushed without a sync")
	}
	after := New(eng.Crash(func(i int) bool { return i%3 == 0 }), Options{})
	fill(after, 1, checkpoint+1, 100)
	mustCount(t, after, 1, 100)
	after.Seal()
	if _, _, err := after.FlushOldest(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	mustCount(t, after, 1, 100)
}

func TestInsertRefusesReservedRevisions(t *testing.T) {
	s := New(mem.Open(), Options{})
	for _, rev := range []keyspace.Revision{0, keyspace.MaxRevision} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("revision %d was accepted", uint64(rev))
				}
			}()
			s.Insert(1, []byte("k"), rev, nil, false)
		}()
	}
}

// scanErr ends with an error after a few keys.
type brokenEngine struct{ *mem.Mem }

type brokenReader struct{ engine.Reader }

type brokenIterator struct {
	engine.Iterator
	left int
}

func (b brokenEngine) Reader() engine.Reader { return brokenReader{b.Mem.Reader()} }
func (b brokenReader) Iterate(o engine.IterOptions) engine.Iterator {
	return &brokenIterator{b.Reader.Iterate(o), 2}
}
func (b *brokenIterator) Valid() bool { return b.left > 0 && b.Iterator.Valid() }
func (b *brokenIterator) Next()       { b.left--; b.Iterator.Next() }
func (b *brokenIterator) Err() error {
	if b.left == 0 {
		return errFlaky
	}
	return nil
}

func TestScanReportsEngineErrors(t *testing.T) {
	s := New(brokenEngine{mem.Open()}, Options{})
	fill(s, 1, 1, 5)
	s.Seal()
	if _, _, err := s.FlushOldest(context.Background(), nil); err != nil {
		t.Fatal(err)
	}
	fill(s, 1, 6, 9) // the deltas alone would go on
	v := s.View()
	defer v.Close()
	scan := v.Scan(ScanOptions{Instance: 1, At: 100})
	defer scan.Close()
	n := 0
	for ; scan.Valid(); scan.Next() {
		n++
	}
	if n != 2 || !errors.Is(scan.Err(), errFlaky) {
		t.Fatalf("scanned %d keys, error %v", n, scan.Err())
	}
}
