package mvcc

import (
	"context"
	"encoding/binary"
	"testing"

	"kvstore/internal/engine/mem"
	"kvstore/internal/env/osfs"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

const benchKeys = 1 << 17

// benchKey spreads n over the key space.
func benchKey(n int) []byte {
	key := append(make([]byte, 0, 32), "\x01\x00\x00\x00\x01user/"...)
	key = binary.BigEndian.AppendUint64(key, uint64(n)*0x9e3779b97f4a7c15)
	return append(key, 0, 1)
}

func benchStore(tb testing.TB) (*Store, [][]byte) {
	tb.Helper()
	s := New(mem.Open(), Options{})
	keys := make([][]byte, benchKeys)
	value := make([]byte, 100)
	for i := range keys {
		keys[i] = benchKey(i)
		s.Insert(1, keys[i], keyspace.Revision(i+1), value, false)
	}
	return s, keys
}

func TestGetFromDeltaDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("counts mean nothing under the race detector")
	}
	s, keys := benchStore(t)
	v := s.View()
	defer v.Close()
	i := 0
	allocs := testing.AllocsPerRun(1000, func() {
		i++
		if _, _, ok, err := v.Get(1, keys[i], keyspace.MaxRevision); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if _, _, _, ok := s.Latest(1, keys[i]); !ok {
			t.Fatal("not there")
		}
	})
	if allocs != 0 {
		t.Errorf("a get from a delta makes %v allocations, want none", allocs)
	}
}

func TestViewIsOneAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("counts mean nothing under the race detector")
	}
	s, keys := benchStore(t)
	allocs := testing.AllocsPerRun(1000, func() {
		v := s.View()
		if _, _, ok, err := v.Get(1, keys[1], keyspace.MaxRevision); !ok || err != nil {
			t.Fatal(ok, err)
		}
		v.Close()
	})
	if allocs > 1 {
		t.Errorf("a view with a get makes %v allocations, want one", allocs)
	}
}

func TestInsertAllocatesInSlabs(t *testing.T) {
	if raceEnabled {
		t.Skip("counts mean nothing under the race detector")
	}
	s, keys := benchStore(t)
	i := 0
	allocs := testing.AllocsPerRun(100, func() {
		for range 100 {
			i++
			s.Insert(1, keys[i], keyspace.Revision(benchKeys+i), nil, false)
		}
	})
	if allocs > 2 {
		t.Errorf("100 insertions make %v allocations, want at most 2", allocs)
	}
}

func BenchmarkInsert(b *testing.B) {
	value := make([]byte, 100)
	keys := make([][]byte, benchKeys)
	for i := range keys {
		keys[i] = benchKey(i)
	}
	var s *Store
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if i%benchKeys == 0 {
			s = New(mem.Open(), Options{})
		}
		s.Insert(1, keys[i%benchKeys], keyspace.Revision(i+1), value, false)
	}
}

func BenchmarkGetDelta(b *testing.B) {
	s, keys := benchStore(b)
	v := s.View()
	defer v.Close()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		if _, _, ok, _ := v.Get(1, keys[(i*7919)%benchKeys], keyspace.MaxRevision); !ok {
			b.Fatal("not there")
		}
	}
}

func BenchmarkGetAbsent(b *testing.B) {
	s, _ := benchStore(b)
	v := s.View()
	defer v.Close()
	absent := benchKey(benchKeys + 1)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		if _, _, ok, _ := v.Get(1, absent, keyspace.MaxRevision); ok {
			b.Fatal("there")
		}
	}
}

func BenchmarkScanKeys(b *testing.B) {
	for _, mode := range []struct {
		name string
		o    ScanOptions
	}{
		{"forward", ScanOptions{Instance: 1, At: keyspace.MaxRevision}},
		{"reverse", ScanOptions{Instance: 1, At: keyspace.MaxRevision, Reverse: true}},
		{"versions", ScanOptions{Instance: 1, At: keyspace.MaxRevision, AllVersions: true}},
	} {
		b.Run(mode.name, func(b *testing.B) {
			s, _ := benchStore(b)
			v := s.View()
			defer v.Close()
			scan := v.Scan(mode.o)
			defer func() { scan.Close() }()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if !scan.Valid() {
					scan.Close()
					scan = v.Scan(mode.o)
				}
				scan.Next()
			}
		})
	}
}

func BenchmarkFlush(b *testing.B) {
	s, _ := benchStore(b)
	b.ReportAllocs()
	for range b.N {
		if err := s.flush(context.Background(), s.layers().active(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/benchKeys, "ns/record")
}

// BenchmarkFlushFiles flushes keys that were overwritten, half of them in the next
// delta as well, each with a value in memory of its own, to a run and the history on
// a disk.
func BenchmarkFlushFiles(b *testing.B) {
	const keys, versions = 20_000, 4
	fs := osfs.New(b.TempDir())
	history, err := sstable.OpenHistory(fs, "history", sstable.Options{})
	if err != nil {
		b.Fatal(err)
	}
	runs, err := sstable.OpenRuns(fs, "runs", sstable.Options{})
	if err != nil {
		b.Fatal(err)
	}
	s := New(mem.Open(), Options{History: history, Runs: runs, RecordBytes: 16 << 20})
	rev := keyspace.Revision(0)
	b.ReportAllocs()
	for range b.N {
		b.StopTimer()
		for i := range keys * versions {
			rev++
			s.Insert(1, benchKey(i*7919%keys), rev, make([]byte, 300), false)
		}
		s.Seal()
		for i := range keys / 2 {
			rev++
			s.Insert(1, benchKey(i*7919%keys), rev, make([]byte, 300), false)
		}
		b.StartTimer()
		if _, _, err := s.FlushOldest(context.Background(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/(keys*versions), "ns/version")
}

// BenchmarkFollow brings up to date what is remembered of 100,000 keys that were
// overwritten.
func BenchmarkFollow(b *testing.B) {
	const keys = 100_000
	s := New(mem.Open(), Options{RecordBytes: 256 << 20})
	s.Flushed(1, 0)
	rev := keyspace.Revision(0)
	overwrite := func() {
		for i := range keys {
			rev++
			s.Insert(1, benchKey(i*7919%keys), rev, make([]byte, 300), false)
		}
	}
	overwrite()
	s.Seal()
	if _, _, err := s.FlushOldest(context.Background(), nil); err != nil {
		b.Fatal(err)
	}
	v := s.View()
	for i := range keys {
		if _, _, ok, err := v.Get(1, benchKey(i), rev); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
	v.Close()
	for range b.N {
		b.StopTimer()
		overwrite()
		s.Seal()
		b.StartTimer()
		s.records.follow(s.layers().oldest())
		b.StopTimer()
		s.drop(s.layers().oldest())
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/keys, "ns/key")
}
