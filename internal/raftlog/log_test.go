package raftlog

import (
	"flag"
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
)

var rewrite = flag.Bool("rewrite", false, "write testdata/operations.txt anew")

// TestOrderOfOperations holds the order in which the disk is used against
// testdata/operations.txt: what is synced before what is the whole point.
func TestOrderOfOperations(t *testing.T) {
	fs := simfs.New()
	var trace strings.Builder
	fs.After(func(o simfs.Op, err error) {
		if o.Kind == simfs.OpRead {
			return
		}
		line := strings.ReplaceAll(o.String(), testDir+"/", "")
		if err != nil {
			line += " (error)"
		}
		trace.WriteString("  " + line + "\n")
	})
	say := func(format string, args ...any) { fmt.Fprintf(&trace, format+"\n", args...) }

	say("open an empty directory")
	l := mustOpen(t, fs)
	say("create a group, sync")
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	say("entries and hard state of one loop, sync")
	mustCommit(t, l, true, func(b *Batch) {
		b.Entries(1, entries(1, 1, 3))
		b.HardState(1, hard(1, 1, 0))
	})
	say("hard state, no sync")
	mustCommit(t, l, false, func(b *Batch) { b.HardState(1, hard(1, 1, 3)) })
	say("nothing, sync")
	mustCommit(t, l, true, func(*Batch) {})
	say("nothing, sync again")
	mustCommit(t, l, true, func(*Batch) {})
	say("hard state, no sync")
	mustCommit(t, l, false, func(b *Batch) { b.HardState(1, hard(2, 1, 3)) })
	say("entries that do not fit into the segment, sync")
	mustCommit(t, l, true, func(b *Batch) { b.Entries(1, append(entries(2, 4, 4), entry(2, 5, strings.Repeat("x", 14_000)))) })
	say("checkpoint, no sync, and compaction of all that the first segment has")
	mustCommit(t, l, false, func(b *Batch) { b.Checkpoint(1, checkpoint(1, 5, 2)) })
	l.Compact(1, 6)
	say("entries larger than a segment, sync")
	mustCommit(t, l, true, func(b *Batch) { b.Entries(1, append(entries(2, 6, 6), entry(2, 7, strings.Repeat("y", 20_000)))) })
	say("close")
	mustClose(t, l)
	say("open again")
	l = mustOpen(t, fs)
	say("two commits, no sync, then a sync beside the log")
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(2, 8, 9)) })
	mustCommit(t, l, false, func(b *Batch) { b.HardState(1, hard(2, 1, 9)) })
	p := l.BeginSync()
	if err := l.EndSync(p, p.Run()); err != nil {
		t.Fatal(err)
	}
	say("entries, no sync, then kill -9 and open again")
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, entries(2, 10, 11)) })
	l = mustOpen(t, fs)
	fs.After(nil)
	if last, _ := l.Storage(1).LastIndex(); last != 9 {
		t.Fatalf("LastIndex = %d, want 9", last)
	}

	golden := path.Join("testdata", "operations.txt")
	if *rewrite {
		if err := os.WriteFile(golden, []byte(trace.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got := trace.String(); got != string(want) {
		t.Fatalf("the order of file operations changed; look at each line, then run: go test ./internal/raftlog -run %s -rewrite\n%s", t.Name(), got)
	}
}

// Replica ids never live twice on a node (DESIGN 5).
func TestReplicaIDsAreNeverReused(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	if !l.MayCreate(1, 1) {
		t.Fatal("a new group is refused")
	}
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 5, checkpoint(1, 0, 0)) })
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 7, checkpoint(2, 0, 0)) })
	if got := l.HighestRemoved(1); got != 5 {
		t.Fatalf("HighestRemoved = %d after the replica was replaced, want 5", got)
	}
	mustCommit(t, l, true, func(b *Batch) { b.Remove(1) })
	for range 2 {
		if got := l.HighestRemoved(1); got != 7 {
			t.Fatalf("HighestRemoved = %d, want 7", got)
		}
		if i := l.Groups()[0]; !i.Removed || i.Replica != 7 {
			t.Fatalf("info %+v", i)
		}
		if l.MayCreate(1, 7) || !l.MayCreate(1, 8) || l.Storage(1) != nil {
			t.Fatalf("MayCreate(7) = %v, MayCreate(8) = %v, Storage = %v", l.MayCreate(1, 7), l.MayCreate(1, 8), l.Storage(1))
		}
		b := l.NewBatch()
		b.Create(1, 6, checkpoint(3, 0, 0))
		if err := l.Commit(b, true); fault.CodeOf(err) != fault.FailedPrecondition {
			t.Fatalf("Create of an old id: %v", err)
		}
		mustClose(t, l)
		l = mustOpen(t, fs)
	}
	// Tombstones outlive the segment they were written in.
	mustCommit(t, l, true, func(b *Batch) { b.Create(2, 1, checkpoint(1, 0, 0)) })
	for i := uint64(1); i < 60; i++ {
		mustCommit(t, l, true, func(b *Batch) {
			b.Entries(2, append(entries(1, 0, 0)[:0], entry(1, i, strings.Repeat("z", 1000))))
		})
		mustCommit(t, l, true, func(b *Batch) { b.Checkpoint(2, checkpoint(1, i, 1)) })
		l.Compact(2, 100)
	}
	if l.segments[0].number < 3 {
		t.Fatalf("the first segment left is %d", l.segments[0].number)
	}
	mustClose(t, l)
	if l = mustOpen(t, fs); l.HighestRemoved(1) != 7 {
		t.Fatalf("HighestRemoved = %d after its segment went", l.HighestRemoved(1))
	}
}

