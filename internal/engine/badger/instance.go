package badger

import (
	"context"
	"fmt"
	"time"

	"kvstore/internal/engine"
	"kvstore/internal/env/system"
	"kvstore/internal/keyspace"
)

const (
	deleteBatchKeys  = 4096
	deleteBatchBytes = 256 << 10
)

// Instances returns the instance prefixes present.
func (e *Engine) Instances(ctx context.Context) ([]keyspace.InstanceID, error) {
	r := e.Reader()
	defer r.Close()
	it := r.Iterate(engine.IterOptions{At: keyspace.MaxRevision, KeysOnly: true})
	defer it.Close()
	var found []keyspace.InstanceID
	for it.Valid() {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		i, _, err := keyspace.DecodeInstance(it.Key())
		if err != nil {
			return nil, fmt.Errorf("list instances: %w", err)
		}
		found = append(found, i)
		next := keyspace.PrefixEnd(keyspace.AppendInstance(nil, i))
		if next == nil {
			break
		}
		it.Seek(next)
	}
	return found, it.Err()
}

// DeleteInstance deletes every key of i right above its newest version, so
// that compaction sees what the deletion hides and counts its values as
// garbage. Each batch is followed by a pause as long as it took: half of the
// time is left to others.
func (e *Engine) DeleteInstance(ctx context.Context, i keyspace.InstanceID) error {
	prefix := keyspace.AppendInstance(nil, i)
	from, end := prefix, keyspace.PrefixEnd(prefix)
	for {
		began := time.Now()
		batch := e.deletions(from, end)
		if len(batch) == 0 {
			return nil
		}
		if err := e.Write(ctx, batch); err != nil {
			return fmt.Errorf("delete instance %d: %w", i, err)
		}
		from = append(batch[len(batch)-1].Key, 0)
		if len(batch) < deleteBatchKeys {
			continue
		}
		if err := system.Pause(ctx, time.Since(began)); err != nil {
			return fmt.Errorf("delete instance %d: %w", i, err)
		}
	}
}

// deletions returns deletions of the next keys from lower on. Its iterator is
// short-lived: it would keep files alive.
func (e *Engine) deletions(lower, upper []byte) []engine.Write {
	r := e.Reader()
	defer r.Close()
	it := r.Iterate(engine.IterOptions{Lower: lower, Upper: upper, At: keyspace.MaxRevision, KeysOnly: true})
	defer it.Close()
	var batch []engine.Write
	var size int
	for ; it.Valid() && len(batch) < deleteBatchKeys && size < deleteBatchBytes; it.Next() {
		key := append([]byte(nil), it.Key()...)
		batch = append(batch, engine.Write{Key: key, Revision: it.Revision() + 1, Delete: true})
		size += len(key)
	}
	return batch
}
