package badger

import (
	"errors"
	"fmt"
	"log/slog"

	"kvstore/internal/fault"
)

// Options are the keys of the badger_config section (S3.14), in bytes, beside
// a logger.
type Options struct {
	MemtableSize        int64
	BlockCacheSize      int64
	IndexCacheSize      int64
	NumMemtables        int
	NumLevelZeroTables  int
	LevelSizeMultiplier int
	ValueThreshold      int64
	ValueLogFileSize    int64
	SyncWrites          bool
	NumCompactors       int
	Compression         string // none, snappy or zstd
	// BaseLevelSize is that of the first level below level 0; 0 takes what fits
	// level 0.
	BaseLevelSize int64
	// ResidentBytes is how much of tables and value logs, which are mapped, may
	// stay in the memory of a process that reads little before the kernel takes it
	// back; 0 sets no bound. Only Linux knows how.
	ResidentBytes int64

	// Logger receives Badger's own messages; nil discards them.
	Logger *slog.Logger
}

// DefaultOptions returns the defaults of S3.14.
func DefaultOptions() Options {
	return Options{
		MemtableSize:        64 << 20,
		BlockCacheSize:      256 << 20,
		IndexCacheSize:      128 << 20,
		NumMemtables:        5,
		NumLevelZeroTables:  5,
		LevelSizeMultiplier: 10,
		ValueThreshold:      1024,
		ValueLogFileSize:    1 << 30,
		NumCompactors:       4,
		Compression:         "snappy",
	}
}

// Names of compressions.
const (
	CompressionNone   = "none"
	CompressionSnappy = "snappy"
	CompressionZstd   = "zstd"
)

// Bounds that Badger imposes.
const (
	minMemtableSize     = 1 << 20
	maxMemtableSize     = 1 << 30
	minValueLogFileSize = 1 << 20
	maxValueLogFileSize = 2<<30 - 1
	maxValueThreshold   = 1 << 20
)

// Validate reports every value that Badger would refuse, with what is allowed.
func (o *Options) Validate() error {
	var problems []error
	check := func(key string, actual, lowest, highest int64) {
		if actual < lowest || actual > highest {
			problems = append(problems, fault.New(fault.InvalidArgument, key+" is out of range",
				"key", key, "limit", fmt.Sprintf("%d..%d", lowest, highest), "actual", actual))
		}
	}
	const many = 1 << 40
	check("memtable_size", o.MemtableSize, minMemtableSize, maxMemtableSize)
	leastBlockCache := int64(1) // Badger needs one for compressed tables
	if o.Compression == CompressionNone {
		leastBlockCache = 0
	}
	check("block_cache_size", o.BlockCacheSize, leastBlockCache, many)
	check("index_cache_size", o.IndexCacheSize, 0, many)
	check("num_memtables", int64(o.NumMemtables), 1, 1000)
	check("num_level_zero_tables", int64(o.NumLevelZeroTables), 1, 1000)
	check("level_size_multiplier", int64(o.LevelSizeMultiplier), 2, 1000)
	// A value must fit into one Badger batch, which is 15 % of a memtable, with
	// its key.
	check("value_threshold", o.ValueThreshold, 1, min(maxValueThreshold, o.MemtableSize/10))
	check("value_log_file_size", o.ValueLogFileSize, minValueLogFileSize, maxValueLogFileSize)
	check("num_compactors", int64(o.NumCompactors), 2, 1000)
	if _, ok := compressions[o.Compression]; !ok {
		problems = append(problems, fault.New(fault.InvalidArgument, "compression is unknown",
			"key", "compression", "limit", "none, snappy or zstd", "actual", o.Compression))
	}
	return errors.Join(problems...)
}
