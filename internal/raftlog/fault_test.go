package raftlog

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// I (DESIGN 5): an fsync error stops the node; nothing is acknowledged or read
// back after it.
func TestSyncErrorPoisons(t *testing.T) {
	for _, kind := range []simfs.Kind{simfs.OpSync, simfs.OpWrite} {
		fs := simfs.New()
		l := mustOpen(t, fs)
		mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 5, 1)) })
		fs.Before(func(o simfs.Op) error {
			if o.Kind == kind {
				return syscall.EIO
			}
			return nil
		})
		b := l.NewBatch()
		b.Entries(1, entries(1, 6, 8))
		if err := l.Commit(b, true); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
			t.Fatalf("%s: Commit = %v", kind, err)
		}
		fs.Before(nil)
		if err := l.Commit(b, true); !errors.Is(err, ErrFailed) {
			t.Fatalf("%s: Commit after the failure = %v", kind, err)
		}
		if last, _ := l.Storage(1).LastIndex(); last != 5 {
			t.Fatalf("%s: entries that are not durable are shown: last index %d", kind, last)
		}
		if l.HasSpace(1) {
			t.Fatalf("%s: HasSpace after the failure", kind)
		}
		_ = l.Close()
		// Whatever the cache shows, the disk decides, also after a power cut.
		l = mustOpen(t, fs)
		got := logString(t, l)
		lost := mustOpen(t, fs.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} }))
		if after := logString(t, lost); after != got {
			t.Fatalf("%s: Open showed\n%s\nbut only this was durable:\n%s", kind, got, after)
		}
	}
}

// ENOSPC is met before writing: an overload that ends by itself, not a crash.
func TestDiskFull(t *testing.T) {
	fs := simfs.New()
	fs.SetCapacity(2 * minSegmentBytes)
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	index, err := uint64(0), error(nil)
	refused := -1
	for n := range 100 {
		if refused < 0 && !l.HasSpace(1000) {
			refused = n
		}
		b := l.NewBatch()
		e := entry(1, index+1, strings.Repeat("x", 900))
		b.Entries(1, append(entries(1, 0, 0)[:0], e))
		if err = l.Commit(b, true); err != nil {
			break
		}
		index++
	}
	if fault.CodeOf(err) != fault.Overloaded || errors.Is(err, ErrFailed) {
		t.Fatalf("a full disk gives %v", err)
	}
	if refused < 0 || uint64(refused) >= index {
		t.Fatalf("HasSpace said no at %d, the disk was full at %d: nothing is left for votes", refused, index)
	}
	before := logString(t, l)
	if again := mustOpen(t, fs); logString(t, again) != before {
		t.Fatal("the log differs after a refused commit")
	}
	// With room again it goes on.
	fs.SetCapacity(0)
	l = mustOpen(t, fs)
	if !l.HasSpace(1 << 20) {
		t.Fatal("HasSpace with room again")
	}
	mustCommit(t, l, true, func(b *Batch) { b.Entries(1, entries(1, index+1, index+50)) })
}

// A commit refused for want of space may be repeated on the same log.
func TestDiskFullThenRoomOnTheSameLog(t *testing.T) {
	fs := simfs.New()
	fs.SetCapacity(2 * minSegmentBytes)
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	big := l.NewBatch()
	e := entry(1, 1, strings.Repeat("x", 3*minSegmentBytes))
	big.Entries(1, append(entries(1, 0, 0)[:0], e))
	if err := l.Commit(big, true); fault.CodeOf(err) != fault.Overloaded {
		t.Fatalf("Commit = %v", err)
	}
	fs.SetCapacity(0)
	if err := l.Commit(big, true); err != nil {
		t.Fatal(err)
	}
	got, err := mustOpen(t, fs).Storage(1).Entries(1, 2, 1)
	if err != nil || len(got) != 1 || len(got[0].Data) != 3*minSegmentBytes {
		t.Fatalf("%d entries, %v", len(got), err)
	}
}

