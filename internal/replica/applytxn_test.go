package replica

import (
	"math/rand/v2"
	"testing"

	"kvstore/internal/keyspace"
)

// What is prepared is in the order of its keys.
func TestCompareKeys(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	number := func() uint64 { return uint64(rng.IntN(3)) << rng.IntN(64) }
	key := func() keyspace.TxnKey {
		return keyspace.TxnKey{ID: keyspace.TxnID{Created: keyspace.Revision(number()), Random: number()},
			Attempt: uint32(number()), Slot: keyspace.SlotID(number() % keyspace.SlotCount)}
	}
	for range 10_000 {
		a, b := key(), key()
		if rng.IntN(2) == 0 {
			b.ID = a.ID
		}
		if got := compareKeys(&a, &b); got != a.Compare(b) {
			t.Fatalf("%+v and %+v compare %d", a, b, got)
		}
	}
}