// An idle group does not hold back old segments: its log moves forward.
func TestIdleGroupsMoveForward(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) {
		b.Create(1, 1, checkpoint(1, 0, 0))
		b.Create(2, 1, checkpoint(1, 0, 0))
		b.Entries(1, entries(1, 1, 4))
		b.HardState(1, hard(6, 5, 3))
		b.Checkpoint(1, checkpoint(1, 2, 1))
		b.SetMeta("node_id", []byte("n"))
	})
	idle, err := logGroupString(l, l.Groups()[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i < 100; i++ {
		mustCommit(t, l, i%3 == 0, func(b *Batch) {
			b.Entries(2, append(entries(1, 0, 0)[:0], entry(1, i, strings.Repeat("z", 1000))))
		})
		mustCommit(t, l, true, func(b *Batch) { b.Checkpoint(2, checkpoint(1, i, 1)) })
		l.Compact(2, 1000)
	}
	if n := l.Stats().Segments; n > 3 {
		t.Fatalf("%d segments are left", n)
	}
	for range 2 {
		es, err := l.Storage(1).Entries(3, 5, 1<<20)
		if err != nil || len(es) != 2 || string(es[1].Data) != "1/4" {
			t.Fatalf("entries %v, %v", es, err)
		}
		if got, err := logGroupString(l, l.Groups()[0]); got != idle || err != nil {
			t.Fatalf("the idle group is now\n%s, %v\nwas\n%s", got, err, idle)
		}
		l = mustOpen(t, fs)
	}
	if v, ok := l.Meta("node_id"); !ok || string(v) != "n" {
		t.Fatalf("Meta = %q, %v", v, ok)
	}
}

func TestUnknownVersionsAreRefused(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	s := l.current()
	at := s.end
	buf := beginFrame(nil)
	start := len(buf)
	buf = endRecord(beginRecord(buf, lastRecordType+1, 1), start)
	buf = endFrame(buf, 0, s.salt, l.nextFrame, l.durable)
	if _, err := s.file.WriteAt(buf, at); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(fs, testDir, testOptions(nil)); fault.CodeOf(err) != fault.Unsupported {
		t.Fatalf("Open with an unknown record = %v", err)
	}
}

func TestCommitChecksItsCaller(t *testing.T) {
	l := mustOpen(t, simfs.New())
	mustCommit(t, l, true, func(b *Batch) {
		b.Create(1, 1, checkpoint(1, 10, 1))
		b.Entries(1, entries(1, 11, 12))
	})
	for name, fill := range map[string]func(b *Batch){
		"gap":                   func(b *Batch) { b.Entries(1, entries(1, 14, 14)) },
		"below the checkpoint":  func(b *Batch) { b.Entries(1, entries(1, 10, 10)) },
		"not consecutive":       func(b *Batch) { b.Entries(1, append(entries(1, 13, 13), entries(1, 15, 15)...)) },
		"checkpoint ahead":      func(b *Batch) { b.Checkpoint(1, checkpoint(1, 13, 1)) },
		"checkpoint goes back":  func(b *Batch) { b.Checkpoint(1, checkpoint(1, 9, 1)) },
		"unknown group":         func(b *Batch) { b.HardState(2, hard(1, 1, 1)) },
		"removed in this batch": func(b *Batch) { b.Remove(1); b.HardState(1, hard(1, 1, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Fatal("no panic")
				}
			}()
			b := l.NewBatch()
			fill(b)
			_ = l.Commit(b, true)
		})
	}
	if err := l.Commit(l.NewBatch(), true); err != nil {
		t.Fatalf("nothing was written, but: %v", err)
	}
}