// damageLog is a log with every kind of record, over several segments, closed.
func damageLog(t *testing.T) (*simfs.FS, *model) {
	t.Helper()
	fs := simfs.New()
	l := mustOpen(t, fs)
	w := newWorkload(5, 1500)
	for range 60 {
		b := l.NewBatch()
		w.fill(b)
		if err := l.Commit(b, true); err != nil {
			t.Fatal(err)
		}
	}
	b := l.NewBatch()
	b.Remove(2)
	w.model.apply(b)
	if err := l.Commit(b, true); err != nil {
		t.Fatal(err)
	}
	mustClose(t, l)
	return fs.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} }), w.model
}

func copyOf(fs *simfs.FS) *simfs.FS {
	return fs.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} })
}

// A flipped bit anywhere in what was durable is never served: what a replica
// says is what was written, or it is damaged.
func TestBitFlips(t *testing.T) {
	fs, want := damageLog(t)
	r := rand.New(rand.NewPCG(1, 1))
	damaged, hidden, harmless := 0, 0, 0
	stride := 150
	if testing.Short() {
		stride = 1500
	}
	for _, name := range fs.Files() {
		file, err := fs.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		size, _ := file.Size()
		for offset := int64(r.IntN(5)); offset < size; offset += 1 + int64(r.IntN(stride)) {
			flipped := copyOf(fs)
			if err := flipped.FlipBit(name, offset, uint(r.IntN(8))); err != nil {
				t.Fatal(err)
			}
			l, err := Open(flipped, testDir, testOptions(r))
			if fault.CodeOf(err) == fault.Unsupported {
				t.Fatalf("%s at %d: damage is taken for a newer version: %v", name, offset, err)
			}
			if err != nil {
				t.Fatalf("%s at %d: %v", name, offset, err)
			}
			switch checkDamage(t, l, want, name, offset) {
			case "hidden":
				hidden++
			case "damaged":
				damaged++
			default:
				harmless++
			}
			// What was found stays found until the replicas are gone.
			wasDamaged, wasHidden := l.Damaged(), l.Hidden()
			mustClose(t, l)
			l = mustOpen(t, flipped)
			if l.Damaged() != wasDamaged || l.Hidden() != wasHidden {
				t.Fatalf("%s at %d: damage was %v/%v, after another Open %v/%v", name, offset, wasDamaged, wasHidden, l.Damaged(), l.Hidden())
			}
		}
	}
	t.Logf("%d flips damaged one replica, %d all, %d nothing", damaged, hidden, harmless)
	if damaged == 0 || hidden == 0 {
		t.Fatal("the test does not reach every kind of damage")
	}
}

func checkDamage(t *testing.T, l *Log, want *model, name string, offset int64) string {
	t.Helper()
	known := map[keyspace.GroupID]bool{}
	kind := ""
	for _, i := range l.Groups() {
		known[i.Group] = true
		if i.Damaged {
			kind = "damaged"
			continue
		}
		got, err := logGroupString(l, i)
		if err != nil {
			t.Fatal(err)
		}
		if want := want.groupString(i.Group); got != want && !l.Hidden() {
			t.Fatalf("%s at %d: altered without a word:\n%s\nwant\n%s", name, offset, got, want)
		}
	}
	if l.Hidden() {
		return "hidden"
	}
	for id := range want.groups {
		if !known[id] {
			t.Fatalf("%s at %d: group %d is gone without a word", name, offset, id)
		}
	}
	if got, want := logMetaString(l), want.metaString(); got != want {
		t.Fatalf("%s at %d: facts are %s, want %s", name, offset, got, want)
	}
	return kind
}

