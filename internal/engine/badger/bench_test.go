package badger

import (
	"bytes"
	"context"
	"encoding/binary"
	"expvar"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

func benchOptions() Options {
	o := DefaultOptions()
	o.MemtableSize = 16 << 20
	o.BlockCacheSize = 64 << 20
	o.IndexCacheSize = 32 << 20
	return o
}

func openBench(tb testing.TB) *Engine {
	tb.Helper()
	e, err := open(tb.TempDir(), benchOptions(), time.Hour)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := e.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

func benchKey(n int) []byte {
	key := append(keyspace.AppendInstance(nil, 1), "\x01\x00\x00\x00\x01user/"...)
	return append(binary.BigEndian.AppendUint64(key, uint64(n)), 0, 1)
}

func fillBench(tb testing.TB, e *Engine, keys, size int) {
	tb.Helper()
	value := make([]byte, size)
	var writes []engine.Write
	for k := range keys {
		writes = append(writes, engine.Write{Key: benchKey(k), Revision: keyspace.Revision(k + 1), Value: value})
		if len(writes) == 10_000 || k == keys-1 {
			if err := e.Write(context.Background(), writes); err != nil {
				tb.Fatal(err)
			}
			writes = writes[:0]
		}
	}
}

// Get allocates inside Badger: the item, the key with its version, the list of
// memtables, the value twice.
func TestGetAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("counts mean nothing under the race detector")
	}
	e := openBench(t)
	fillBench(t, e, 1000, 100)
	r := e.Reader()
	defer r.Close()
	key := benchKey(500)
	allocs := testing.AllocsPerRun(1000, func() {
		if _, _, ok, err := r.Get(key, keyspace.MaxRevision); !ok || err != nil {
			t.Fatal(ok, err)
		}
	})
	if allocs > 9 {
		t.Errorf("a get makes %v allocations, want at most 9", allocs)
	}
}

func BenchmarkGet(b *testing.B) {
	for _, size := range []int{100, 4000} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			const keys = 100_000
			e := openBench(b)
			fillBench(b, e, keys, size)
			r := e.Reader()
			defer r.Close()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				if _, _, ok, err := r.Get(benchKey((i*7919)%keys), keyspace.MaxRevision); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkIterate(b *testing.B) {
	for _, prefetch := range []int{0, 64} {
		b.Run(fmt.Sprintf("prefetch%d", prefetch), func(b *testing.B) {
			e := openBench(b)
			fillBench(b, e, 100_000, 100)
			r := e.Reader()
			defer r.Close()
			o := engine.IterOptions{At: keyspace.MaxRevision, Prefetch: prefetch}
			it := r.Iterate(o)
			defer func() { it.Close() }()
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if !it.Valid() {
					it.Close()
					it = r.Iterate(o)
				}
				if _, err := it.Value(); err != nil {
					b.Fatal(err)
				}
				it.Next()
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{100, 4000} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			e := openBench(b)
			value := make([]byte, size)
			writes := make([]engine.Write, (4<<20)/(size+50))
			b.SetBytes(int64(len(writes) * (size + 30)))
			b.ReportAllocs()
			b.ResetTimer()
			rev := keyspace.Revision(0)
			for i := range b.N {
				for k := range writes {
					rev++
					writes[k] = engine.Write{Key: benchKey(i*len(writes) + k), Revision: rev, Value: value}
				}
				if err := e.Write(context.Background(), writes); err != nil {
					b.Fatal(err)
				}
			}
			if err := e.Sync(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkLoad writes new keys in random order, as flushes do: in batches of a
// memtable, sorted. It reports how many bytes Badger wrote to tables for each byte
// of keys and values, and what that took of memory.
func BenchmarkLoad(b *testing.B) {
	o := benchOptions()
	o.MemtableSize, o.NumMemtables, o.NumLevelZeroTables = 16<<20, 2, 5
	b.ReportAllocs()
	for b.Loop() {
		e, err := open(b.TempDir(), o, time.Hour)
		if err != nil {
			b.Fatal(err)
		}
		before, size := tableBytes(b), loadRandom(b, e, 1_000_000, 256)
		if err := e.Close(); err != nil { // ends merges that have begun
			b.Fatal(err)
		}
		b.ReportMetric(float64(tableBytes(b)-before)/float64(size), "written/byte")
	}
}

// loadRandom returns the bytes of keys and values.
func loadRandom(tb testing.TB, e *Engine, keys, size int) (sum int64) {
	tb.Helper()
	random := make([]byte, size+64<<10) // does not compress
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	perDelta := int(e.options.MemtableSize) / (size + 50)
	var writes []engine.Write
	for i, k := range rand.New(rand.NewPCG(1, 2)).Perm(keys) {
		writes = append(writes, engine.Write{Key: benchKey(k), Revision: keyspace.Revision(i + 1), Value: random[k%(64<<10):][:size]})
		sum += int64(len(writes[len(writes)-1].Key) + size)
		if len(writes) < perDelta && i < keys-1 {
			continue
		}
		slices.SortFunc(writes, func(v, w engine.Write) int { return bytes.Compare(v.Key, w.Key) })
		if err := e.Write(context.Background(), writes); err != nil {
			tb.Fatal(err)
		}
		writes = writes[:0]
	}
	return sum
}

// tableBytes is what Badger wrote to tables in this process.
func tableBytes(tb testing.TB) (sum int64) {
	tb.Helper()
	sum = expvar.Get("badger_write_bytes_l0").(*expvar.Int).Value()
	expvar.Get("badger_write_bytes_compaction").(*expvar.Map).Do(func(level expvar.KeyValue) {
		sum += level.Value.(*expvar.Int).Value()
	})
	return sum
}
