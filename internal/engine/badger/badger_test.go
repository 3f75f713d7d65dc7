package badger

import (
	"math"
	"testing"
	"time"

	"kvstore/internal/engine"
	"kvstore/internal/engine/enginetest"
)

// testOptions are small, so that memtables and value logs rotate and level 0
// is compacted in tests.
func testOptions() Options {
	o := DefaultOptions()
	o.MemtableSize = 1 << 20
	o.BlockCacheSize = 4 << 20
	o.IndexCacheSize = 4 << 20
	o.ValueLogFileSize = 1 << 20
	o.ValueThreshold = 512
	o.NumCompactors = 2
	o.NumLevelZeroTables = 1
	return o
}

func mustOpen(t testing.TB, dir string) *Engine {
	t.Helper()
	e, err := open(dir, testOptions(), time.Hour)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return e
}

func mustClose(t testing.TB, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func TestContract(t *testing.T) {
	for _, way := range []struct {
		name string
		few  int
	}{{"few", math.MaxInt}, {"many", -1}} {
		mustOpen := func(t testing.TB, dir string) engine.Engine {
			e := mustOpen(t, dir)
			e.few = way.few
			return e
		}
		t.Run(way.name, func(t *testing.T) {
			enginetest.Run(t, enginetest.Harness{
				Open: func(t testing.TB) engine.Engine { return mustOpen(t, t.TempDir()) },
				Reopen: func(t testing.TB, e engine.Engine) engine.Engine {
					if err := e.Close(); err != nil {
						t.Fatal(err)
					}
					return mustOpen(t, e.(*Engine).dir)
				},
				LargeValue: 1000,
			})
		})
	}
}

func TestOptionsReportsAllProblems(t *testing.T) {
	o := DefaultOptions()
	if err := o.Validate(); err != nil {
		t.Fatalf("the defaults of S3.14: %v", err)
	}
	o.MemtableSize, o.NumCompactors, o.Compression = 1, 1, "lz4"
	err := o.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 4 { // the threshold exceeds the tiny memtable too
		t.Fatalf("got %v, want four problems", err)
	}
	if e, err := Open(t.TempDir(), o); err == nil || e != nil {
		t.Fatalf("opened %v with bad options, error %v", e, err)
	}
}