// Damage in the body of a record of each kind is blamed on its group alone, and
// the group is well again under a new replica id.
func TestDamagedRecordOfEachKind(t *testing.T) {
	kinds := map[string]func(b *Batch){
		"entry":      func(b *Batch) { b.Entries(1, entries(1, 6, 6)) },
		"hard state": func(b *Batch) { b.HardState(1, hard(1, 1, 5)) },
		"checkpoint": func(b *Batch) { b.Checkpoint(1, checkpoint(1, 5, 1)) },
		"switch":     func(b *Batch) { b.Switch(1, checkpoint(2, 50, 2)) },
		"create":     func(b *Batch) { b.Create(1, 9, checkpoint(2, 50, 2)) },
		"remove":     func(b *Batch) { b.Remove(1) },
		"meta":       func(b *Batch) { b.SetMeta("k", []byte("v")) },
	}
	for name, fill := range kinds {
		t.Run(name, func(t *testing.T) {
			fs := simfs.New()
			l := mustOpen(t, fs)
			mustCommit(t, l, true, func(b *Batch) {
				b.Create(1, 3, checkpoint(1, 4, 1))
				b.Create(2, 3, checkpoint(1, 4, 1))
				b.Entries(1, entries(1, 5, 5))
				b.SetMeta("k", []byte("u"))
			})
			s := l.current()
			at := s.end + frameHeaderBytes + recordHeaderBytes
			mustCommit(t, l, true, fill)
			mustClose(t, l)
			if err := fs.FlipBit(segmentName(testDir, s.number), at, 3); err != nil {
				t.Fatal(err)
			}
			l = mustOpen(t, fs)
			one, two := l.Groups()[0], l.Groups()[1]
			all := name == "meta"
			if !one.Damaged || two.Damaged != all || l.Hidden() != all {
				t.Fatalf("group 1 damaged %v, group 2 %v, hidden %v", one.Damaged, two.Damaged, l.Hidden())
			}
			if l.MayCreate(1, one.Replica) || !l.MayCreate(1, 10) {
				t.Fatalf("MayCreate of the damaged replica %v, of a later one %v", l.MayCreate(1, one.Replica), l.MayCreate(1, 10))
			}
			mustCommit(t, l, true, func(b *Batch) { b.Remove(1) })
			if l.MayCreate(1, 3) || !l.MayCreate(1, 10) {
				t.Fatalf("MayCreate(3) = %v, MayCreate(10) = %v", l.MayCreate(1, 3), l.MayCreate(1, 10))
			}
			mustCommit(t, l, true, func(b *Batch) { b.Create(1, 10, checkpoint(9, 100, 3)) })
			l = mustOpen(t, fs)
			if one := l.Groups()[0]; one.Damaged || one.Replica != 10 {
				t.Fatalf("after the rebuild: %+v", one)
			}
			b := l.NewBatch()
			b.Create(77, 1, checkpoint(1, 0, 0))
			may := l.MayCreate(77, 1)
			if err := l.Commit(b, true); (fault.CodeOf(err) == fault.Corruption) != all || may == all {
				t.Fatalf("Create of an unknown group = %v, MayCreate %v", err, may)
			}
		})
	}
}

// The last frame has no later one that vouches for it. Flips in it are still
// told from a write that was cut short, which leaves zeroes.
func TestBitFlipInTheLastFrame(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 3, checkpoint(1, 4, 1)) })
	s := l.current()
	at := s.end
	mustCommit(t, l, true, func(b *Batch) { b.Entries(1, entries(1, 5, 9)) })
	for _, offset := range []int64{at + 5, at + 20, at + frameHeaderBytes + 2, at + frameHeaderBytes + recordHeaderBytes + 3} {
		flipped := copyOf(fs)
		if err := flipped.FlipBit(segmentName(testDir, s.number), offset, 2); err != nil {
			t.Fatal(err)
		}
		if l := mustOpen(t, flipped); !l.Damaged() {
			t.Errorf("a flip at %d of the last frame cuts acknowledged entries: %+v", offset-at, l.Groups())
		}
	}
}

