package mvcc

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/engine/badger"
	"kvstore/internal/engine/mem"
	"kvstore/internal/keyspace"
)

// DESIGN 4: readers see only whole entries, and a flush opens no hole. A
// writer applies entries that set all keys to the entry's number and then
// publishes its revision; seals and flushes go on beside it; a reader at the
// published revision must find exactly that number everywhere.
func TestReadersSeeWholeEntriesWhileDeltasMove(t *testing.T) {
	t.Run("mem", func(t *testing.T) { testWholeEntries(t, mem.Open(), Options{}) })
	t.Run("moves", func(t *testing.T) {
		eng := mem.Open()
		testWholeEntries(t, eng, newRunStore(t, 1).options)
		if eng.Unsynced() != 0 || len(mustInstances(t, eng)) == 0 {
			t.Error("no runs were moved")
		}
	})
	t.Run("merges", func(t *testing.T) {
		s := newRunStore(t, 1<<30)
		testWholeEntries(t, s.engine, s.options)
		if got := s.Runs(); got == 0 || len(mustInstances(t, s.engine)) > 0 {
			t.Errorf("%d runs stay", got)
		}
	})
	t.Run("badger", func(t *testing.T) {
		o := badger.DefaultOptions()
		o.MemtableSize, o.BlockCacheSize, o.IndexCacheSize, o.ValueLogFileSize = 1<<20, 4<<20, 4<<20, 1<<20
		eng, err := badger.Open(t.TempDir(), o)
		if err != nil {
			t.Fatal(err)
		}
		testWholeEntries(t, eng, Options{})
		if err := eng.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func mustInstances(t *testing.T, eng engine.Engine) []keyspace.InstanceID {
	t.Helper()
	all, err := eng.Instances(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// testWholeEntries takes history and runs from o.
func testWholeEntries(t *testing.T, eng engine.Engine, o Options) {
	const keys, entries, readers = 16, 1500, 3
	o.SealBytes, o.MaxSealed, o.FlushBatchBytes, o.RecordBytes = 8<<10, 3, 1<<10, 1<<20
	s := New(eng, o)
	var published atomic.Uint64
	var group sync.WaitGroup
	stop := make(chan struct{})
	sealed, flushed := make(chan struct{}, 1), make(chan struct{}, 1)
	for n := range readers {
		group.Go(func() {
			for i := n; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := readEntry(s, i, keys, keyspace.Revision(published.Load())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Go(func() {
		defer close(flushed)
		for range sealed {
			for s.Sealed() > 0 {
				if _, _, err := s.FlushOldest(context.Background(), nil); err != nil {
					t.Error(err)
					return
				}
				signal(flushed)
			}
		}
	})
	group.Go(func() {
		for range flushed {
			for _, walk := range []func(context.Context) (int64, error){s.MergeRuns, s.MoveRuns} {
				if _, err := walk(context.Background()); err != nil {
					t.Error(err)
					return
				}
			}
		}
	})
	for rev := keyspace.Revision(1); rev <= entries; rev++ {
		for k := range keys {
			s.Insert(7, fmt.Appendf(nil, "key%d", k), rev, binary.BigEndian.AppendUint64(nil, uint64(rev)), false)
		}
		published.Store(uint64(rev))
		if s.NeedSeal() {
			s.Seal()
			signal(sealed)
			for o.Runs != nil && s.Sealed() > 0 {
				runtime.Gosched() // what has a successor by then gets into no run
			}
		}
	}
	close(stop)
	close(sealed)
	group.Wait()
}

// signal wakes whoever waits, without waiting itself.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func readEntry(s *Store, i, keys int, at keyspace.Revision) error {
	v := s.View()
	defer v.Close()
	if at == 0 {
		return nil
	}
	for k := range keys {
		value, rev, ok, err := v.Get(7, fmt.Appendf(nil, "key%d", k), at)
		if err != nil || !ok || rev != at || binary.BigEndian.Uint64(value) != uint64(at) {
			return fmt.Errorf("get key%d at %d: version %d, found %t, error %w", k, uint64(at), uint64(rev), ok, err)
		}
	}
	o := ScanOptions{Instance: 7, At: at}
	switch i % 3 {
	case 1:
		o.Reverse = true
	case 2:
		o.AllVersions = true
	}
	scan := v.Scan(o)
	defer scan.Close()
	n := 0
	for ; scan.Valid(); scan.Next() {
		n++
		if !o.AllVersions && scan.Revision() != at {
			return fmt.Errorf("scan %+v: %q is at %d", o, scan.Key(), uint64(scan.Revision()))
		}
		if o.AllVersions && n > 2*int(at) {
			break // long enough
		}
	}
	if scan.Err() != nil || !o.AllVersions && n != keys {
		return fmt.Errorf("scan %+v found %d keys, error %w", o, n, scan.Err())
	}
	return nil
}
