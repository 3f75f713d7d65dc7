package mvcc

import (
	"context"
	"errors"
	"fmt"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
	"kvstore/internal/sstable"
)

// FlushOldest writes the oldest sealed delta to a run and the history, or to the
// engine, except for instances for which live returns false, makes both durable and
// drops the delta. ok is false when none is sealed. After an error the delta is
// still there and may be flushed again. live may be nil: all are.
//
// The delta stays readable until it is dropped, and then run, engine and history
// have all of it: readers never see a hole.
func (s *Store) FlushOldest(ctx context.Context, live func(keyspace.InstanceID) bool) (id DeltaID, ok bool, err error) {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	current := s.layers()
	if len(current) < 2 {
		return 0, false, nil
	}
	d := current.oldest()
	if err := s.flush(ctx, d, live); err != nil {
		return d.id, true, fmt.Errorf("flush delta %d: %w", d.id, err)
	}
	s.records.follow(d)
	s.drop(d)
	if h := s.options.History; h != nil {
		h.Expire(live)
	}
	return d.id, true, nil
}

func (s *Store) flush(ctx context.Context, d *delta, live func(keyspace.InstanceID) bool) (err error) {
	f := flush{store: s, delta: d, progress: FlushProgress{Delta: d.id, Total: d.bytes.Load()}}
	if h := s.options.History; h != nil {
		f.older, f.floor = h.Writer(), h.Floor()
		defer func() { err = abort(f.older, err) }()
	}
	if r := s.options.Runs; r != nil {
		f.run = r.Writer()
		defer func() { err = abort(f.run, err) }()
	}
	written := false
	for _, inst := range d.instances() {
		if live != nil && !live(inst) {
			continue
		}
		written = true
		if top, known := s.records.top(inst); known {
			s.apart.begin(inst, max(top, d.order(inst).newest))
		}
		if err := f.addAll(ctx, inst, d.order(inst)); err != nil {
			return err
		}
	}
	if !written {
		return nil // nothing to make durable
	}
	if err := f.write(ctx); err != nil {
		return err
	}
	for _, w := range []*sstable.Writer{f.older, f.run} {
		if w != nil {
			if err := w.Finish(); err != nil {
				return err
			}
		}
	}
	if f.progress.Engine == 0 {
		return nil
	}
	return s.engine.Sync()
}

// abort ends what a failed flush or move was writing.
func abort(w *sstable.Writer, err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(err, w.Abort())
}

// flush is one delta on its way. The memory of an engine write is used again for
// the next one.
//
// A version that has a successor, in this delta or a later one, goes to the
// history, to which it costs a fraction of what the engine takes for it; what is
// replaced as often as it is flushed never gets into the engine. A version whose
// successor lies at or below the floor goes nowhere. Of the others, large values
// go to the engine and the rest to a run.
type flush struct {
	store    *Store
	delta    *delta
	older    *sstable.Writer // nil: the engine gets all
	run      *sstable.Writer // nil: the engine gets what is current
	floor    keyspace.Revision
	progress FlushProgress

	pending int // bytes since the last pause
	writes  []engine.Write
	keys    []byte // the keys with their instances, cut from one block
}

// addAll adds every version of an instance, keys ascending, newest first; oldest
// first where the engine gets all: a deletion at or below its floor may be
// forgotten at once, and what it hid must not come after it.
func (f *flush) addAll(ctx context.Context, inst keyspace.InstanceID, o *order) error {
	all := span{instance: inst, at: keyspace.MaxRevision}
	c := cursor{order: o, span: &all, all: true, newer: f.newer()}
	for c.seekForward(nil); c.at != nil; c.nextKey(false) {
		f.progress.Written += int64(itemBytes + len(c.item.key))
		if f.older == nil {
			for _, v := range c.at.ascending() {
				if err := f.add(ctx, c.item, v, 0); err != nil {
					return err
				}
			}
			continue
		}
		until := f.successor(c.item, c.at)
		for v := c.at; v != nil; v = v.prev {
			if err := f.add(ctx, c.item, v, until); err != nil {
				return err
			}
			until = v.rev
		}
	}
	return nil
}

// newer are the deltas after the one that is flushed, the next one last.
func (f *flush) newer() []*delta {
	layers := f.store.layers()
	return layers[:len(layers)-1]
}

// successor returns the revision of the version that replaced v, the newest one
// of its delta; 0 when none did.
func (f *flush) successor(it *item, v *version) keyspace.Revision {
	newer := f.newer()
	hash := hashKey(it.instance, it.key)
	for i := len(newer) - 1; i >= 0; i-- {
		if replaced := newer[i].index.get(hash, it.instance, it.key); replaced != nil {
			if next := replaced.newest.Load().after(v.rev); next != nil {
				return next.rev
			}
		}
	}
	return 0
}

// add puts v where it belongs; until is its successor's revision, 0 for none.
func (f *flush) add(ctx context.Context, it *item, v *version, until keyspace.Revision) error {
	if f.pending > 0 && f.pending+len(it.key)+len(v.value) > f.store.options.FlushBatchBytes {
		if err := f.pause(ctx); err != nil {
			return err
		}
	}
	f.pending += keyspace.InstanceBytes + len(it.key) + len(v.value)
	f.progress.Written += int64(versionBytes + len(v.value))
	switch {
	case until == 0:
		return f.addCurrent(it, v)
	case until <= f.floor:
		return nil
	}
	return f.older.Add(it.instance, sstable.Version{Key: it.key, Revision: v.rev, Until: until, Value: v.value, Delete: v.del})
}

func (f *flush) addCurrent(it *item, v *version) error {
	if f.run != nil {
		if most := f.store.options.ApartBytes; most == 0 || len(v.value) < most {
			return f.run.Add(it.instance, sstable.Version{Key: it.key, Revision: v.rev, Value: v.value, Delete: v.del})
		}
		f.store.apart.raise(it.instance, v.rev)
	}
	f.progress.Engine += int64(keyspace.InstanceBytes + len(it.key) + len(v.value))
	need := keyspace.InstanceBytes + len(it.key)
	if cap(f.keys)-len(f.keys) < need {
		// Keys already cut keep the old block alive.
		const block = 256 << 10
		f.keys = make([]byte, 0, max(need, block))
	}
	start := len(f.keys)
	f.keys = append(keyspace.AppendInstance(f.keys, it.instance), it.key...)
	f.writes = append(f.writes, engine.Write{
		Key:      f.keys[start:len(f.keys):len(f.keys)],
		Revision: v.rev,
		Value:    v.value,
		Delete:   v.del,
	})
	return nil
}

// pause hands on what there is and lets others have the machine.
func (f *flush) pause(ctx context.Context) error {
	if err := f.write(ctx); err != nil {
		return err
	}
	f.pending = 0
	if wait := f.store.options.Between; wait != nil && !f.store.hurry.Load() {
		return wait(ctx, f.progress)
	}
	return ctx.Err()
}

// write hands the engine its batch and empties that.
func (f *flush) write(ctx context.Context) error {
	if len(f.writes) == 0 {
		return nil
	}
	if err := f.store.engine.Write(ctx, f.writes); err != nil {
		return err
	}
	clear(f.writes)
	f.writes, f.keys = f.writes[:0], f.keys[:0]
	return nil
}
