package badger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/dgraph-io/badger/v4/table"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// aloneStore has tables of one instance only, whose values can be compressed and
// are as large as told, and returns what its records have.
func aloneStore(t *testing.T, inst keyspace.InstanceID, size int) (e *Engine, bytes int64) {
	t.Helper()
	e = mustOpen(t, t.TempDir())
	for round := range 8 {
		var writes []engine.Write
		for n := range 400 {
			key := append(keyspace.AppendInstance(nil, inst), fmt.Sprintf("user/%08d", n)...)
			writes = append(writes, engine.Write{Key: key, Revision: keyspace.Revision(round*1000 + n + 1), Value: make([]byte, size)})
			bytes += recordBytes(len(key), size)
		}
		if err := e.Write(context.Background(), writes); err != nil {
			t.Fatal(err)
		}
	}
	mustClose(t, e)
	return mustOpen(t, e.dir), bytes
}

func wantEstimate(t *testing.T, e *Engine, inst keyspace.InstanceID, want int64) {
	t.Helper()
	if got := e.EstimateBytes(inst); got < want/2 || got > 2*want {
		t.Errorf("instance %d: estimate %d, it has %d bytes", inst, got, want)
	}
}

// What Badger says of a whole table leaves out values in value logs or what
// compression saves.
func TestEstimateOfWholeTables(t *testing.T) {
	for _, size := range []int{20, 256, 4096} {
		for _, inst := range []keyspace.InstanceID{7, 1<<64 - 1} {
			t.Run(fmt.Sprintf("%d bytes, instance %d", size, inst), func(t *testing.T) {
				e, bytes := aloneStore(t, inst, size)
				defer mustClose(t, e)
				wantEstimate(t, e, inst, bytes)
				wantEstimate(t, e, inst-1, 0)
				wantEstimate(t, e, inst+1, 0) // above the last one comes 0
			})
		}
	}
}

// A table that is gone when its index is looked at, or damaged, counts half.
func TestEstimateWithoutIndex(t *testing.T) {
	e, _ := aloneStore(t, 7, 256)
	defer mustClose(t, e)
	info := e.db.Tables()[0]
	index, err := readTableIndex(e.dir, info.ID)
	if err != nil || index.count() < 2 {
		t.Fatalf("the index of a good table: %v", err)
	}
	path := filepath.Join(t.TempDir(), table.IDToFilename(info.ID))
	b, err := os.ReadFile(table.NewFilename(info.ID, e.dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []func(b []byte) []byte{
		func([]byte) []byte { return nil },
		func(b []byte) []byte { return b[:len(b)/2] },
		func(b []byte) []byte { b[len(b)-100] ^= 1; return b },
		func(b []byte) []byte { b[len(b)-1] = 0; return b },
		func(b []byte) []byte { b[len(b)-4] = 0xff; return b },
	} {
		if err := os.WriteFile(path, damage(append([]byte(nil), b...)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readTableIndex(filepath.Dir(path), info.ID); err == nil {
			t.Error("a damaged index was read")
		}
	}
	s := shares{engine: e, lower: keyspace.AppendInstance(nil, 7)}
	info.ID = 1 << 30
	s.add(&info)
	if got, want := s.bytes(), wholeTable(&info)/2; got != want {
		t.Errorf("a missing table counts %d, want %d", got, want)
	}
}

// Memtables are counted as long as their logs are there, and no longer.
func TestUnflushedIsBounded(t *testing.T) {
	e := mustOpen(t, t.TempDir())
	defer mustClose(t, e)
	value := make([]byte, 500)
	for round := range 40 {
		var writes []engine.Write
		for n := range 200 {
			key := append(keyspace.AppendInstance(nil, 7), fmt.Sprintf("user/%08d", n)...)
			writes = append(writes, engine.Write{Key: key, Revision: keyspace.Revision(round*1000 + n + 1), Value: value})
		}
		if err := e.Write(context.Background(), writes); err != nil {
			t.Fatal(err)
		}
	}
	e.EstimateBytes(7)
	logs, err := filepath.Glob(filepath.Join(e.dir, "*"+memtableSuffix))
	if err != nil {
		t.Fatal(err)
	}
	if e.unflushed.logs.newest < 3 || len(e.unflushed.tables) > e.options.NumMemtables+2 {
		t.Errorf("%d memtables are counted of %d, there are logs %q", len(e.unflushed.tables), e.unflushed.logs.newest, logs)
	}
}
