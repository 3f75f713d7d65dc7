// Package engine declares the ordered multi-version store under the deltas of
// internal/mvcc. There are two: engine/badger on disk and engine/mem for the
// simulation; enginetest holds both to this contract.
//
// An engine is not what decides durability: the raft log is. Writes become
// durable at Sync; a crash before it may keep any subset of them.
package engine

import (
	"context"

	"kvstore/internal/keyspace"
)

// Write is one version of a key.
type Write struct {
	// Key has its instance prefix and is not empty.
	Key []byte
	// Revision is from 1 to MaxRevision-1. The same key and revision always
	// carry the same value, whenever they are written again.
	Revision keyspace.Revision
	Value    []byte
	// Delete hides the key from Revision on, until a newer version.
	Delete bool
}

// Engine is safe for concurrent use.
type Engine interface {
	// Write applies writes, in order by key if the caller can. It returns when
	// readers see all of them and waits while the engine is behind. It is not
	// atomic and not durable: after an error any of the writes may be there,
	// and the caller writes them again. fault.Overloaded means the disk is
	// nearly full. Keys and values must not change until it returns.
	Write(ctx context.Context, writes []Write) error
	// Sync makes everything written before it durable.
	Sync() error
	// Reader must be closed.
	Reader() Reader
	// SetFloor lets versions below floor be forgotten unless they are the
	// newest at or below it, and deletions at or below it with all they hide.
	// A lower floor than the last one is ignored.
	SetFloor(floor keyspace.Revision)
	// DeleteInstance removes all keys under an instance prefix, in small
	// throttled batches. Nothing may write under the prefix meanwhile. It is
	// not durable before the next Sync; doing it again is harmless.
	DeleteInstance(ctx context.Context, i keyspace.InstanceID) error
	// Instances returns the distinct instance prefixes present, in order, by
	// seeking.
	Instances(ctx context.Context) ([]keyspace.InstanceID, error)
	// EstimateBytes is about how many bytes the keys, without their instance, and
	// the values take that an iterator over all versions of i returns: within a
	// factor of two where records are some hundred bytes or more. It takes a few
	// milliseconds at most and reads no value.
	EstimateBytes(i keyspace.InstanceID) int64
	// Stats is cheap enough to be called once a second.
	Stats() Stats
	// Close waits for background work. Readers must be closed before.
	Close() error
}

// Reader sees with every Get and every Iterate at least everything that was
// written before. It serves one goroutine.
type Reader interface {
	// Get returns the newest version at or below at. ok is false when there is
	// none or it is a deletion. value is valid until Close and must not be
	// changed.
	Get(key []byte, at keyspace.Revision) (value []byte, rev keyspace.Revision, ok bool, err error)
	// Iterate returns an iterator on the first key of its range. It must be
	// closed before the Reader.
	Iterate(o IterOptions) Iterator
	Close()
}

// IterOptions is a range and how to read it.
type IterOptions struct {
	// Lower is inclusive, Upper exclusive; nil is unbounded.
	Lower, Upper []byte
	// At hides versions above it.
	At keyspace.Revision
	// Reverse goes from high keys to low ones. Not with AllVersions.
	Reverse bool
	// AllVersions returns every version at or below At, newest first per key,
	// deletions too. Without it each key's newest one is returned, unless that
	// is a deletion.
	AllVersions bool
	// KeysOnly says that Value will not be called for most keys.
	KeysOnly bool
	// Prefetch is the number of values to fetch ahead; 0 for none.
	Prefetch int
}

// Iterator walks a range. Key and Value are valid until Next, Seek or Close.
type Iterator interface {
	// Seek goes to the first key at or after key in the iterator's direction:
	// at or above it, or at or below it in reverse. It stays within the range.
	Seek(key []byte)
	// Valid is false at the end and after an error.
	Valid() bool
	Next()
	Key() []byte
	Revision() keyspace.Revision
	Value() ([]byte, error)
	// Deleted is true only with AllVersions.
	Deleted() bool
	Err() error
	Close()
}

// Stats are sizes and counters of an engine; what does not apply is zero.
type Stats struct {
	// LSMBytes, MemtableLogBytes and ValueLogBytes are allocated on disk.
	LSMBytes, MemtableLogBytes, ValueLogBytes int64
	// Tables is the number of sorted tables, LevelZeroTables those of level 0.
	Tables, LevelZeroTables int
	// Capacity of the caches, and the part of lookups they answered since the
	// start, 0 to 1.
	BlockCacheBytes, IndexCacheBytes       int64
	BlockCacheHitRatio, IndexCacheHitRatio float64
	// ValueLogRewrites is the number of value logs rewritten since the start.
	ValueLogRewrites uint64
	Floor            keyspace.Revision
}
