package raftlog

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

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

// TestUnwrittenEntriesAreRead: what no file has yet, or is being written, can be
// read although the cache has forgotten it.
func TestUnwrittenEntriesAreRead(t *testing.T) {
	options := testOptions(rand.New(rand.NewPCG(1, 2)))
	options.SegmentBytes, options.CacheBytes = 256<<10, 1
	l, err := Open(simfs.New(), testDir, options)
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	var running []*PendingSync
	next := uint64(1)
	for range 3 { // one region in the file, two on their way, one in memory
		mustCommit(t, l, next == 1, func(b *Batch) { b.Entries(1, entries(1, next, next+2)) })
		next += 3
		if p := l.BeginSync(); p != nil {
			running = append(running, p)
		}
	}
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, next, next+2)) })
	if len(running) != 2 || len(l.buf) == 0 {
		t.Fatalf("%d syncs run, %d bytes wait", len(running), len(l.buf))
	}
	check := func() {
		t.Helper()
		got, err := l.Storage(1).Entries(1, next+3, 1<<20)
		if err != nil || len(got) != int(next)+2 {
			t.Fatalf("%d entries of %d, error %v", len(got), next+2, err)
		}
		for i, e := range got {
			if want := entries(1, uint64(i)+1, uint64(i)+1)[0]; !proto.Equal(e, want) {
				t.Errorf("entry %d is %v, want %v", i+1, e, want)
			}
		}
	}
	check()
	for _, p := range running {
		if err := l.EndSync(p, p.Run()); err != nil {
			t.Fatal(err)
		}
		check()
	}
	mustClose(t, l)
}

// TestRollOvertakesAWrite: a segment is left when all its frames are in it, also
// those whose write belongs to a sync that has not run yet.
func TestRollOvertakesAWrite(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, 1, 3)) })
	first, p := l.current(), l.BeginSync()
	index := uint64(4)
	for ; l.current() == first; index++ {
		mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, index, index)) })
	}
	mustCommit(t, l, true, func(*Batch) {})
	lost := mustOpen(t, fs.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} }))
	if got, _ := lost.Storage(1).LastIndex(); got != index-1 {
		t.Errorf("after a power cut the log ends at %d, want %d", got, index-1)
	}
	if err := l.EndSync(p, p.Run()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
}

// TestMuchUnsyncedIsWritten: memory is bounded where nobody syncs.
func TestMuchUnsyncedIsWritten(t *testing.T) {
	options := testOptions(rand.New(rand.NewPCG(1, 2)))
	options.SegmentBytes = 2 * maxUnwritten
	l, err := Open(simfs.New(), testDir, options)
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	data := strings.Repeat("x", 400<<10)
	for i := range uint64(maxUnwritten+maxUnwritten/2) / uint64(len(data)) {
		mustCommit(t, l, false, func(b *Batch) { b.Entries(1, []*raftpb.Entry{entry(1, i+1, data)}) })
		if len(l.buf) > maxUnwritten {
			t.Fatalf("%d bytes wait to be written, at most %d may", len(l.buf), maxUnwritten)
		}
	}
	if s := l.Stats(); s.Syncs > 2 {
		t.Errorf("%d syncs", s.Syncs)
	}
	mustClose(t, l)
}

// TestFailedWriteBesideTheLog: a write that failed is not a sync, whoever met it.
func TestFailedWriteBesideTheLog(t *testing.T) {
	for _, roll := range []bool{false, true} {
		fs := simfs.New()
		l := mustOpen(t, fs)
		mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
		mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, 1, 3)) })
		durable, p := l.Durable(), l.BeginSync()
		fs.Before(func(o simfs.Op) error {
			if o.Kind == simfs.OpWrite {
				return syscall.EIO
			}
			return nil
		})
		if roll {
			b := l.NewBatch()
			b.HardState(1, hard(1, 1, 3))
			if err := l.Commit(b, true); !errors.Is(err, ErrFailed) {
				t.Errorf("the log's own sync ended with %v", err)
			}
		}
		if err := p.Run(); !errors.Is(err, syscall.EIO) {
			t.Errorf("the sync beside the log ended with %v", err)
		} else if err := l.EndSync(p, err); !errors.Is(err, ErrFailed) || l.Durable() != durable {
			t.Errorf("EndSync = %v, durable to %d", err, l.Durable())
		}
	}
}

// TestLaterSyncEndsFirst: what a sync stands for includes the frames of syncs that
// were begun before it.
func TestLaterSyncEndsFirst(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, 1, 3)) })
	first := l.BeginSync()
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, 4, 6)) })
	second := l.BeginSync()
	if err := l.EndSync(second, second.Run()); err != nil || l.Durable() != l.Written() {
		t.Fatalf("durable to %d of %d, %v", l.Durable(), l.Written(), err)
	}
	lost := mustOpen(t, fs.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} }))
	if got, _ := lost.Storage(1).LastIndex(); got != 6 {
		t.Errorf("after a power cut the log ends at %d, want 6", got)
	}
	if err := l.EndSync(first, first.Run()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
}

// TestCommitDoesNotWaitForTheDisk: a disk that hangs stops syncs, not the loop that
// commits, and has to notice.
func TestCommitDoesNotWaitForTheDisk(t *testing.T) {
	fs := simfs.New()
	options := testOptions(rand.New(rand.NewPCG(1, 2)))
	options.SegmentBytes = maxUnwritten
	l, err := Open(fs, testDir, options)
	if err != nil {
		t.Fatal(err)
	}
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(1, 1, 3)) })
	p := l.BeginSync()
	fs.Before(func(o simfs.Op) error {
		if o.Kind == simfs.OpWrite || o.Kind == simfs.OpSync {
			return syscall.EIO // somebody touches the disk
		}
		return nil
	})
	mustCommit(t, l, false, func(b *Batch) {
		b.Entries(1, []*raftpb.Entry{entry(1, 4, strings.Repeat("x", maxUnwritten/2))})
	})
	fs.Before(nil)
	if err := l.EndSync(p, p.Run()); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
}

// TestPrepareWithoutDescriptors: a segment that cannot be opened is an error, for
// the next try to do better.
func TestPrepareWithoutDescriptors(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	opened := 0
	fs.Before(func(o simfs.Op) error {
		if o.Kind == simfs.OpOpen {
			opened++
			return syscall.EMFILE
		}
		return nil
	})
	if _, err := prepareSegment(fs, testDir, 99, 1, minSegmentBytes); !errors.Is(err, syscall.EMFILE) || opened != 1 {
		t.Errorf("prepared with %v after %d opens", err, opened)
	}
	fs.Before(nil)
	mustClose(t, l)
}
