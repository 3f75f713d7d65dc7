package enginetest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// random draws writes over a small key space, so that keys have many versions.
type random struct {
	*rand.Rand
	large int
}

func newRandom(t *testing.T, h Harness) random {
	seed := uint64(len(t.Name()))*7919 + 17
	t.Logf("seed %d", seed)
	return random{rand.New(rand.NewPCG(seed, 0)), h.LargeValue}
}

func (r random) key() []byte {
	suffixes := []string{"", "\x00", "\x00\xff", "a", "a\x00", "b", "ba", "\xff", "\xff\xff"}
	k := fmt.Sprintf("%c%s", 'a'+rune(r.IntN(6)), suffixes[r.IntN(len(suffixes))])
	return key(keyspace.InstanceID(1+r.IntN(3)), k)
}

func (r random) value() []byte {
	size := r.IntN(40)
	if r.large > 0 && r.IntN(8) == 0 {
		size = r.large + r.IntN(200)
	}
	v := make([]byte, size)
	for i := range v {
		v[i] = byte(r.Uint32())
	}
	return v
}

func (r random) batch(rev *keyspace.Revision) []engine.Write {
	writes := make([]engine.Write, 1+r.IntN(30))
	for i := range writes {
		*rev += keyspace.Revision(1 + r.IntN(3))
		writes[i] = engine.Write{Key: r.key(), Revision: *rev, Value: r.value()}
		if r.IntN(5) == 0 {
			writes[i].Value, writes[i].Delete = nil, true
		}
	}
	return writes
}

func (r random) options(last keyspace.Revision) engine.IterOptions {
	o := engine.IterOptions{At: keyspace.Revision(r.Uint64N(uint64(last) + 2)), KeysOnly: r.IntN(4) == 0}
	if r.IntN(3) > 0 {
		o.Lower = r.key()
	}
	switch r.IntN(3) {
	case 0:
		o.Upper = r.key()
	case 1:
		o.Upper = keyspace.PrefixEnd(keyspace.AppendInstance(nil, 2))
	}
	switch r.IntN(3) {
	case 0:
		o.Reverse = true
	case 1:
		o.AllVersions = true
	}
	if r.IntN(2) == 0 {
		o.Prefetch = r.IntN(20)
	}
	return o
}

func testModel(t *testing.T, h Harness) {
	e := h.open(t)
	m := model{}
	rng := newRandom(t, h)
	var last keyspace.Revision
	for round := range 60 {
		batch := rng.batch(&last)
		mustWrite(t, e, batch...)
		m.write(batch)
		if round%10 == 9 {
			mustWrite(t, e, batch...) // again, as a replay does
			if err := e.Sync(); err != nil {
				t.Fatal(err)
			}
		}
		compare(t, e, m, rng, last)
	}
}

// compare reads at random and wants what the model has.
func compare(t *testing.T, e engine.Engine, m model, rng random, last keyspace.Revision) {
	t.Helper()
	r := e.Reader()
	defer r.Close()
	for range 20 {
		wantGet(t, r, m, rng.key(), keyspace.Revision(1+rng.Uint64N(uint64(last)+1)))
	}
	for range 6 {
		o := rng.options(last)
		want := m.scan(o)
		it := r.Iterate(o)
		if err := equal(collect(t, it), want); err != nil {
			t.Fatalf("iterate %+v: %v", o, err)
		}
		for range 3 {
			k := rng.key()
			it.Seek(k)
			if err := equal(collect(t, it), seek(want, k, o.Reverse)); err != nil {
				t.Fatalf("iterate %+v, seek %x: %v", o, k, err)
			}
		}
		it.Close()
	}
}

func testReopen(t *testing.T, h Harness) {
	e := h.Open(t)
	m := model{}
	rng := newRandom(t, h)
	var last keyspace.Revision
	for range 5 {
		for range 10 {
			batch := rng.batch(&last)
			mustWrite(t, e, batch...)
			m.write(batch)
		}
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
		e = h.Reopen(t, e)
		compare(t, e, m, rng, last)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
