// Package mvcc keeps the versions of all keys of a node: an ordered in-memory
// delta over an engine (DESIGN 4).
//
// New versions go into the active delta, which is sealed from time to time;
// sealed deltas are flushed in order, the newest versions to a run and those
// that were replaced meanwhile to the history, made durable there, and only then
// dropped. Runs are merged with each other, and the oldest move to the engine when
// they become too many; what was replaced since goes to the history. Readers take a View, which looks at
// what it moves between in the direction of the move: first the deltas of its
// moment, then the runs, then history and engine. Whatever moves meanwhile is in
// one of two, mostly in both. Atomicity comes from above: readers ask at or below
// the revision their group has published, so they meet whole entries only.
package mvcc

import (
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"kvstore/internal/engine"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// DeltaID numbers deltas from 1 in the order they were begun.
type DeltaID uint64

// Defaults of Options.
const (
	DefaultSealBytes = 64 << 20
	DefaultMaxSealed = 3
	// DefaultFlushBatchBytes is the size of one engine write of a flush.
	DefaultFlushBatchBytes = 4 << 20
	DefaultMergeRuns       = 12
	// DefaultSmallSeals and DefaultMoveSeals are SmallBytes and MoveBytes in
	// deltas.
	DefaultSmallSeals = 4
	DefaultMoveSeals  = 8 * DefaultMergeRuns * DefaultMergeRuns
)

// Options bound a Store's memory: about (MaxSealed+1) * SealBytes, and one
// entry per delta more.
type Options struct {
	// SealBytes is the size at which the active delta wants to be sealed.
	SealBytes int64
	// MaxSealed is the number of sealed deltas at which the Store is full.
	MaxSealed int
	// FlushBatchBytes bounds one engine write of a flush.
	FlushBatchBytes int
	// History takes the versions that newer ones replaced before they were
	// flushed. nil: all versions go to the engine. Its owner closes it.
	History *sstable.History
	// Runs take the newest versions; nil: flushes write to the engine. Not
	// without a History. Their owner closes them.
	Runs *sstable.Runs
	// MergeRuns small ones, of less than SmallBytes, are merged into a middle one,
	// and as many middle ones, of less than LargeBytes, into a large one. Where
	// middle and large ones have MoveBytes, the oldest are moved to the engine, and
	// with less when the indexes of all runs take three quarters of IndexBytes in
	// memory (0: any).
	MergeRuns                                     int
	SmallBytes, LargeBytes, MoveBytes, IndexBytes int64
	// ApartBytes is the size from which the engine keeps a value apart from its
	// keys, so that collecting it in a run first would only cost a write; 0: none.
	ApartBytes int
	// RecordBytes bounds the newest versions of keys that are remembered from
	// the engine; 0 for none.
	RecordBytes int64
	// Between is called between two engine writes of a flush and may wait, so
	// that a flush leaves room for what is urgent. Its error ends the flush. nil:
	// flushes run as fast as they can, as they do after Hurry.
	Between func(ctx context.Context, p FlushProgress) error
	// BetweenMoved is the same for a merge or a move of runs.
	BetweenMoved func(ctx context.Context, p MoveProgress) error
}

// FlushProgress is how far a flush has come, in bytes as a delta counts them.
type FlushProgress struct {
	Delta          DeltaID
	Written, Total int64
	// Engine is the part that the engine got, in bytes of keys and values.
	Engine int64
}

// MoveProgress is how far a walk over runs has come, in bytes.
type MoveProgress struct {
	// Walk numbers walks from 1.
	Walk         uint64
	What         Walk
	Moved, Total int64
	// Period is after how many bytes more in runs that such a walk takes the next
	// one is due.
	Period int64
	// Engine is the part that the engine got.
	Engine int64
}

func (o Options) withDefaults() Options {
	if o.SealBytes <= 0 {
		o.SealBytes = DefaultSealBytes
	}
	if o.MaxSealed <= 0 {
		o.MaxSealed = DefaultMaxSealed
	}
	if o.FlushBatchBytes <= 0 {
		o.FlushBatchBytes = DefaultFlushBatchBytes
	}
	if o.MergeRuns <= 0 {
		o.MergeRuns = DefaultMergeRuns
	}
	if o.SmallBytes <= 0 {
		o.SmallBytes = DefaultSmallSeals * o.SealBytes
	}
	if o.LargeBytes <= 0 {
		o.LargeBytes = int64(o.MergeRuns) * o.SmallBytes
	}
	if o.IndexBytes <= 0 {
		o.IndexBytes = math.MaxInt64
	}
	if o.MoveBytes <= 0 {
		o.MoveBytes = DefaultMoveSeals * o.SealBytes
	}
	return o
}

// layers are the deltas in memory, newest first; the first one is active.
// Never changed once published.
type layers []*delta

func (l layers) active() *delta { return l[0] }
func (l layers) oldest() *delta { return l[len(l)-1] }

// Store is an ordered multi-version store. Insert and Seal belong to one
// goroutine, the writer; FlushOldest to any one at a time; the rest to all.
type Store struct {
	engine  engine.Engine
	options Options

	// mu orders the replacement of current by Seal and FlushOldest. Readers
	// only load it.
	mu      sync.Mutex
	current atomic.Pointer[layers]

	records  *records
	flushing sync.Mutex // held during a flush
	hurry    atomic.Bool

	apart           apart
	merging, moving sync.Mutex // held during a merge and a move of runs
	walks           atomic.Uint64
	// handing is held while a move hands the engine versions of an instance that
	// is not deleted.
	handing sync.Mutex
}

// mayBeInEngine reports whether the engine may have something of an instance: some
// engines know.
func (s *Store) mayBeInEngine(inst keyspace.InstanceID) bool {
	e, knows := s.engine.(interface {
		MayHave(inst keyspace.InstanceID) bool
	})
	return !knows || e.MayHave(inst)
}

// Hurry ends the waiting between engine writes for good.
func (s *Store) Hurry() { s.hurry.Store(true) }

// New returns a Store over eng with an empty active delta. It starts nothing.
func New(eng engine.Engine, o Options) *Store {
	if o.Runs != nil && o.History == nil {
		panic("mvcc: runs without a history")
	}
	s := &Store{engine: eng, options: o.withDefaults(), records: newRecords(o.RecordBytes)}
	s.current.Store(&layers{newDelta(1)})
	return s
}

func (s *Store) layers() layers { return *s.current.Load() }

// Insert adds a version; key is without instance. Readers whose revision
// covers rev see it at once. key and value are kept, not copied, and must
// never change. The same key and revision replace what was inserted before.
// A deletion (del) hides older versions in the engine as well. Versions of a
// key come in ascending order, but for repetitions after a restart; those of
// different keys in any order, also below the floor.
func (s *Store) Insert(inst keyspace.InstanceID, key []byte, rev keyspace.Revision, value []byte, del bool) {
	s.InsertAll(inst, []format.Write{{Key: key, Revision: rev, Value: value, Delete: del}})
}

// InsertAll is Insert of all writes of an instance, in their order; readers may see
// some of them before the others.
func (s *Store) InsertAll(inst keyspace.InstanceID, writes []format.Write) {
	d := s.layers().active()
	for len(writes) > 0 {
		n := min(len(writes), PrefetchKeys)
		d.insert(inst, writes[:n])
		writes = writes[n:]
	}
}

// Flushed says that what the engine and the history have of an instance, beyond
// what will be inserted again, lies at or below rev. Until this or a flush has
// told, reads of the instance are not remembered.
func (s *Store) Flushed(inst keyspace.InstanceID, rev keyspace.Revision) {
	s.records.raiseTo(map[keyspace.InstanceID]keyspace.Revision{inst: rev})
}

// SetFloor says that nobody reads below rev any more (engine.Engine.SetFloor).
func (s *Store) SetFloor(rev keyspace.Revision) {
	s.engine.SetFloor(rev)
	if s.options.History != nil {
		s.options.History.SetFloor(rev)
	}
}

// Instances returns the instances of which there is something in the engine or
// in runs, in order.
func (s *Store) Instances(ctx context.Context) ([]keyspace.InstanceID, error) {
	all, err := s.engine.Instances(ctx)
	if err != nil || s.options.Runs == nil {
		return all, err
	}
	all = slices.AppendSeq(all, maps.Keys(s.options.Runs.Instances()))
	slices.Sort(all)
	return slices.Compact(all), nil
}

// HistoryInstances returns the instances that the history has something of.
func (s *Store) HistoryInstances() []keyspace.InstanceID {
	if s.options.History == nil {
		return nil
	}
	return s.options.History.Instances()
}

// DeleteInstance removes an instance from the runs and the engine
// (engine.Engine.DeleteInstance). Nothing may write under it any more.
func (s *Store) DeleteInstance(ctx context.Context, inst keyspace.InstanceID) error {
	if r := s.options.Runs; r != nil {
		s.handing.Lock()
		r.Delete(inst)
		s.handing.Unlock()
	}
	return s.engine.DeleteInstance(ctx, inst)
}

// HistoryBytes is what the history takes on disk.
func (s *Store) HistoryBytes() int64 {
	if s.options.History == nil {
		return 0
	}
	return s.options.History.Bytes()
}

// Active returns the id of the active delta.
func (s *Store) Active() DeltaID { return s.layers().active().id }

// Oldest returns the id of the oldest delta in memory: everything inserted
// into older ones is durable in the engine.
func (s *Store) Oldest() DeltaID { return s.layers().oldest().id }

// ActiveBytes returns the size of the active delta.
func (s *Store) ActiveBytes() int64 { return s.layers().active().bytes.Load() }

// Bytes returns the size of all deltas.
func (s *Store) Bytes() int64 {
	var sum int64
	for _, d := range s.layers() {
		sum += d.bytes.Load()
	}
	return sum
}

// OldestBytes is the size of the oldest delta, the next one to be flushed.
func (s *Store) OldestBytes() int64 { return s.layers().oldest().bytes.Load() }

// Sealed returns the number of sealed deltas.
func (s *Store) Sealed() int { return len(s.layers()) - 1 }

// NeedSeal reports whether the active delta is large enough to be sealed and
// there is room for one more sealed delta.
func (s *Store) NeedSeal() bool {
	l := s.layers()
	return l.active().bytes.Load() >= s.options.SealBytes && len(l)-1 < s.options.MaxSealed
}

// Full reports whether the writer has to stop until a flush has dropped a
// delta.
func (s *Store) Full() bool {
	l := s.layers()
	return l.active().bytes.Load() >= s.options.SealBytes && len(l)-1 >= s.options.MaxSealed
}

// Seal closes the active delta, even an empty one, begins a new one, and
// returns the id of the closed one. Only the writer calls it, between entries.
func (s *Store) Seal() DeltaID {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.layers()
	sealed := old.active().id
	next := make(layers, 0, len(old)+1)
	next = append(append(next, newDelta(sealed+1)), old...)
	s.current.Store(&next)
	return sealed
}

// drop removes the oldest delta, which must be id.
func (s *Store) drop(d *delta) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.layers()
	if old.oldest() != d {
		panic("mvcc: the oldest delta changed during its flush")
	}
	next := append(layers(nil), old[:len(old)-1]...)
	s.current.Store(&next)
}

// Latest returns the newest version of key that is in a delta; ok is false
// when none is, which says nothing about the engine.
func (s *Store) Latest(inst keyspace.InstanceID, key []byte) (value []byte, rev keyspace.Revision, del, ok bool) {
	v := s.layers().get(hashKey(inst, key), inst, key, keyspace.MaxRevision)
	if v == nil {
		return nil, 0, false, false
	}
	return v.value, v.rev, v.del, true
}

// get returns the newest version of key at or below at. The versions of a key
// are inserted in order, so the newest delta that has one decides.
func (l layers) get(hash uint64, inst keyspace.InstanceID, key []byte, at keyspace.Revision) *version {
	for _, d := range l {
		if v := d.get(hash, inst, key, at); v != nil {
			return v
		}
	}
	return nil
}
