package raftlog

import (
	"errors"
	"math"
	"strings"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/env/osfs"
	"kvstore/internal/env/simfs"
	"kvstore/internal/keyspace"
)

// storageLog has entries 11..30 of group 1, the checkpoint at 15, and is
// compacted to 14. Cold, nothing is in memory.
func storageLog(t *testing.T, cold bool) *Log {
	t.Helper()
	fs := simfs.New()
	l := mustOpen(t, fs)
	mustCommit(t, l, true, func(b *Batch) {
		b.Create(1, 1, checkpoint(1, 10, 1))
		b.Entries(1, entries(2, 11, 20))
		b.HardState(1, hard(3, 2, 18))
	})
	mustCommit(t, l, true, func(b *Batch) { b.Entries(1, entries(3, 21, 30)) })
	mustCommit(t, l, true, func(b *Batch) { b.Checkpoint(1, checkpoint(1, 15, 2)) })
	if cold {
		l = mustOpen(t, fs)
	}
	l.Compact(1, 14)
	return l
}

func TestStorage(t *testing.T) {
	for name, cold := range map[string]bool{"cached": false, "from disk": true} {
		t.Run(name, func(t *testing.T) {
			s := storageLog(t, cold).Storage(1)
			h, c, err := s.InitialState()
			if err != nil || h.GetTerm() != 3 || h.GetVote() != 2 || h.GetCommit() != 18 || len(c.GetVoters()) != 3 {
				t.Fatalf("InitialState = %v, %v, %v", h, c, err)
			}
			first, _ := s.FirstIndex()
			last, _ := s.LastIndex()
			if first != 14 || last != 30 {
				t.Fatalf("log %d..%d, want 14..30", first, last)
			}
			terms(t, s)
			ranges(t, s)
		})
	}
}

func terms(t *testing.T, s raft.Storage) {
	for _, c := range []struct {
		index, term uint64
		err         error
	}{{12, 0, raft.ErrCompacted}, {13, 2, nil}, {14, 2, nil}, {20, 2, nil}, {21, 3, nil}, {30, 3, nil}, {31, 0, raft.ErrUnavailable}} {
		if term, err := s.Term(c.index); term != c.term || !errors.Is(err, c.err) {
			t.Errorf("Term(%d) = %d, %v; want %d, %v", c.index, term, err, c.term, c.err)
		}
	}
}

func ranges(t *testing.T, s raft.Storage) {
	one := uint64(proto.Size(entry(3, 21, "3/21")))
	for _, c := range []struct {
		lo, hi, max uint64
		n           int
		err         error
	}{
		{13, 15, math.MaxUint64, 0, raft.ErrCompacted},
		{14, 31, math.MaxUint64, 17, nil},
		{14, 32, math.MaxUint64, 0, raft.ErrUnavailable},
		{21, 31, 0, 1, nil},
		{21, 31, one, 1, nil},
		{21, 31, 2*one - 1, 1, nil},
		{21, 31, 2 * one, 2, nil},
		{30, 31, 1, 1, nil},
	} {
		es, err := s.Entries(c.lo, c.hi, c.max)
		if len(es) != c.n || !errors.Is(err, c.err) {
			t.Errorf("Entries(%d, %d, %d) = %d entries, %v; want %d, %v", c.lo, c.hi, c.max, len(es), err, c.n, c.err)
		}
		for i, e := range es {
			if want := entries(2+btou(c.lo+uint64(i) > 20), c.lo+uint64(i), c.lo+uint64(i))[0]; !proto.Equal(e, want) {
				t.Errorf("entry %v, want %v", e, want)
			}
		}
		// The caller owns the slice and may append to it.
		_ = append(es, entry(9, 9, "garbage"))
	}
	if es, err := s.Entries(14, 31, math.MaxUint64); err != nil || es[16].GetIndex() != 30 {
		t.Errorf("after the appends: %v, %v", es, err)
	}
}

