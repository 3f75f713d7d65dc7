package mvcc

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/engine/badger"
	"kvstore/internal/engine/mem"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// estimateStore writes records of several sizes of instances of several sizes.
type estimateStore struct {
	*Store
	t   *testing.T
	rng *rand.Rand
	rev keyspace.Revision
}

func newEstimateStore(t *testing.T, eng engine.Engine, apart int) *estimateStore {
	t.Helper()
	const seed = 29
	s, fs := &estimateStore{t: t, rng: rand.New(rand.NewPCG(seed, 0))}, simfs.New()
	history, err := sstable.OpenHistory(fs, "history", sstable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	runs, err := sstable.OpenRuns(fs, "runs", sstable.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Store = New(eng, Options{History: history, Runs: runs, MergeRuns: 2, SmallBytes: 600 << 10, ApartBytes: apart})
	return s
}

// fill writes a round of records, a third of them over those of the last round.
func (s *estimateStore) fill(round int) {
	for _, of := range []struct {
		inst        keyspace.InstanceID
		count, size int
	}{{1, 1000, 256}, {2, 60, 4096}, {3, 30, 256}, {3, 10, 4096}} {
		for n := range of.count {
			s.rev++
			key := fmt.Sprintf("%d-%06d", of.size, n*10+round)
			if n%3 == 0 {
				key = fmt.Sprintf("%d-%06d again", of.size, n)
			}
			value := make([]byte, of.size)
			for i := range value {
				value[i] = byte(s.rng.Uint32())
			}
			s.Insert(of.inst, []byte(key), s.rev, value, false)
		}
	}
}

// check compares the estimates of all instances with scans.
func (s *estimateStore) check(when string) {
	s.t.Helper()
	v := s.View()
	defer v.Close()
	for inst := keyspace.InstanceID(1); inst <= 4; inst++ {
		scan := v.Scan(ScanOptions{Instance: inst, At: keyspace.MaxRevision, AllVersions: true})
		var want int64
		for ; scan.Valid(); scan.Next() {
			value, err := scan.Value()
			if err != nil {
				s.t.Fatal(err)
			}
			want += int64(len(scan.Key()) + len(value))
		}
		if scan.Err() != nil {
			s.t.Fatal(scan.Err())
		}
		scan.Close()
		got := s.EstimateBytes(inst)
		if got < want/2 || got > 2*want {
			s.t.Errorf("%s: instance %d: estimate %d, it has %d bytes", when, inst, got, want)
		}
	}
}

func (s *estimateStore) flushAll() {
	s.t.Helper()
	s.Seal()
	if _, ok, err := s.FlushOldest(context.Background(), nil); err != nil || !ok {
		s.t.Fatalf("flushed %t, %v", ok, err)
	}
}

// Wherever the records of an instance are, the estimate is within a factor of two
// of what a scan returns.
func TestEstimateBytes(t *testing.T) {
	for _, c := range []struct {
		name  string
		apart int
		open  func(t *testing.T) engine.Engine
	}{
		{"mem", 0, func(*testing.T) engine.Engine { return mem.Open() }},
		{"badger", 0, openSmallBadger},
		{"badger, large values apart", 1024, openSmallBadger},
	} {
		t.Run(c.name, func(t *testing.T) { testEstimateBytes(t, c.open(t), c.apart) })
	}
}

func openSmallBadger(t *testing.T) engine.Engine {
	t.Helper()
	o := badger.DefaultOptions()
	o.MemtableSize, o.BlockCacheSize, o.IndexCacheSize, o.ValueThreshold = 1<<20, 4<<20, 4<<20, 512
	e, err := badger.Open(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func testEstimateBytes(t *testing.T, eng engine.Engine, apart int) {
	s := newEstimateStore(t, eng, apart)
	s.check("empty")
	for round := range 4 {
		s.fill(round)
		s.check("inserted")
		s.flushAll()
		s.check("flushed")
	}
	if merged, err := s.MergeRuns(context.Background()); err != nil || merged == 0 {
		t.Fatalf("merged %d bytes, %v", merged, err)
	}
	s.check("merged")
	s.options.SmallBytes = 1
	for round := range 3 {
		if moved, err := s.MoveRuns(context.Background()); err != nil || moved == 0 {
			t.Fatalf("moved %d bytes, %v", moved, err)
		}
		s.check("moved")
		s.fill(4 + round)
		s.flushAll()
		s.fill(4 + round)
		s.check("everywhere")
	}
}
