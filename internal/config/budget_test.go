package config

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func (b Budget) sum() Size {
	return b.Memtables + b.BlockCache + b.IndexCache + b.Runs + b.Delta + b.Records + b.RaftCache + b.Requests + b.Frames
}

// TestStandardBudgetIsS314: a standard node has the caches of S3.14.
func TestStandardBudgetIsS314(t *testing.T) {
	c := Default()
	want := Badger{
		MemtableSize: 64 * MB, BlockCacheSize: 256 * MB, IndexCacheSize: 128 * MB, NumMemtables: 5,
		NumLevelZeroTables: 5, LevelSizeMultiplier: 10, ValueThreshold: 1024, ValueLogFileSize: GB,
		NumCompactors: 4, Compression: "snappy",
	}
	if c.Badger != want {
		t.Errorf("got %+v", c.Badger)
	}
}

// TestBudgetIsKept: whatever the budget, the parts stay within it (ASKS B4).
func TestBudgetIsKept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := defaults()
		c.Profile = rapid.SampledFrom([]string{"edge", "standard", "scale"}).Draw(t, "profile")
		c.MemoryBudget = Size(rapid.Int64Range(int64(96*MB), int64(64*GB)).Draw(t, "budget"))
		if rapid.Bool().Draw(t, "explicit") {
			c.Badger.BlockCacheSize = Size(rapid.Int64Range(0, int64(GB)).Draw(t, "cache"))
			c.sources["badger_config.block_cache_size"] = "file"
		}
		if rapid.Bool().Draw(t, "memtables") {
			c.Badger.MemtableSize = Size(rapid.Int64Range(int64(MB), int64(64*MB)).Draw(t, "memtable"))
			c.sources["badger_config.memtable_size"] = "file"
		}
		before := c.Badger.BlockCacheSize
		if problems := c.deriveBudget(); problems != nil {
			if !c.Given("badger_config.block_cache_size") && !c.Given("badger_config.memtable_size") {
				t.Fatalf("derived values do not fit %s: %v", c.MemoryBudget, problems)
			}
			return
		}
		if b := c.Budget(); b.sum() > b.Total {
			t.Fatalf("%+v adds up to %s", b, b.sum())
		}
		if c.Given("badger_config.block_cache_size") && c.Badger.BlockCacheSize != before {
			t.Fatalf("an explicit value was changed from %s to %s", before, c.Badger.BlockCacheSize)
		}
	})
}

// TestExcessNamesTheSum: S3.14's 704 MB in a 1 GB node with little left.
func TestExcessNamesTheSum(t *testing.T) {
	p := loadProblems(t, Sources{File: mustFile(t, `
memory_budget: 512MB
badger_config: {memtable_size: 64MB, num_memtables: 5, block_cache_size: 256MB, index_cache_size: 128MB}
`)})
	if len(p) != 1 || p[0].Key != "memory_budget" || !strings.Contains(p[0].Message, "704MB") {
		t.Errorf("got %v", p)
	}
}

// TestSmallBudgetHasSmallMemtables: what Badger needs to build tables, and the
// size of a piece that it merges, follow the size of memtables.
func TestSmallBudgetHasSmallMemtables(t *testing.T) {
	for _, test := range []struct {
		budget Size
		given  string
		want   Badger
	}{
		{2 * GB, "", Badger{MemtableSize: 64 * MB, NumMemtables: 5, NumLevelZeroTables: 5}},
		{GB, "", Badger{MemtableSize: 8 * MB, NumMemtables: 2, NumLevelZeroTables: 5}},
		{96 * MB, "", Badger{MemtableSize: 4 * MB, NumMemtables: 2, NumLevelZeroTables: 5}},
		{GB, "badger_config: {memtable_size: 16MB, num_memtables: 3, num_level_zero_tables: 7}",
			Badger{MemtableSize: 16 * MB, NumMemtables: 3, NumLevelZeroTables: 7}},
		{128 * MB, "badger_config: {value_threshold: 1MB}", Badger{MemtableSize: 10 * MB, NumMemtables: 2, NumLevelZeroTables: 5}},
		{2 * GB, "badger_config: {num_memtables: 64}", Badger{MemtableSize: 5 * MB, NumMemtables: 64, NumLevelZeroTables: 5}},
	} {
		c, err := Load(Sources{File: mustFile(t, "memory_budget: "+test.budget.String()+"\n"+test.given)})
		if err != nil {
			t.Fatal(err)
		}
		got := Badger{MemtableSize: c.Badger.MemtableSize, NumMemtables: c.Badger.NumMemtables, NumLevelZeroTables: c.Badger.NumLevelZeroTables}
		if got != test.want {
			t.Errorf("%s %s: %+v, want %+v", test.budget, test.given, got, test.want)
		}
	}
}

// TestValueThresholdFitsAMemtable: what Badger would refuse when it opens is a
// problem of the configuration.
func TestValueThresholdFitsAMemtable(t *testing.T) {
	p := loadProblems(t, Sources{File: mustFile(t, "badger_config: {memtable_size: 4MB, value_threshold: 1MB}")})
	if len(p) != 1 || p[0].Key != "badger_config.value_threshold" || !strings.Contains(p[0].Message, "4MB") {
		t.Errorf("got %v", p)
	}
}
