package mvcc

import (
	"bytes"
	"context"
	"fmt"
	"math"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// Where there are so many times as many small runs as begin a merge, or bytes in
// large ones as begin a move, flushes wait, and with them, when deltas are full,
// the writers.
const (
	fullOfSmall = 3
	fullOfLarge = 2
)

// NeedMerge reports whether there are enough small runs to merge them.
func (s *Store) NeedMerge() bool {
	small, _, _ := s.countRuns()
	return small >= s.options.MergeRuns
}

// NeedMove reports whether there is enough in large runs to move it to the engine.
func (s *Store) NeedMove() bool {
	_, _, large := s.countRuns()
	return large > 0 && (large >= s.options.MoveBytes || s.options.Runs.Memory() >= s.options.IndexBytes/2)
}

// FullOfRuns reports whether a flush should wait for a merge or a move of runs.
func (s *Store) FullOfRuns() bool {
	small, _, large := s.countRuns()
	return small >= fullOfSmall*s.options.MergeRuns ||
		large > 0 && (large >= fullOfLarge*s.options.MoveBytes || s.options.Runs.Memory() >= s.options.IndexBytes)
}

// countRuns returns how many small runs there are, their bytes, and those of the
// others.
func (s *Store) countRuns() (small int, bytes, large int64) {
	if s.options.Runs == nil {
		return 0, 0, 0
	}
	small, bytes = s.options.Runs.Count(0, s.options.SmallBytes)
	_, large = s.options.Runs.Count(s.options.SmallBytes, math.MaxInt64)
	return small, bytes, large
}

// RunsBytes is what small and large runs take on disk.
func (s *Store) RunsBytes() (small, large int64) {
	_, small, large = s.countRuns()
	return small, large
}

// Runs is the number of runs.
func (s *Store) Runs() int {
	if s.options.Runs == nil {
		return 0
	}
	return s.options.Runs.Files()
}

// MergeRuns merges the small runs of this moment into one: of each key it gets
// the newest version, the history those that this one replaced. Then the small
// ones are removed. After an error, also ctx's, they are still there and may be
// merged again. It returns how many bytes they had.
func (s *Store) MergeRuns(ctx context.Context) (merged int64, err error) {
	if s.options.Runs == nil {
		return 0, nil
	}
	s.merging.Lock()
	defer s.merging.Unlock()
	return s.walk(ctx, s.options.Runs.Take(0, s.options.SmallBytes), true)
}

// MoveRuns does the same with the large runs, whose newest versions it hands to
// the engine, in order, and makes durable there.
func (s *Store) MoveRuns(ctx context.Context) (moved int64, err error) {
	if s.options.Runs == nil {
		return 0, nil
	}
	s.moving.Lock()
	defer s.moving.Unlock()
	runs, release := s.takeOldest()
	defer release()
	return s.walk(ctx, runs, false)
}

// takeOldest takes the large runs and what is older than one of them. A small run
// that is among those must not be merged meanwhile: what the merge makes of it
// would stay behind as the newest of its keys. No merge is going on when it looks.
func (s *Store) takeOldest() (runs *sstable.Taken, release func()) {
	s.merging.Lock()
	runs = s.options.Runs.TakeOldest(s.options.SmallBytes)
	if runs != nil && runs.Smallest() < s.options.SmallBytes {
		return runs, s.merging.Unlock
	}
	s.merging.Unlock()
	return runs, func() {}
}

func (s *Store) walk(ctx context.Context, runs *sstable.Taken, merge bool) (bytes int64, err error) {
	if runs == nil {
		return 0, nil
	}
	defer runs.Release()
	m := move{store: s, older: s.options.History.Writer(), floor: s.options.History.Floor(),
		progress: MoveProgress{Walk: s.walks.Add(1), Merge: merge, Total: runs.Bytes}}
	defer func() { err = abort(m.older, err) }()
	if merge {
		m.larger = s.options.Runs.Writer()
		defer func() { err = abort(m.larger, err) }()
	}
	if err := m.run(ctx, runs); err != nil {
		return 0, fmt.Errorf("move runs: %w", err)
	}
	runs.Done()
	return runs.Bytes, nil
}

// move is a walk over runs. What is newest goes to the engine or to a larger run,
// what it replaced to the history.
//
// What a merge takes is newer than what a move takes, and older than all else: no
// version between two of a key is anywhere but in the history, or, being large, in
// the engine.
type move struct {
	store    *Store
	older    *sstable.Writer
	larger   *sstable.Writer // nil: to the engine
	floor    keyspace.Revision
	progress MoveProgress

	instance keyspace.InstanceID
	pending  int // bytes since the last pause
	writes   []engine.Write
}

func (m *move) run(ctx context.Context, runs *sstable.Taken) error {
	for _, inst := range runs.Instances() {
		m.instance = inst
		if err := m.addAll(ctx, runs.Merge(inst)); err != nil {
			return err
		}
		if err := m.write(ctx); err != nil {
			return err
		}
	}
	if err := m.older.Finish(); err != nil {
		return err
	}
	if m.larger != nil {
		return m.larger.Finish()
	}
	return m.store.engine.Sync()
}

// addAll adds the versions of an instance, newest first per key.
func (m *move) addAll(ctx context.Context, walk *sstable.Merge) error {
	var last *sstable.Version
	for ; walk.Version() != nil; walk.Next() {
		v := walk.Version()
		if m.pending >= m.store.options.FlushBatchBytes {
			if err := m.pause(ctx); err != nil {
				return err
			}
		}
		m.pending += len(v.Key) + len(v.Value)
		var err error
		if last == nil || !bytes.Equal(last.Key, v.Key) {
			err = m.addCurrent(v)
		} else {
			err = m.addOlder(*v, last.Revision)
		}
		if err != nil {
			return err
		}
		last = v
	}
	return walk.Err()
}

func (m *move) addCurrent(v *sstable.Version) error {
	switch {
	case m.store.options.Runs.Dead(m.instance):
		return nil
	case m.larger != nil:
		return m.larger.Add(m.instance, *v)
	}
	key := append(keyspace.AppendInstance(make([]byte, 0, keyspace.InstanceBytes+len(v.Key)), m.instance), v.Key...)
	m.progress.Engine += int64(len(key) + len(v.Value))
	m.writes = append(m.writes, engine.Write{Key: key, Revision: v.Revision, Value: v.Value, Delete: v.Delete})
	return nil
}

// addOlder adds a version to the history. Between it and the one it was replaced
// by in the runs, there may be others in the history already.
func (m *move) addOlder(v sstable.Version, until keyspace.Revision) error {
	if until <= m.floor || m.store.options.Runs.Dead(m.instance) {
		return nil
	}
	v.Until = until
	return m.older.Add(m.instance, v)
}

// pause hands on what there is and lets others have the machine.
func (m *move) pause(ctx context.Context) error {
	if err := m.write(ctx); err != nil {
		return err
	}
	m.progress.Moved += int64(m.pending)
	m.pending = 0
	if wait := m.store.options.BetweenMoved; wait != nil && !m.store.hurry.Load() {
		return wait(ctx, m.progress)
	}
	return ctx.Err()
}

// write hands the engine its batch, unless the instance was deleted meanwhile.
func (m *move) write(ctx context.Context) error {
	s := m.store
	s.handing.Lock()
	defer s.handing.Unlock()
	if len(m.writes) > 0 && !s.options.Runs.Dead(m.instance) {
		if err := s.engine.Write(ctx, m.writes); err != nil {
			return err
		}
	}
	clear(m.writes)
	m.writes = m.writes[:0]
	return nil
}
