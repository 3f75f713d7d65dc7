package enginetest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// testEstimate compares estimates with scans, of instances that differ in number
// and size of their records and lie between each other in what the engine writes.
func testEstimate(t *testing.T, h Harness) {
	e := h.Open(t)
	wantEstimate(t, e, 1)
	const seed = 23
	rng := rand.New(rand.NewPCG(seed, 0))
	var rev keyspace.Revision
	for round := range 30 {
		var writes []engine.Write
		for _, of := range []struct {
			inst        keyspace.InstanceID
			count, size int
		}{{1, 400, 256}, {2, 25, 4096}, {3, 20, 256}, {4, 10, 4096}, {4, 20, 256}, {6, 1, 256}} {
			for n := range of.count {
				rev++ // every third key is written again and again
				name := fmt.Sprintf("key %06d", n*3+round*10_000)
				if n%3 == 0 {
					name = fmt.Sprintf("again %06d", n)
				}
				writes = append(writes, engine.Write{Key: key(of.inst, name), Revision: rev, Value: noise(rng, of.size)})
			}
		}
		mustWrite(t, e, writes...)
		if round%10 == 9 {
			wantEstimate(t, e, 6)
		}
	}
	for range 2 {
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		e = h.Reopen(t, e)
		wantEstimate(t, e, 6)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// noise cannot be compressed.
func noise(rng *rand.Rand, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// wantEstimate holds the estimates of the first instances to scans; 5 is empty.
func wantEstimate(t *testing.T, e engine.Engine, instances keyspace.InstanceID) {
	t.Helper()
	r := e.Reader()
	defer r.Close()
	for i := keyspace.InstanceID(1); i <= instances; i++ {
		it := r.Iterate(engine.IterOptions{Lower: key(i, ""), Upper: key(i+1, ""), At: keyspace.MaxRevision, AllVersions: true})
		var want int64
		for ; it.Valid(); it.Next() {
			value, err := it.Value()
			if err != nil {
				t.Fatal(err)
			}
			want += int64(len(it.Key()) - keyspace.InstanceBytes + len(value))
		}
		it.Close()
		got := e.EstimateBytes(i)
		if got < want/2 || got > 2*want {
			t.Errorf("instance %d: estimate %d, it has %d bytes", i, got, want)
		}
	}
}