func btou(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// encodedBytes is proto.Size without the reflection.
func TestEncodedBytes(t *testing.T) {
	for _, n := range []uint64{0, 1, 127, 128, 1 << 14, 1<<21 - 1, 1 << 35, math.MaxUint64} {
		for _, data := range []int{0, 1, 127, 128, 20_000} {
			e := entry(n, n, strings.Repeat("d", data))
			if data == 0 {
				e.Data = nil
			}
			if got, want := encodedBytes(n, n, uint32(data)), uint64(proto.Size(e)); got != want {
				t.Errorf("encodedBytes(%d, %d) = %d, want %d", n, data, got, want)
			}
		}
	}
}

// The cache is bounded over all groups, in bytes, and what left it is read
// from disk.
func TestCacheIsBounded(t *testing.T) {
	l := mustOpen(t, simfs.New())
	mustCommit(t, l, true, func(b *Batch) {
		for g := range keyspace.GroupID(4) {
			b.Create(g, 1, checkpoint(1, 0, 0))
		}
	})
	for i := uint64(1); i <= 200; i++ {
		mustCommit(t, l, false, func(b *Batch) {
			for g := range keyspace.GroupID(4) {
				// Now and then a suffix is replaced.
				at := i
				if i > 3 && i%7 == 0 {
					b.Entries(g, entries(i, at-2, at-1))
				}
				b.Entries(g, append(entries(1, 0, 0)[:0], entry(i, at, strings.Repeat("c", 500))))
			}
		})
		if n := l.Stats().CachedBytes; n > l.opts.CacheBytes {
			t.Fatalf("%d bytes are cached, limit %d", n, l.opts.CacheBytes)
		}
		checkCache(t, l)
	}
	before := l.Stats().DiskReads
	es, err := l.Storage(3).Entries(1, 201, math.MaxUint64)
	if err != nil || len(es) != 200 {
		t.Fatalf("%d entries, %v", len(es), err)
	}
	for i, e := range es {
		if e.GetIndex() != uint64(i)+1 {
			t.Fatalf("entry %d is at %d", e.GetIndex(), i)
		}
	}
	if l.Stats().DiskReads == before {
		t.Fatal("nothing was read from disk")
	}
	for g := range keyspace.GroupID(4) {
		mustCommit(t, l, false, func(b *Batch) { b.Remove(g) })
	}
	if n := l.Stats().CachedBytes; n != 0 || l.cache.entries != 0 {
		t.Fatalf("%d bytes, %d entries are cached of removed groups", n, l.cache.entries)
	}
}

// checkCache adds up what the groups cache.
func checkCache(t *testing.T, l *Log) {
	t.Helper()
	var bytes int64
	n := 0
	for _, g := range l.groups {
		for i, e := range g.cache {
			bytes += cacheBytes(e)
			n++
			if e.GetIndex() != g.cacheFirst()+uint64(i) {
				t.Fatalf("group %d: entry %d is cached at %d", g.id, e.GetIndex(), g.cacheFirst()+uint64(i))
			}
		}
	}
	if bytes != l.cache.bytes || n != l.cache.entries || l.cache.count > 2*n+200 {
		t.Fatalf("cached %d bytes, %d entries; counted %d, %d, queue %d", bytes, n, l.cache.bytes, l.cache.entries, l.cache.count)
	}
}

func TestSnapshotFunc(t *testing.T) {
	s := storageLog(t, false).Storage(1)
	if _, err := s.Snapshot(); !errors.Is(err, raft.ErrSnapshotTemporarilyUnavailable) {
		t.Fatalf("Snapshot without a function = %v", err)
	}
	want := &raftpb.Snapshot{Data: []byte("s")}
	s.SetSnapshotFunc(func() (*raftpb.Snapshot, error) { return want, nil })
	if got, err := s.Snapshot(); got != want || err != nil {
		t.Fatalf("Snapshot = %v, %v", got, err)
	}
}

// A RawNode runs over the storage: bootstrap from a checkpoint, election,
// proposals, restart.
func TestRawNode(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	start := Checkpoint{Instance: 1, Index: 1, Term: 1, ConfState: &raftpb.ConfState{Voters: []uint64{1}}}
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, start) })
	newNode := func() *raft.RawNode {
		n, err := raft.NewRawNode(&raft.Config{
			ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: l.Storage(1),
			MaxSizePerMsg: 1 << 20, MaxInflightMsgs: 16, PreVote: true, CheckQuorum: true,
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	run := func(n *raft.RawNode) (applied []string) {
		for n.HasReady() {
			rd := n.Ready()
			mustCommit(t, l, rd.MustSync, func(b *Batch) {
				b.Entries(1, rd.Entries)
				b.HardState(1, rd.HardState)
			})
			for _, e := range rd.CommittedEntries {
				if len(e.Data) > 0 {
					applied = append(applied, string(e.Data))
				}
			}
			n.Advance(rd)
		}
		return applied
	}
	n := newNode()
	if err := n.Campaign(); err != nil {
		t.Fatal(err)
	}
	run(n)
	var applied []string
	for _, p := range []string{"a", "b", "c"} {
		if err := n.Propose([]byte(p)); err != nil {
			t.Fatal(err)
		}
		applied = append(applied, run(n)...)
	}
	mustClose(t, l)
	l = mustOpen(t, fs)
	if got := run(newNode()); strings.Join(got, "") != "abc" || strings.Join(applied, "") != "abc" {
		t.Fatalf("applied %q, after the restart %q", applied, got)
	}
}

// On a real disk, with the goroutine that prepares and removes segments.
func TestRealDisk(t *testing.T) {
	dir := t.TempDir()
	open := func() *Log {
		l, err := Open(osfs.New(dir), "raft", Options{SegmentBytes: 64 << 10, CacheBytes: 8 << 10})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	l := open()
	mustCommit(t, l, true, func(b *Batch) { b.Create(1, 1, checkpoint(1, 0, 0)) })
	for i := uint64(1); i <= 600; i++ {
		mustCommit(t, l, i%10 == 0, func(b *Batch) {
			b.Entries(1, append(entries(1, 0, 0)[:0], entry(1, i, strings.Repeat("d", 2000))))
		})
		if i%100 == 0 {
			mustCommit(t, l, false, func(b *Batch) { b.Checkpoint(1, checkpoint(1, i-10, 1)) })
			l.Compact(1, keyspace.Index(i-20))
		}
		if !l.HasSpace(1 << 10) {
			t.Fatal("no space")
		}
	}
	mustClose(t, l)
	l = open()
	es, err := l.Storage(1).Entries(591, 601, math.MaxUint64)
	if err != nil || len(es) != 10 || len(es[9].Data) != 2000 {
		t.Fatalf("%d entries, %v", len(es), err)
	}
	if n := l.Stats().Segments; n > 4 {
		t.Fatalf("%d segments are left", n)
	}
	mustClose(t, l)
}
