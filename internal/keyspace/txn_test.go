package keyspace

import (
	"bytes"
	"encoding/base32"
	"math"
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

// FuzzTxnID holds how ids are read and written to base32 as Go has it.
func FuzzTxnID(f *testing.F) {
	text := base32.HexEncoding.WithPadding(base32.NoPadding)
	for _, id := range []TxnID{{1, 0}, {0, 1}, {1 << 63, 1 << 63}, {MaxRevision, math.MaxUint64}} {
		f.Add(id.String())
	}
	f.Add("A0000000000000000000000000")
	f.Add("0000000000000000000000000\n1")
	f.Fuzz(func(t *testing.T, in string) {
		b, err := text.DecodeString(strings.ToUpper(in))
		good := err == nil && len(b) == TxnIDBytes && strings.ToLower(text.EncodeToString(b)) == in && !bytes.Equal(b, make([]byte, TxnIDBytes))
		id, err := ParseTxnID(in)
		if good != (err == nil) {
			t.Fatalf("%q: %v, base32 says %v", in, err, good)
		}
		if good && (!bytes.Equal(id.Append(nil), b) || id.String() != in) {
			t.Fatalf("%q is read as %+v, written as %q", in, id, id.String())
		}
	})
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
