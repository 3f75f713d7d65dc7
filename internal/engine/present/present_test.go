package present

import (
	"context"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/engine/enginetest"
	"kvstore/internal/engine/mem"
	"kvstore/internal/keyspace"
)

func wrap(t testing.TB, e engine.Engine) *Present {
	t.Helper()
	p, err := Wrap(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestContract(t *testing.T) {
	enginetest.Run(t, enginetest.Harness{
		Open: func(t testing.TB) engine.Engine { return wrap(t, mem.Open()) },
		Reopen: func(t testing.TB, e engine.Engine) engine.Engine {
			return wrap(t, e.(*Present).Engine.(*mem.Mem).Crash(func(int) bool { return false }))
		},
	})
}

// counting is an engine that counts its readers.
type counting struct {
	*mem.Mem
	readers int
}

func (c *counting) Reader() engine.Reader {
	c.readers++
	return c.Mem.Reader()
}

func key(inst keyspace.InstanceID, k string) []byte {
	return append(keyspace.AppendInstance(nil, inst), k...)
}

// The engine is asked for what it may have, also from before it was wrapped, and for
// nothing else; a reader from before a write sees it.
func TestOnlyWhatMayBeThereIsAskedFor(t *testing.T) {
	c := &counting{Mem: mem.Open()}
	write := func(e engine.Engine, inst keyspace.InstanceID) {
		t.Helper()
		if err := e.Write(context.Background(), []engine.Write{{Key: key(inst, "k"), Revision: 1, Value: []byte("v")}}); err != nil {
			t.Fatal(err)
		}
	}
	write(c, 1)
	p := wrap(t, c)
	r := p.Reader()
	defer r.Close()
	look := func(inst keyspace.InstanceID, want bool) {
		t.Helper()
		before := c.readers
		_, _, ok, err := r.Get(key(inst, "k"), 5)
		if err != nil || ok != want {
			t.Fatalf("get of instance %d: %t, %v", inst, ok, err)
		}
		it := r.Iterate(engine.IterOptions{Lower: key(inst, ""), Upper: keyspace.PrefixEnd(key(inst, "")), At: 5})
		defer it.Close()
		it.Seek(key(inst, "a"))
		if it.Valid() != want || it.Err() != nil {
			t.Fatalf("scan of instance %d: %t, %v", inst, it.Valid(), it.Err())
		}
		if !want && c.readers != before {
			t.Errorf("the engine was asked for instance %d", inst)
		}
	}
	look(2, false)
	look(1, true)
	write(p, 2)
	look(2, true)
	look(3, false)
	wide := r.Iterate(engine.IterOptions{Lower: key(0, ""), Upper: key(9, ""), At: 5})
	defer wide.Close()
	if !wide.Valid() {
		t.Error("a scan of several instances has nothing")
	}
}
