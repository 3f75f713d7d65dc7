// Package mem is the engine of the simulation: an ordered map in memory that
// loses unsynced writes as Badger does, in any subset (Crash).
package mem

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// Mem is an engine.Engine. It starts nothing.
type Mem struct {
	mu     sync.Mutex
	now    *tree
	synced *tree
	// unsynced are the writes since the last Sync, in order.
	unsynced []version
	floor    keyspace.Revision
}

var _ engine.Engine = (*Mem)(nil)

// Open returns an empty engine.
func Open() *Mem { return &Mem{} }

// Write applies writes; it copies them.
func (m *Mem) Write(ctx context.Context, writes []engine.Write) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range writes {
		w := &writes[i]
		if len(w.Key) == 0 || w.Revision == 0 || w.Revision == keyspace.MaxRevision {
			panic(fmt.Sprintf("mem: write of key %x at revision %d", w.Key, uint64(w.Revision)))
		}
		v := version{key: bytes.Clone(w.Key), rev: w.Revision, delete: w.Delete}
		if !w.Delete {
			v.value = append([]byte{}, w.Value...)
		}
		m.unsynced = append(m.unsynced, v)
		m.apply(v)
	}
	return nil
}

// apply adds v and forgets what it makes superfluous. mu must be held.
func (m *Mem) apply(v version) {
	m.now = m.now.insert(v)
	m.now = forget(m.now, v.key, m.floor)
}

// forget removes the versions of key that the floor allows to lose: all below
// the newest at or below it, and that one too if it is a deletion.
func forget(t *tree, key []byte, floor keyspace.Revision) *tree {
	keep := t.seek(key, floor)
	if keep == nil || !bytes.Equal(keep.key, key) {
		return t
	}
	for {
		old := t.seek(key, keep.rev-1)
		if old == nil || !bytes.Equal(old.key, key) {
			break
		}
		t = t.remove(key, old.rev)
	}
	if keep.delete {
		t = t.remove(key, keep.rev)
	}
	return t
}

// Sync makes everything written before it survive Crash.
func (m *Mem) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.synced, m.unsynced = m.now, nil
	return nil
}

// Crash returns what is left after a power cut: what was synced, and of the
// later writes those for which keep returns true, by their number from 0. The
// floor starts at 0 again. m itself goes on.
func (m *Mem) Crash(keep func(i int) bool) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := &Mem{now: m.synced}
	for i, v := range m.unsynced {
		if keep(i) {
			after.now = after.now.insert(v)
		}
	}
	after.synced = after.now
	return after
}

// Unsynced returns the number of writes that Crash asks about.
func (m *Mem) Unsynced() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.unsynced)
}

// SetFloor takes effect on keys as they are written, as compaction does on
// keys that happen to be compacted.
func (m *Mem) SetFloor(floor keyspace.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.floor = max(m.floor, floor)
}

// Compact forgets all that the floor allows, at once.
func (m *Mem) Compact() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for v := m.now.seek(nil, keyspace.MaxRevision); v != nil; v = m.now.seek(v.key, 0) {
		m.now = forget(m.now, v.key, m.floor)
	}
}

// DeleteInstance deletes every key of i above its newest version.
func (m *Mem) DeleteInstance(ctx context.Context, i keyspace.InstanceID) error {
	prefix := keyspace.AppendInstance(nil, i)
	r := m.Reader()
	defer r.Close()
	it := r.Iterate(engine.IterOptions{Lower: prefix, Upper: keyspace.PrefixEnd(prefix), At: keyspace.MaxRevision})
	defer it.Close()
	var writes []engine.Write
	for ; it.Valid(); it.Next() {
		writes = append(writes, engine.Write{Key: it.Key(), Revision: it.Revision() + 1, Delete: true})
	}
	return m.Write(ctx, writes)
}

// Instances returns the instance prefixes present.
func (m *Mem) Instances(ctx context.Context) ([]keyspace.InstanceID, error) {
	r := m.Reader()
	defer r.Close()
	it := r.Iterate(engine.IterOptions{At: keyspace.MaxRevision})
	defer it.Close()
	var found []keyspace.InstanceID
	for it.Valid() && ctx.Err() == nil {
		i, _, err := keyspace.DecodeInstance(it.Key())
		if err != nil {
			return nil, err
		}
		found = append(found, i)
		next := keyspace.PrefixEnd(keyspace.AppendInstance(nil, i))
		if next == nil {
			break
		}
		it.Seek(next)
	}
	return found, context.Cause(ctx)
}

// EstimateBytes is exact, and walks over the instance.
func (m *Mem) EstimateBytes(i keyspace.InstanceID) (sum int64) {
	prefix := keyspace.AppendInstance(nil, i)
	root := m.root()
	for v := root.seek(prefix, keyspace.MaxRevision); v != nil && bytes.HasPrefix(v.key, prefix); v = root.seek(v.key, v.rev-1) {
		sum += int64(len(v.key) - len(prefix) + len(v.value))
	}
	return sum
}

// Stats reports the floor; nothing is on disk.
func (m *Mem) Stats() engine.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return engine.Stats{Floor: m.floor}
}

// Close does nothing: the memory may be used again by Crash.
func (m *Mem) Close() error { return nil }

// Reader returns a reader; each of its calls reads one moment.
func (m *Mem) Reader() engine.Reader { return &reader{m: m} }

func (m *Mem) root() *tree {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}
