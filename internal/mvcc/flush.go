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
	s.drop(d)
	return d.id, true, nil
}

func (s *Store) flush(ctx context.Context, d *delta, live func(keyspace.InstanceID) bool) error {
	batch := flushBatch{engine: s.engine, limit: s.options.FlushBatchBytes}
	alive := liveness{live: live}
	var last *node
	for n := d.list.first(); n != nil; n = n.next() {
		superseded := last != nil && n.rev == last.rev && n.sameKey(last.instance, last.key)
		if superseded || !alive.is(n.instance) {
			continue
		}
		last = n
		if batch.full(n) {
			if err := batch.write(ctx); err != nil {
				return err
			}
		}
		batch.add(n)
	}
	if last == nil {
		return nil // nothing to make durable
	}
	if err := batch.write(ctx); err != nil {
		return err
	}
	return s.engine.Sync()
}

// liveness asks once per run of one instance.
type liveness struct {
	live  func(keyspace.InstanceID) bool
	asked bool
	inst  keyspace.InstanceID
	known bool
}

func (l *liveness) is(inst keyspace.InstanceID) bool {
	if l.live == nil {
		return true
	}
	if !l.asked || l.inst != inst {
		l.asked, l.inst, l.known = true, inst, l.live(inst)
	}
	return l.known
}

// flushBatch is one engine write; its memory is used again for the next one.
type flushBatch struct {
	engine engine.Engine
	limit  int
	bytes  int
	writes []engine.Write
	keys   []byte // the keys with their instances, cut from one block
}

// full reports whether n belongs into the next batch.
func (b *flushBatch) full(n *node) bool {
	return len(b.writes) > 0 && b.bytes+len(n.key)+len(n.value) > b.limit
}

func (b *flushBatch) add(n *node) {
	need := keyspace.InstanceBytes + len(n.key)
	if cap(b.keys)-len(b.keys) < need {
		// Keys already cut keep the old block alive.
		const block = 256 << 10
		b.keys = make([]byte, 0, max(need, block))
	}
	start := len(b.keys)
	b.keys = append(keyspace.AppendInstance(b.keys, n.instance), n.key...)
	b.writes = append(b.writes, engine.Write{
		Key:      b.keys[start:len(b.keys):len(b.keys)],
		Revision: n.rev,
		Value:    n.value,
		Delete:   n.del,
	})
	b.bytes += need + len(n.value)
}

// write hands the batch to the engine and empties it.
func (b *flushBatch) write(ctx context.Context) error {
	if err := b.engine.Write(ctx, b.writes); err != nil {
		return err
	}
	clear(b.writes)
	b.writes, b.keys, b.bytes = b.writes[:0], b.keys[:0], 0
	return nil
}
