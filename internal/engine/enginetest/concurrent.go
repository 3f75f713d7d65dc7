package enginetest

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// testConcurrent has one writer that sets all keys to each revision in turn,
// and readers that must never see a key older than a revision whose writing
// was over before they asked, nor a value that does not belong to its version.
func testConcurrent(t *testing.T, h Harness) {
	const keys, rounds, readers = 50, 60, 3
	e := h.open(t)
	var written atomic.Uint64
	var stop atomic.Bool
	var wg sync.WaitGroup
	errs := make(chan error, readers)
	for n := range readers {
		wg.Go(func() {
			for i := n; !stop.Load(); i++ {
				if err := readConsistent(e, i, keys, &written); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	for round := 1; round <= rounds; round++ {
		writes := make([]engine.Write, keys)
		for k := range writes {
			value := binary.BigEndian.AppendUint64(nil, uint64(round))
			if k%10 == 0 {
				value = append(value, make([]byte, h.LargeValue)...)
			}
			writes[k] = engine.Write{Key: key(1, fmt.Sprint(k)), Revision: keyspace.Revision(round), Value: value}
		}
		if err := e.Write(context.Background(), writes); err != nil {
			t.Error(err)
			break
		}
		written.Store(uint64(round))
		if round%20 == 0 {
			if err := e.Sync(); err != nil {
				t.Error(err)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func readConsistent(e engine.Engine, i, keys int, written *atomic.Uint64) error {
	floor := written.Load()
	r := e.Reader()
	defer r.Close()
	if floor > 0 {
		k := key(1, fmt.Sprint(i%keys))
		value, rev, ok, err := r.Get(k, keyspace.MaxRevision)
		if err != nil || !ok || uint64(rev) < floor || binary.BigEndian.Uint64(value) != uint64(rev) {
			return fmt.Errorf("get %q: version %d, found %t, error %w; %d was written", k, uint64(rev), ok, err, floor)
		}
	}
	it := r.Iterate(engine.IterOptions{At: keyspace.Revision(floor), Reverse: i%2 == 0})
	defer it.Close()
	count := 0
	for ; it.Valid(); it.Next() {
		value, err := it.Value()
		if err != nil || uint64(it.Revision()) != floor || binary.BigEndian.Uint64(value) != floor {
			return fmt.Errorf("iterate at %d: %q is at %d, error %w", floor, it.Key(), uint64(it.Revision()), err)
		}
		count++
	}
	if floor > 0 && count != keys {
		return fmt.Errorf("iterated over %d keys at %d, want %d", count, floor, keys)
	}
	return it.Err()
}
