package mvcc

import (
	"context"
	"fmt"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// FlushOldest writes the oldest sealed delta to the engine, except for
// instances for which live returns false, syncs the engine and drops the
// delta. ok is false when none is sealed. After an error the delta is still
// there and may be flushed again. live may be nil: all are.
//
// The delta stays readable until it is dropped, and then the engine has all of
// it: readers never see a hole.
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
	s.records.forget(d)
	s.drop(d)
	return d.id, true, nil
}

func (s *Store) flush(ctx context.Context, d *delta, live func(keyspace.InstanceID) bool) error {
	batch := flushBatch{store: s, limit: s.options.FlushBatchBytes}
	written := false
	for _, inst := range d.instances() {
		if live != nil && !live(inst) {
			continue
		}
		written = true
		if err := batch.addAll(ctx, inst, d.order(inst)); err != nil {
			return err
		}
	}
	if !written {
		return nil // nothing to make durable
	}
	if err := batch.write(ctx); err != nil {
		return err
	}
	return s.engine.Sync()
}

// flushBatch is one engine write; its memory is used again for the next one.
type flushBatch struct {
	store  *Store
	limit  int
	bytes  int
	writes []engine.Write
	keys   []byte // the keys with their instances, cut from one block
}

// addAll adds every version of an instance, keys ascending, newest first.
func (b *flushBatch) addAll(ctx context.Context, inst keyspace.InstanceID, o *order) error {
	all := span{instance: inst, at: keyspace.MaxRevision}
	c := cursor{order: o, span: &all}
	for c.seekForward(nil); c.at != nil; c.nextVersion() {
		if b.full(c.item, c.at) {
			if err := b.write(ctx); err != nil {
				return err
			}
			if f := b.store.options.Between; f != nil && !b.store.hurry.Load() {
				if err := f(ctx); err != nil {
					return err
				}
			}
		}
		b.add(c.item, c.at)
	}
	return nil
}

// full reports whether v belongs into the next batch.
func (b *flushBatch) full(it *item, v *version) bool {
	return len(b.writes) > 0 && b.bytes+len(it.key)+len(v.value) > b.limit
}

func (b *flushBatch) add(it *item, v *version) {
	need := keyspace.InstanceBytes + len(it.key)
	if cap(b.keys)-len(b.keys) < need {
		// Keys already cut keep the old block alive.
		const block = 256 << 10
		b.keys = make([]byte, 0, max(need, block))
	}
	start := len(b.keys)
	b.keys = append(keyspace.AppendInstance(b.keys, it.instance), it.key...)
	b.writes = append(b.writes, engine.Write{
		Key:      b.keys[start:len(b.keys):len(b.keys)],
		Revision: v.rev,
		Value:    v.value,
		Delete:   v.del,
	})
	b.bytes += need + len(v.value)
}

// write hands the batch to the engine and empties it.
func (b *flushBatch) write(ctx context.Context) error {
	if err := b.store.engine.Write(ctx, b.writes); err != nil {
		return err
	}
	clear(b.writes)
	b.writes, b.keys, b.bytes = b.writes[:0], b.keys[:0], 0
	return nil
}
