package mem

import (
	"context"
	"fmt"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/engine/enginetest"
	"kvstore/internal/keyspace"
)

func TestContract(t *testing.T) {
	enginetest.Run(t, enginetest.Harness{
		Open: func(testing.TB) engine.Engine { return Open() },
		Reopen: func(_ testing.TB, e engine.Engine) engine.Engine {
			return e.(*Mem).Crash(func(int) bool { return false })
		},
	})
}

func get(t *testing.T, e engine.Engine, k string, at keyspace.Revision) string {
	t.Helper()
	r := e.Reader()
	defer r.Close()
	value, _, ok, err := r.Get([]byte(k), at)
	if err != nil {
		t.Fatal(err)
	}
	if !ok {
		return "-"
	}
	return string(value)
}

func TestCrashKeepsSyncedAndAnySubset(t *testing.T) {
	m := Open()
	write := func(k string, rev keyspace.Revision) {
		t.Helper()
		err := m.Write(context.Background(), []engine.Write{{Key: []byte(k), Revision: rev, Value: fmt.Append(nil, rev)}})
		if err != nil {
			t.Fatal(err)
		}
	}
	write("a", 1)
	write("b", 1)
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	write("a", 2)
	write("b", 2)
	write("c", 2)
	if m.Unsynced() != 3 {
		t.Fatalf("%d unsynced writes, want 3", m.Unsynced())
	}
	after := m.Crash(func(i int) bool { return i != 1 })
	for k, want := range map[string]string{"a": "0.2", "b": "0.1", "c": "0.2"} {
		if got := get(t, after, k, 10); got != want {
			t.Errorf("%s is %s after the crash, want %s", k, got, want)
		}
		if got := get(t, m, k, 10); got != "0.2" {
			t.Errorf("%s is %s without a crash", k, got)
		}
	}
}

func TestCompactForgets(t *testing.T) {
	m := Open()
	for rev := keyspace.Revision(1); rev <= 5; rev++ {
		writes := []engine.Write{{Key: []byte("k"), Revision: rev}, {Key: []byte("gone"), Revision: rev, Delete: rev == 3}}
		if err := m.Write(context.Background(), writes); err != nil {
			t.Fatal(err)
		}
	}
	m.SetFloor(3)
	m.Compact()
	var got []string
	r := m.Reader()
	it := r.Iterate(engine.IterOptions{At: keyspace.MaxRevision, AllVersions: true})
	for ; it.Valid(); it.Next() {
		got = append(got, fmt.Sprintf("%s%d", it.Key(), uint64(it.Revision())))
	}
	if want := "[gone5 gone4 k5 k4 k3]"; fmt.Sprint(got) != want {
		t.Fatalf("left %v, want %s", got, want)
	}
}
