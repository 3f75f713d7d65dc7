package badger

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// Readers at or above the floor never notice that memtables rotate, tables are
// compacted, versions are forgotten and value logs are rewritten under them.
func TestReadsDuringMaintenance(t *testing.T) {
	const keys, rounds, window = 150, 150, 20
	maintenance := time.Millisecond
	if raceEnabled {
		// A rewrite reads the memtable's highest version beside Badger's writer
		// without synchronization (DB.MaxVersion, v4.9.6). The value only feeds
		// the clamp that pausing the floor makes void.
		maintenance = time.Hour
	}
	e, err := open(t.TempDir(), testOptions(), maintenance)
	if err != nil {
		t.Fatal(err)
	}
	var floor, written atomic.Uint64
	written.Store(1)
	stressRound(t, e, 1, keys)
	ctx, stop := context.WithCancel(context.Background())
	var group sync.WaitGroup
	for n := range uint64(2) {
		group.Go(func() {
			rng := rand.New(rand.NewPCG(n, 4))
			for ctx.Err() == nil {
				if err := stressRead(e, rng, keys, &floor, &written); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for rev := uint64(2); rev <= rounds && !t.Failed(); rev++ {
		stressRound(t, e, keyspace.Revision(rev), keys)
		written.Store(rev)
		if rev > 2*window {
			// Readers choose a revision above this; a reader may be a window
			// behind before the engine's floor overtakes it.
			floor.Store(rev - window)
			e.SetFloor(keyspace.Revision(rev - 2*window))
		}
	}
	stop()
	group.Wait()
	t.Logf("%d value logs rewritten", e.rewrites.Load())
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func stressRound(t *testing.T, e *Engine, rev keyspace.Revision, keys int) {
	t.Helper()
	writes := make([]engine.Write, keys)
	for k := range writes {
		writes[k] = engine.Write{Key: historyKey(k), Revision: rev, Value: gcValue(k, rev)}
	}
	if err := e.Write(context.Background(), writes); err != nil {
		t.Fatal(err)
	}
}

// stressRead reads one key and a range at a revision between floor and newest.
// A reader that fell behind the engine's floor proves nothing and is ignored.
func stressRead(e *Engine, rng *rand.Rand, keys int, floor, written *atomic.Uint64) error {
	low, high := max(1, floor.Load()), written.Load()
	at := keyspace.Revision(low + rng.Uint64N(high-low+1))
	err := stressReadAt(e, rng, keys, at)
	if e.floor.get() > at {
		return nil
	}
	return err
}

func stressReadAt(e *Engine, rng *rand.Rand, keys int, at keyspace.Revision) error {
	r := e.Reader()
	defer r.Close()
	k := rng.IntN(keys)
	value, rev, ok, err := r.Get(historyKey(k), at)
	if err != nil || !ok || rev != at || string(value) != string(gcValue(k, at)) {
		return fmt.Errorf("key %d at %d: version %d, %d bytes, found %t, error %w", k, uint64(at), uint64(rev), len(value), ok, err)
	}
	it := r.Iterate(engine.IterOptions{Lower: historyKey(k), At: at, Reverse: rng.IntN(2) == 0, Prefetch: rng.IntN(8)})
	defer it.Close()
	for n := 0; it.Valid() && n < 40; n++ {
		value, err := it.Value()
		if err != nil || it.Revision() != at || len(value) < 1200 {
			return fmt.Errorf("scan at %d: %q at %d, %d bytes, error %w", uint64(at), it.Key(), uint64(it.Revision()), len(value), err)
		}
		it.Next()
	}
	return it.Err()
}
