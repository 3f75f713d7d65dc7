package badger

import (
	"context"
	"errors"
	"fmt"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/pb"

	"kvstore/internal/engine"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

const (
	// pendingBatches bounds Badger batches in flight in one Write. A batch is
	// at most 15 % of a memtable.
	pendingBatches = 2
	// fewWrites is up to how many writes of one call go by writeFew.
	fewWrites = 64
	// checkEvery is how many writes pass between looks at the context.
	checkEvery = 512
	// deleteMeta is Badger's mark of a deletion in an entry; its backup format
	// fixes the value.
	deleteMeta = 1
)

// Write hands writes to Badger and waits for them. It waits when Badger's
// memtables or level 0 are full.
func (e *Engine) Write(ctx context.Context, writes []engine.Write) error {
	if err := e.admit(writes); err != nil {
		return err
	}
	write := e.writeMany
	if len(writes) <= e.few {
		write = e.writeFew
	}
	err := write(ctx, writes)
	e.ahead.follow()
	e.unflushed.count(writes)
	if err != nil {
		return fmt.Errorf("write to badger: %w", err)
	}
	return nil
}

// writeMany uses the loader, Badger's path for restoring backups: like the
// managed WriteBatch it sets each entry's version, splits into batches by itself
// and has no atomicity, but it keeps the order of the writes and builds no map
// of them.
func (e *Engine) writeMany(ctx context.Context, writes []engine.Write) error {
	loader := e.db.NewKVLoader(pendingBatches)
	err := load(ctx, writes, loader.Set)
	// Finish waits for what is in flight, also after an error.
	return errors.Join(err, loader.Finish())
}

// writeFew uses the WriteBatch, which costs something for each write, where the
// loader twice makes room for as many as fit into a batch: 1.6 MB with a memtable
// of 64 MB, for the two large values of a flush's step as well.
func (e *Engine) writeFew(ctx context.Context, writes []engine.Write) error {
	batch := e.db.NewManagedWriteBatch()
	defer batch.Cancel()
	batch.SetMaxPendingTxns(pendingBatches)
	err := load(ctx, writes, func(kv *pb.KV) error {
		if len(kv.Meta) > 0 {
			return batch.DeleteAt(kv.Key, kv.Version)
		}
		return batch.SetEntryAt(&badgerdb.Entry{Key: kv.Key, Value: kv.Value}, kv.Version)
	})
	if err != nil {
		return err
	}
	return batch.Flush()
}

func load(ctx context.Context, writes []engine.Write, set func(*pb.KV) error) error {
	mark := []byte{deleteMeta}
	var kv pb.KV // Set takes what it needs out of it
	for i := range writes {
		w := &writes[i]
		if i%checkEvery == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(w.Key) == 0 || w.Revision == 0 || w.Revision == keyspace.MaxRevision {
			panic(fmt.Sprintf("badger: write of key %x at revision %d", w.Key, uint64(w.Revision)))
		}
		kv.Key, kv.Value, kv.Version, kv.Meta = w.Key, w.Value, uint64(w.Revision), nil
		if w.Delete {
			kv.Value, kv.Meta = nil, mark
		}
		if err := set(&kv); err != nil {
			return err
		}
	}
	return nil
}

// admit refuses writes when the disk is so full that Badger could fail in the
// middle: it writes through mappings of sparse files, where a full disk is not
// an error but a fault that ends the process.
func (e *Engine) admit(writes []engine.Write) error {
	need := e.reserve()
	for i := range writes {
		need += int64(len(writes[i].Key) + len(writes[i].Value))
	}
	free, err := freeBytes(e.dir)
	if err != nil {
		return fmt.Errorf("free space of badger directory: %w", err)
	}
	if free < uint64(need) {
		return fault.New(fault.Overloaded, "disk is nearly full",
			"limit_free_bytes", need, "actual_free_bytes", free).WithRetry(diskFullRetry)
	}
	return nil
}

// reserve is what Badger may need at once beside the writes themselves: the
// log and the table of every memtable, and the output of a compaction, the
// largest of which is that of level 0 into the base level. Its input is removed
// after it.
func (e *Engine) reserve() int64 {
	need := e.options.MemtableSize * int64(e.options.NumMemtables+2)
	for _, level := range e.db.Levels() {
		if level.Level == 0 || level.IsBaseLevel {
			need += level.Size
		}
	}
	return need
}
