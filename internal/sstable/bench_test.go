package sstable

import (
	"encoding/binary"
	"fmt"
	"testing"

	"kvstore/internal/env"
	"kvstore/internal/env/osfs"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// nowhere is a disk whose files take everything and keep nothing.
type nowhere struct{ env.FS }

func (nowhere) Create(string) (env.File, error) { return discard{}, nil }
func (nowhere) Remove(string) error             { return nil }

type discard struct{ env.File }

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (discard) Sync() error                            { return nil }
func (discard) Close() error                           { return nil }

// adder adds versions of 16-byte keys, four of each, with 256-byte values.
type adder struct {
	w     *Writer
	n     uint64
	key   [16]byte
	value [256]byte
}

func (a *adder) add(t testing.TB) {
	const perKey = 4
	binary.BigEndian.PutUint64(a.key[8:], a.n/perKey)
	rev := keyspace.Revision(1<<40 + perKey - a.n%perKey)
	if err := a.w.Add(1, Version{Key: a.key[:], Revision: rev, Until: rev + 1, Value: a.value[:]}); err != nil {
		t.Fatal(err)
	}
	a.n++
}

func BenchmarkWriterAdd(b *testing.B) {
	for name, fs := range map[string]env.FS{"nowhere": nowhere{simfs.New()}, "disk": osfs.New(b.TempDir())} {
		b.Run(name, func(b *testing.B) {
			a := adder{w: mustOpen(b, fs).Writer()}
			b.SetBytes(int64(len(a.key) + len(a.value)))
			b.ReportAllocs()
			for b.Loop() {
				a.add(b)
			}
			if err := a.w.Abort(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func TestAddAllocatesForBlocksOnly(t *testing.T) {
	if raceEnabled {
		t.Skip("counts mean nothing under the race detector")
	}
	a := adder{w: mustOpen(t, nowhere{simfs.New()}).Writer()}
	const adds = 20_000
	allocs := testing.AllocsPerRun(3, func() {
		for range adds {
			a.add(t)
		}
	})
	if perAdd := allocs / adds; perAdd >= 0.1 || a.w.index.count < adds*256/blockBytes {
		t.Errorf("%v allocations of each Add, %d blocks", perAdd, a.w.index.count)
	} else if perBlock := allocs * 4 / float64(a.w.index.count); perBlock >= 2 {
		t.Errorf("%v allocations of each block", perBlock)
	}
}

// BenchmarkFindBlock finds the blocks of keys in the index of a large run, at random.
func BenchmarkFindBlock(b *testing.B) {
	const blocks = 350_000
	t := newBlockTable(blocks, 0, true)
	key := func(i int) []byte { return keyspace.AppendDataKey(nil, 1, fmt.Appendf(nil, "key-%012d", 14*i)) }
	for i := range blocks {
		if !t.add(block{instance: 1, key: key(i), length: 4 << 10}) {
			b.Fatal("out of order")
		}
	}
	t.finish()
	keys := make([][]byte, 1<<14)
	for i := range keys {
		keys[i] = key(i * 7919 % blocks)
	}
	for n := 0; b.Loop(); n++ {
		i := n % len(keys)
		if got := t.find(1, keys[i], keyspace.MaxRevision); got != i*7919%blocks {
			b.Fatalf("found block %d, want %d", got, i*7919%blocks)
		}
	}
}
