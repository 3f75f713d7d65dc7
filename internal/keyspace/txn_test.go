package keyspace

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
)

func drawTxnKey(t *rapid.T) TxnKey {
	return TxnKey{
		ID:      TxnID{Created: Revision(rapid.Uint64().Draw(t, "created")), Random: rapid.Uint64().Draw(t, "random")},
		Attempt: rapid.Uint32().Draw(t, "attempt"), Slot: SlotID(rapid.IntRange(0, SlotCount-1).Draw(t, "slot")),
	}
}

func TestTxnKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k, o := drawTxnKey(t), drawTxnKey(t)
		got, err := ParseTxnKey(k.Key())
		if err != nil || got != k {
			t.Fatalf("%+v comes back as %+v, %v", k, got, err)
		}
		if SlotOf(TxnNamespace, k.Key()) != k.Slot {
			t.Fatalf("%+v lies in slot %d", k, SlotOf(TxnNamespace, k.Key()))
		}
		if k.ID.Created < o.ID.Created && k.Compare(o) >= 0 {
			t.Fatalf("%+v sorts behind the later %+v", k, o)
		}
		if k.ID.Zero() {
			return
		}
		if id, err := ParseTxnID(k.ID.String()); err != nil || id != k.ID || len(k.ID.String()) != 26 {
			t.Fatalf("%+v is written as %q and read as %+v, %v", k.ID, k.ID.String(), id, err)
		}
	})
}

// Keys compare as what they are on the disk does.
func TestTxnKeysCompareAsTheySort(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	number := func() uint64 { return uint64(rng.IntN(3)) << rng.IntN(64) }
	key := func() TxnKey {
		return TxnKey{ID: TxnID{Created: Revision(number()), Random: number()},
			Attempt: uint32(number()), Slot: SlotID(number() % SlotCount)}
	}
	for range 10_000 {
		a, b := key(), key()
		if rng.IntN(2) == 0 {
			b.ID = a.ID
		}
		if got := a.Compare(b); got != strings.Compare(a.Key(), b.Key()) {
			t.Fatalf("%+v and %+v compare %d", a, b, got)
		}
	}
}

func TestTxnIDsThatAreNone(t *testing.T) {
	good := TxnID{Created: 77 << 16, Random: 5}.String()
	for _, text := range []string{"", "x", good[1:], good + "0", "W" + good[1:], "A" + good[1:], good[:25] + "v", TxnID{}.String()} {
		if id, err := ParseTxnID(text); fault.CodeOf(err) != fault.InvalidArgument {
			t.Errorf("%q is %+v, %v", text, id, err)
		}
	}
	for _, key := range []string{"", "short", string(slices.Repeat([]byte{255}, txnKeyBytes))} {
		if _, err := ParseTxnKey(key); fault.CodeOf(err) != fault.Corruption {
			t.Errorf("%q: %v", key, err)
		}
	}
}
