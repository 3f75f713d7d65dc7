package raftlog

import (
	"math/rand/v2"
	"strings"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
)

// A replica that takes over the log of another has its checkpoint and entries,
// its own hard state, and makes the other's id one that never lives again. It
// is one frame: a crash leaves all of it or nothing.
func TestAdopt(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) {
		b.Create(1, 3, checkpoint(1, 0, 0))
		b.Entries(1, entries(1, 1, 5))
		b.HardState(1, hard(1, 2, 3))
	})
	before := logString(t, l)
	adopt := func(b *Batch) {
		b.Adopt(1, 900)
		b.Entries(1, entries(70, 6, 7))
		b.HardState(1, hard(70, 0, 7))
	}
	mustCommit(t, l, false, adopt)
	torn := mustOpen(t, fs.Crash(rand.New(rand.NewPCG(7, 8))))
	if got := logString(t, torn); got != before && got != logString(t, l) {
		t.Fatalf("a crash left\n%s\nof\n%s\nand\n%s", got, before, logString(t, l))
	}
	for range 2 {
		info := l.Groups()[0]
		if info.Replica != 900 || info.First != 1 || info.Last != 7 || l.HighestRemoved(1) != 3 || info.Damaged ||
			hardStateOf(info.HardState) != (hardState{70, 0, 7}) || info.Checkpoint.Instance != 1 {
			t.Fatalf("the log says %+v, removed %d", info, l.HighestRemoved(1))
		}
		if es, err := l.Storage(1).Entries(1, 8, 1<<20); err != nil || len(es) != 7 || !strings.HasPrefix(string(es[4].Data), "1/") {
			t.Fatalf("entries %v, %v", es, err)
		}
		if l.MayCreate(1, 900) || l.MayCreate(1, 3) || !l.MayCreate(1, 901) {
			t.Fatal("ids of replicas that lived here are free again")
		}
		b := l.NewBatch()
		b.Adopt(1, 900)
		if err := l.Commit(b, true); fault.CodeOf(err) != fault.FailedPrecondition {
			t.Fatalf("an id twice: %v", err)
		}
		l = reopen(t, l, fs, true)
	}
}
