package mvcc

import (
	"bytes"
	"testing"

	"kvstore/internal/engine/mem"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// Prefetch takes any keys: none, absent ones, empty ones, more than it looks at.
func TestPrefetch(t *testing.T) {
	s, keys := benchStore(t)
	v := s.View()
	defer v.Close()
	v.Prefetch(1, nil)
	v.Prefetch(1, [][]byte{nil, []byte("absent"), keys[0]})
	v.Prefetch(2, keys[:100])
	s.Insert(1, nil, benchKeys+1, nil, false)
	for _, prefetch := range []func(keyspace.InstanceID, [][]byte){v.Prefetch, v.PrefetchHeaders} {
		prefetch(1, nil)
		prefetch(1, [][]byte{nil, []byte("absent"), keys[0], keys[0]})
		prefetch(2, keys[:100])
		prefetch(1, keys)
	}
	for n := range 20 { // versions with jump pointers of all lengths
		k := keyspace.Revision(benchKeys + 2 + 2*n)
		s.InsertAll(1, []format.Write{{Key: keys[0], Revision: k}, {Revision: k, Value: keys[1]}, {Key: keys[0], Revision: k + 1, Delete: true}})
	}
	all := make([]format.Write, 3*PrefetchKeys)
	for i := range all {
		all[i] = format.Write{Key: keys[i%(2*PrefetchKeys)], Revision: keyspace.Revision(benchKeys + 100 + i), Value: keys[i]}
	}
	s.InsertAll(1, nil)
	s.InsertAll(3, all)
	for i := range 2 * PrefetchKeys {
		want := all[i]
		if i < PrefetchKeys {
			want = all[i+2*PrefetchKeys]
		}
		if value, rev, del, ok := s.Latest(3, keys[i]); !ok || del || rev != want.Revision || !bytes.Equal(value, want.Value) {
			t.Errorf("key %d has the value %q of revision %d, want %q of %d", i, value, rev, want.Value, want.Revision)
		}
	}
	v.Prefetch(1, [][]byte{nil})
	if n := testing.AllocsPerRun(100, func() { v.Prefetch(1, keys[:PrefetchKeys]) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkGetTen(b *testing.B) {
	s := New(mem.Open(), Options{})
	keys := make([][]byte, 1<<19)
	for i := range keys {
		keys[i] = benchKey(i)
		s.Insert(1, keys[i], keyspace.Revision(i+1), make([]byte, 256), false)
	}
	run := func(b *testing.B, prefetch bool) {
		seed := uint32(1)
		batch := make([][]byte, 10)
		for i := range batch {
			batch[i] = make([]byte, len(keys[0]))
		}
		var sum byte
		for b.Loop() {
			for i := range batch {
				seed = seed*1664525 + 1013904223
				copy(batch[i], benchKey(int(seed>>13)))
			}
			v := s.View()
			if prefetch {
				v.Prefetch(1, batch)
			}
			for _, k := range batch {
				value, _, ok, _ := v.Get(1, k, keyspace.MaxRevision)
				if !ok {
					b.Fatal("not there")
				}
				for _, c := range value[:1] {
					sum += c
				}
			}
			v.Close()
		}
	}
	b.Run("one by one", func(b *testing.B) { run(b, false) })
	b.Run("prefetched", func(b *testing.B) { run(b, true) })
}

func BenchmarkOverwriteTen(b *testing.B) {
	const fill = 400_000 // versions of a delta
	run := func(b *testing.B, together bool) {
		s, n := New(mem.Open(), Options{}), 0
		seed := uint32(1)
		batch, value := make([]format.Write, 10), make([]byte, 300)
		for b.Loop() {
			if n += len(batch); n%fill == 0 {
				s = New(mem.Open(), Options{})
			}
			for i := range batch {
				seed = seed*1664525 + 1013904223
				batch[i] = format.Write{Key: benchKey(int(seed >> 16)), Revision: keyspace.Revision(n + i + 1), Value: bytes.Clone(value)}
			}
			if together {
				s.InsertAll(1, batch)
				continue
			}
			for _, w := range batch {
				s.Insert(1, w.Key, w.Revision, w.Value, false)
			}
		}
	}
	b.Run("one by one", func(b *testing.B) { run(b, false) })
	b.Run("together", func(b *testing.B) { run(b, true) })
}
