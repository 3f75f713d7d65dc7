package raftlog

import (
	"fmt"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/env/osfs"
	"kvstore/internal/keyspace"
)

// BenchmarkCommit is one loop of a host: entries and hard states of some
// groups, one write, one fdatasync on a real disk. Its allocations are those
// of the log alone: the entries are made before.
func BenchmarkCommit(b *testing.B) {
	for _, c := range []struct{ groups, entries, bytes int }{
		{1, 1, 100}, {1, 1, 1 << 10}, {8, 1, 1 << 10}, {8, 4, 4 << 10}, {8, 2, 64 << 10},
	} {
		for _, sync := range []bool{true, false} {
			b.Run(fmt.Sprintf("groups=%d/entries=%d/bytes=%d/sync=%v", c.groups, c.entries, c.bytes, sync), func(b *testing.B) {
				benchmarkCommit(b, c.groups, c.entries, c.bytes, sync)
			})
		}
	}
}

func benchmarkCommit(b *testing.B, groups, perGroup, bytes int, sync bool) {
	l, err := Open(osfs.New(b.TempDir()), "raft", Options{})
	if err != nil {
		b.Fatal(err)
	}
	batch := l.NewBatch()
	for g := range groups {
		batch.Create(keyspace.GroupID(g), 1, Checkpoint{})
	}
	if err := l.Commit(batch, true); err != nil {
		b.Fatal(err)
	}
	data := make([]byte, bytes)
	for i := range data {
		data[i] = byte(i * 7)
	}
	// Indexes grow in place: the log keeps what it is given, so each loop needs
	// its own entries, and a ring of them is made up front.
	rounds := make([][]*raftpb.Entry, b.N)
	for r := range rounds {
		for n := range perGroup {
			index, term := uint64(r*perGroup+n+1), uint64(1)
			rounds[r] = append(rounds[r], &raftpb.Entry{Term: &term, Index: &index, Data: data})
		}
	}
	b.SetBytes(int64(groups * perGroup * bytes))
	b.ReportAllocs()
	b.ResetTimer()
	for r := range rounds {
		batch.Reset()
		index := uint64((r + 1) * perGroup)
		h := raftpb.HardState{Term: rounds[r][0].Term, Vote: rounds[r][0].Term, Commit: rounds[r][0].Index}
		for g := range groups {
			batch.Entries(keyspace.GroupID(g), rounds[r])
			batch.HardState(keyspace.GroupID(g), &h)
		}
		if err := l.Commit(batch, sync); err != nil {
			b.Fatal(err)
		}
		if r%256 == 255 {
			batch.Reset()
			for g := range groups {
				batch.Checkpoint(keyspace.GroupID(g), Checkpoint{Index: keyspace.Index(index), Term: 1})
			}
			if err := l.Commit(batch, false); err != nil {
				b.Fatal(err)
			}
			for g := range groups {
				l.Compact(keyspace.GroupID(g), keyspace.Index(index))
			}
		}
	}
	b.StopTimer()
	if err := l.Close(); err != nil {
		b.Fatal(err)
	}
}
