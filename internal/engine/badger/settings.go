package badger

import (
	"fmt"
	"log/slog"
	"strings"

	badgerdb "github.com/dgraph-io/badger/v4"
	badgeroptions "github.com/dgraph-io/badger/v4/options"
)

var compressions = map[string]badgeroptions.CompressionType{
	CompressionNone:   badgeroptions.None,
	CompressionSnappy: badgeroptions.Snappy,
	CompressionZstd:   badgeroptions.ZSTD,
}

// Level 0 goes to the base level as a whole, whatever the size of that is.
// Badger's own base level, 10 MB under a level 0 of several hundred, is overfull
// after each compaction and goes on to the next level at once, and from there to
// the next: compactions follow each other without a pause. A base level of three
// times level 0 takes part of the load before it goes on. It also saves memory:
// Badger builds up to a dozen tables at a time in memory, and a table is twice as
// large with each level below the base.
const (
	baseLevelFactor = 3
	// stallFactor leaves level 0 room to grow while a compaction of it and the
	// base level goes on.
	stallFactor = 6
)

func (o *Options) baseLevelSize() int64 {
	if o.BaseLevelSize > 0 {
		return o.BaseLevelSize
	}
	return baseLevelFactor * int64(o.NumLevelZeroTables) * o.MemtableSize
}

// badgerOptions translates o, which is valid.
func badgerOptions(dir string, o Options) badgerdb.Options {
	b := badgerdb.DefaultOptions(dir)
	b.MemTableSize = o.MemtableSize
	b.BlockCacheSize = o.BlockCacheSize
	b.IndexCacheSize = o.IndexCacheSize
	b.NumMemtables = o.NumMemtables
	b.NumLevelZeroTables = o.NumLevelZeroTables
	b.NumLevelZeroTablesStall = max(b.NumLevelZeroTablesStall, stallFactor*o.NumLevelZeroTables)
	b.BaseLevelSize = o.baseLevelSize()
	// Few tables below one of level 0: Badger merges with a goroutine for every
	// three, up to five.
	b.BaseTableSize = max(b.BaseTableSize, o.MemtableSize/2)
	b.LevelSizeMultiplier = o.LevelSizeMultiplier
	b.ValueThreshold = o.ValueThreshold
	b.ValueLogFileSize = o.ValueLogFileSize
	b.SyncWrites = o.SyncWrites
	b.NumCompactors = o.NumCompactors
	b.Compression = compressions[o.Compression]

	// One version at or below the discard timestamp survives, which is the
	// contract of SetFloor; versions above it are all kept.
	b.NumVersionsToKeep = 1
	b.DetectConflicts = false
	// Drops deletion markers from the last level.
	b.LmaxCompaction = true
	// gc.go reads the counter of running compactions, resident.go those of reads.
	b.MetricsEnabled = true
	b.Logger = logger{o.Logger}
	return b
}

// logger passes Badger's messages on. Badger is chatty at info level about
// what is routine here.
type logger struct{ log *slog.Logger }

func (l logger) Errorf(format string, args ...any)   { l.log.Error(message(format, args)) }
func (l logger) Warningf(format string, args ...any) { l.log.Warn(message(format, args)) }
func (l logger) Infof(format string, args ...any)    { l.log.Debug(message(format, args)) }
func (l logger) Debugf(string, ...any)               {}

func message(format string, args []any) string {
	return "badger: " + strings.TrimSpace(fmt.Sprintf(format, args...))
}
