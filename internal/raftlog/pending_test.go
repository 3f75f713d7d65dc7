package raftlog

import (
	"errors"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// TestSyncBesideTheLog: a pending sync stands for what was written before it,
// not for what came meanwhile, and a sync of the log itself outruns it.
func TestSyncBesideTheLog(t *testing.T) {
	l := mustOpen(t, simfs.New())
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	if l.BeginSync() != nil {
		t.Error("a sync of what is durable")
	}
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, 1, 3)) })
	before := l.Written()
	p := l.BeginSync()
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, 4, 6)) })
	if err := l.EndSync(p, p.Run()); err != nil {
		t.Fatal(err)
	}
	if l.Durable() != before || l.Written() == before {
		t.Errorf("durable to frame %d, want %d; written to %d", l.Durable(), before, l.Written())
	}
	p = l.BeginSync()
	mustCommit(t, l, true, func(b *Batch) { b.Entries(1, entries(1, 7, 9)) })
	outrun := l.Durable()
	if err := l.EndSync(p, p.Run()); err != nil || l.Durable() != outrun || outrun != l.Written() {
		t.Errorf("durable to %d after %d, written to %d, error %v", l.Durable(), outrun, l.Written(), err)
	}
	mustClose(t, l)
}

// TestFailedSyncBesideTheLog: nothing may be built on a disk that failed.
func TestFailedSyncBesideTheLog(t *testing.T) {
	l := mustOpen(t, simfs.New())
	mustCommit(t, l, false, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	durable, p := l.Durable(), l.BeginSync()
	if err := l.EndSync(p, errors.New("input/output error")); !errors.Is(err, ErrFailed) {
		t.Errorf("ended with %v", err)
	}
	if err := l.Commit(l.NewBatch(), true); !errors.Is(err, ErrFailed) || l.Durable() != durable || l.BeginSync() != nil {
		t.Errorf("the log goes on: %v, durable to %d", err, l.Durable())
	}
}

// TestSegmentStaysWhileItIsSynced: compaction waits for the sync's end.
func TestSegmentStaysWhileItIsSynced(t *testing.T) {
	l := mustOpen(t, simfs.New())
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, 1, 3)) })
	first := l.segments[0]
	p := l.BeginSync()
	for i := uint64(4); l.current() == first; i++ {
		mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, i, i)) })
	}
	last := l.Storage(1).group.last()
	mustCommit(t, l, true, func(b *Batch) { b.Checkpoint(1, checkpoint(1, last, 1)) })
	l.Compact(1, keyspace.Index(last+1))
	mustCommit(t, l, true, func(b *Batch) { b.HardState(1, hard(1, 1, last)) })
	if l.segments[0] != first {
		t.Fatal("the segment is gone while it is synced")
	}
	if err := l.EndSync(p, p.Run()); err != nil {
		t.Fatal(err)
	}
	if l.segments[0] == first {
		t.Error("the segment stays after its sync")
	}
	mustClose(t, l)
}
