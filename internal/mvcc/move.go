package mvcc

import (
	"bytes"
	"context"
	"fmt"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// Walk is what a walk over runs is for.
type Walk int

// The walks over runs.
const (
	WalkMerge      Walk = iota // small runs become a middle one
	WalkMergeLarge             // middle and large runs become one
	WalkMove                   // the oldest runs go to the engine
)

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
	return s.walk(ctx, s.options.Runs.Take(0, s.options.SmallBytes), WalkMerge)
}

// MergeLarge does the same with middle runs and the large ones that are not much
// larger.
func (s *Store) MergeLarge(ctx context.Context) (merged int64, err error) {
	if s.options.Runs == nil {
		return 0, nil
	}
	s.moving.Lock()
	defer s.moving.Unlock()
	runs, err := s.takeMiddle()
	if err != nil {
		return 0, err
	}
	return s.walk(ctx, runs, WalkMergeLarge)
}

// MoveRuns does the same with the oldest runs, whose newest versions it hands to
// the engine, in order, and makes durable there.
func (s *Store) MoveRuns(ctx context.Context) (moved int64, err error) {
	if s.options.Runs == nil {
		return 0, nil
	}
	s.moving.Lock()
	defer s.moving.Unlock()
	runs, release := s.takeOldest()
	defer release()
	return s.walk(ctx, runs, WalkMove)
}

func (s *Store) walk(ctx context.Context, runs *sstable.Taken, what Walk) (bytes int64, err error) {
	if runs == nil {
		return 0, nil
	}
	defer runs.Release()
	m := move{store: s, older: s.options.History.Writer(), floor: s.options.History.Floor(), alone: s.alone(runs),
		progress: MoveProgress{Walk: s.walks.Add(1), What: what, Total: runs.Bytes, Period: s.period(runs, what)}}
	defer func() { err = abort(m.older, err) }()
	if what != WalkMove {
		m.larger = s.options.Runs.Writer()
		m.larger.Expect(runs.Keys())
		if what != WalkMerge || !s.ListsWait() {
			m.larger.Unread(func(inst keyspace.InstanceID) bool { return !runs.Asked(inst) })
		}
		defer func() { err = abort(m.larger, err) }()
	}
	if err := m.run(ctx, runs); err != nil {
		return 0, fmt.Errorf("move runs: %w", err)
	}
	runs.Done()
	return runs.Bytes, nil
}

// period is after how many bytes more the next walk of a kind is due. A move that the
// memory of indexes has begun has no more time than that has room.
func (s *Store) period(runs *sstable.Taken, what Walk) int64 {
	switch what {
	case WalkMerge:
	case WalkMergeLarge:
		return min(runs.Bytes, s.tiers().bytes.Middle)
	case WalkMove:
		memory := max(1, s.options.Runs.Memory())
		room := float64(max(0, s.options.IndexBytes-memory)) / float64(memory)
		return int64(min(float64(runs.Bytes), room*float64(s.RunsBytes().All())))
	}
	return runs.Bytes
}

// alone returns for each instance in the runs a revision below which neither another
// run nor the history has a version. What leaves a run for the history is there before
// it has left, and this looks in the same direction.
func (s *Store) alone(runs *sstable.Taken) map[keyspace.InstanceID]keyspace.Revision {
	alone := runs.Alone()
	for inst, rev := range alone {
		alone[inst] = min(rev, s.options.History.Lowest(inst))
	}
	return alone
}

// move is a walk over runs. What is newest goes to the engine or to a larger run,
// what it replaced to the history.
//
// What a merge takes is newer than what a move takes, and older than all else: no
// version between two of a key is anywhere but in the history, or, being large, in
// the engine.
type move struct {
	store  *Store
	older  *sstable.Writer
	larger *sstable.Writer // nil: to the engine
	floor  keyspace.Revision
	// alone has of each instance the revision below which there is no version but in
	// the runs of the walk and, maybe, in the engine.
	alone    map[keyspace.InstanceID]keyspace.Revision
	progress MoveProgress
	engine   bool // something went to the engine

	instance keyspace.InstanceID
	deletion *sstable.Version // of a merge, not added yet
	pending  int              // bytes since the last pause
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
		if err := m.larger.Finish(); err != nil {
			return err
		}
	}
	if m.larger == nil || m.engine {
		return m.store.engine.Sync()
	}
	return nil
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
	if err := m.addDeletion(false); err != nil {
		return err
	}
	return walk.Err()
}

func (m *move) addCurrent(v *sstable.Version) error {
	if err := m.addDeletion(false); err != nil {
		return err
	}
	switch {
	case m.store.options.Runs.Dead(m.instance):
		return nil
	case m.larger != nil && v.Delete:
		m.deletion = v
		return nil
	case m.larger != nil:
		return m.larger.Add(m.instance, *v)
	}
	m.addToEngine(v)
	return nil
}

func (m *move) addToEngine(v *sstable.Version) {
	key := append(keyspace.AppendInstance(make([]byte, 0, keyspace.InstanceBytes+len(v.Key)), m.instance), v.Key...)
	m.progress.Engine += int64(len(key) + len(v.Value))
	m.writes = append(m.writes, engine.Write{Key: key, Revision: v.Revision, Value: v.Value, Delete: v.Delete})
	m.engine = true
}

// addDeletion adds the deletion that a merge has met last, once it is known whether
// the walk has something older of its key, to the run that it makes.
//
// A deletion that nobody reads below, and that hides nothing in a run or in the
// history, need not be in a run: it goes to the engine, where what it hides becomes
// garbage, or nowhere when the engine has nothing of the instance. One that hides
// something in the runs of this walk stays until the next one: a crash may leave any
// of those. Nothing older comes later: versions of a key come in order, and what a
// restart inserts again brings the deletion, too.
func (m *move) addDeletion(hides bool) error {
	v := m.deletion
	m.deletion = nil
	switch {
	case v == nil:
		return nil
	case hides, v.Revision > m.floor, v.Revision >= m.alone[m.instance]:
		return m.larger.Add(m.instance, *v)
	case m.store.mayBeInEngine(m.instance):
		m.addToEngine(v)
	}
	return nil
}

// addOlder adds a version to the history. Between it and the one it was replaced
// by in the runs, there may be others in the history already.
func (m *move) addOlder(v sstable.Version, until keyspace.Revision) error {
	if err := m.addDeletion(true); err != nil {
		return err
	}
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