// An entry that is damaged on disk while the log is in use is never served.
func TestDamageFoundByReading(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) {
		b.Create(1, 1, checkpoint(1, 0, 0))
		b.Entries(1, entries(1, 1, 10))
		b.Checkpoint(1, checkpoint(1, 5, 1))
	})
	l = mustOpen(t, fs) // nothing is cached
	g := l.groups[1]
	flip := func(index uint64) {
		r := g.refs[index-g.first]
		if err := fs.FlipBit(segmentName(testDir, r.segment), int64(r.offset)+recordHeaderBytes+entryFixedBytes, 0); err != nil {
			t.Fatal(err)
		}
	}
	flip(3)
	s := l.Storage(1)
	if _, err := s.Entries(2, 11, 1<<20); err == nil || g.damaged {
		t.Fatalf("Entries over a damaged one below the checkpoint: %v, damaged %v", err, g.damaged)
	}
	if first, _ := s.FirstIndex(); first != 4 {
		t.Fatalf("FirstIndex = %d, want 4: a follower gets a snapshot instead", first)
	}
	if es, err := s.Entries(4, 11, 1<<20); err != nil || len(es) != 7 {
		t.Fatalf("Entries after it: %d, %v", len(es), err)
	}
	flip(8)
	if _, err := s.Entries(6, 11, 1<<20); fault.CodeOf(err) != fault.Corruption || !l.Damaged() {
		t.Fatalf("Entries over a damaged one above the checkpoint: %v, damaged %v", err, l.Damaged())
	}
}

// A value cannot pass for a frame: whoever writes values does not know the
// segment's salt. Otherwise a torn write could be made to look like damage.
func TestValuesAreNotFrames(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	s := l.current()
	at := s.end
	forged := endFrame(beginFrame(nil), 0, 0, l.nextFrame+5, l.nextFrame+4)
	const before = frameHeaderBytes + recordHeaderBytes + entryFixedBytes
	data := append(make([]byte, sectorBytes-before), forged...) // begins a sector
	mustCommit(t, l, false, func(b *Batch) { b.Entries(1, append(entries(1, 0, 0)[:0], entry(1, 1, string(data)))) })
	torn := fs.Image(func(_ int, u simfs.Unit) simfs.Choice {
		if u.Sector == at/sectorBytes {
			return simfs.Choice{}
		}
		return simfs.Choice{Version: u.Versions}
	})
	l = mustOpen(t, torn)
	if i := l.Groups()[0]; l.Damaged() || l.Hidden() || i.Last != 0 {
		t.Fatalf("a torn write is taken for damage: %+v, hidden %v", i, l.Hidden())
	}
}

// Segments with evidence of damage stay until the damaged replicas are gone.
func TestDamageKeepsItsEvidence(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) {
		b.Create(1, 1, checkpoint(1, 0, 0))
		b.Create(2, 1, checkpoint(1, 0, 0))
	})
	s := l.current()
	at := s.end + frameHeaderBytes + recordHeaderBytes
	mustCommit(t, l, true, func(b *Batch) { b.HardState(1, hard(3, 2, 0)) })
	mustClose(t, l)
	if err := fs.FlipBit(segmentName(testDir, s.number), at, 0); err != nil {
		t.Fatal(err)
	}
	index := uint64(0)
	work := func(l *Log) {
		for range 60 {
			index++
			mustCommit(t, l, true, func(b *Batch) {
				b.Entries(2, append(entries(1, 0, 0)[:0], entry(1, index, strings.Repeat("w", 1000))))
			})
			mustCommit(t, l, true, func(b *Batch) { b.Checkpoint(2, checkpoint(1, index, 1)) })
			l.Compact(2, keyspace.Index(index+1))
		}
	}
	for range 2 {
		l = mustOpen(t, fs)
		work(l)
		if !l.Groups()[0].Damaged || l.Groups()[1].Damaged || l.segments[0].number != 1 {
			t.Fatalf("groups %+v, first segment %d", l.Groups(), l.segments[0].number)
		}
	}
	mustCommit(t, l, true, func(b *Batch) { b.Remove(1) })
	work(l)
	if n := l.Stats().Segments; n > 3 {
		t.Fatalf("%d segments are left after the damaged replica is gone", n)
	}
	if l = mustOpen(t, fs); l.Damaged() || l.HighestRemoved(1) != 1 {
		t.Fatalf("damaged %v, highest removed %d", l.Damaged(), l.HighestRemoved(1))
	}
}
