package badger

import (
	"context"
	"errors"
	"expvar"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"

	"kvstore/internal/env/system"
	"kvstore/internal/keyspace"
)

const (
	maintenanceInterval = time.Minute
	diskFullRetry       = 5 * time.Second
	// garbageRatio is the part of a value log that must be garbage before it is
	// rewritten: live data is then at least 70 % of all closed value logs.
	garbageRatio = 0.3
	// drainTimeout bounds the wait for compactions before a rewrite.
	drainTimeout = 30 * time.Second
	drainPoll    = 20 * time.Millisecond
)

// maintain rewrites value logs until ctx ends.
//
// A rewrite copies what is live out of the value log with the most garbage and
// deletes the log. Badger alone would lose or resurrect data by it, in our
// use:
//
//  1. The copies are as little durable as any write, while the log is deleted
//     at once: a power cut loses data that was durable before. Badger keeps a
//     deleted log while any iterator is open, so one is held open until the
//     copies are synced.
//  2. Among the copies a memtable log may reach the disk before the value log
//     it points to, and the pointer then hides the old good one. A marker
//     names the log being rewritten; if a start finds it, repair.go writes
//     again from the old log what cannot be read (it is still there, by 1).
//  3. What the rewrite found live may be dropped together with its deletion by
//     a compaction before the copy is written, which resurrects it. Badger
//     guards only against deletions with a revision above all others, which
//     ours need not have. So the floor is taken back to 0 and compactions that
//     began before are waited for: no compaction forgets anything meanwhile.
func (e *Engine) maintain(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := e.collect(ctx); err != nil && ctx.Err() == nil {
			e.log.Warn("value log rewrite failed", "error", err)
		}
	}
}

// collect rewrites value logs as long as one has enough garbage.
func (e *Engine) collect(ctx context.Context) error {
	if _, ok := e.candidate(); !ok {
		return nil
	}
	e.floor.pause()
	defer e.floor.resume()
	if err := drainCompactions(ctx); err != nil {
		return err
	}
	// From here on nothing adds to the garbage counts, so Badger will choose
	// the candidate.
	for ctx.Err() == nil {
		fid, ok := e.candidate()
		if !ok {
			return nil
		}
		done, err := e.rewrite(fid)
		if err != nil || !done {
			return err
		}
		e.rewrites.Add(1)
	}
	return nil
}

// rewrite rewrites the candidate.
func (e *Engine) rewrite(candidate uint32) (done bool, err error) {
	if err := writeMarker(e.dir, candidate); err != nil {
		return false, err
	}
	release := e.holdValueLogs()
	defer release() // deletes the rewritten log
	err = e.db.RunValueLogGC(garbageRatio)
	nothing := errors.Is(err, badgerdb.ErrNoRewrite)
	if err != nil && !nothing {
		return false, err // the marker stays: copies may have been written
	}
	if err := e.Sync(); err != nil {
		return false, err
	}
	return !nothing, removeMarker(e.dir)
}

// holdValueLogs keeps Badger from deleting value logs until release.
func (e *Engine) holdValueLogs() (release func()) {
	txn := e.db.NewTransactionAt(uint64(keyspace.MaxRevision), false)
	it := txn.NewIterator(badgerdb.IteratorOptions{Prefix: noKey})
	return func() {
		it.Close()
		txn.Discard()
	}
}

// noKey is a prefix no key has: an iterator under it holds no table.
var noKey = []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// drainCompactions waits until there was a moment without a compaction.
func drainCompactions(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, errors.New("compactions did not pause"))
	defer cancel()
	for runningCompactions() != 0 {
		if err := system.Pause(ctx, drainPoll); err != nil {
			return err
		}
	}
	return nil
}

// runningCompactions returns Badger's count of tables in compactions, of all
// stores of the process. A compaction counts itself before it reads the
// discard timestamp.
func runningCompactions() int64 { return badgerCounter("badger_compaction_current_num_lsm") }

// badgerCounter is one of Badger's own, over all stores of the process.
func badgerCounter(name string) int64 {
	if v, ok := expvar.Get(name).(*expvar.Int); ok {
		return v.Value()
	}
	panic("badger: the counter " + name + " is gone")
}
