package raftlog

import (
	"math"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/env/simfs"
	"kvstore/internal/format"
)

// A witness's log holds entries without payload in records of their own type,
// beside membership changes that are whole. They come back as they were, from
// the cache, from disk and after they moved to a new segment; an entry that is
// empty, as the first of a term, stays one.
func TestStrippedEntries(t *testing.T) {
	fs := simfs.New()
	l := mustOpen(t, fs)
	change := entry(2, 13, "a change of the members")
	change.Type = raftpb.EntryConfChangeV2.Enum()
	want := []*raftpb.Entry{
		entry(1, 11, string(format.Stripped())), {Term: new(uint64(2)), Index: new(uint64(12)), Type: raftpb.EntryNormal.Enum()},
		change, entry(2, 14, string(format.Stripped())),
	}
	mustCommit(t, l, true, func(b *Batch) {
		b.Create(1, 1, checkpoint(1, 10, 1))
		b.Entries(1, want)
		before := b.Bytes()
		b.Entries(1, want[3:])
		if got := b.Bytes() - before; got != recordHeaderBytes+strippedBytes {
			t.Errorf("a stripped entry takes %d bytes on disk", got)
		}
	})
	check := func(when string) {
		t.Helper()
		got, err := l.Storage(1).Entries(11, 15, math.MaxUint64)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%s: %d entries, %v", when, len(got), err)
		}
		for i := range want {
			if !proto.Equal(got[i], want[i]) {
				t.Errorf("%s: entry %v, want %v", when, got[i], want[i])
			}
		}
	}
	check("cached")
	l = reopen(t, l, fs, true)
	check("from disk")
	for i := range uint64(40) { // other groups' entries push the log into new segments
		mustCommit(t, l, true, func(b *Batch) {
			if i == 0 {
				b.Create(2, 1, checkpoint(1, 0, 0))
			}
			b.Entries(2, []*raftpb.Entry{entry(1, i+1, string(make([]byte, minSegmentBytes/8)))})
		})
	}
	if g := l.groups[1]; g.refs[0].segment == 1 {
		t.Fatal("the entries did not move; the test shows nothing")
	}
	check("moved")
	l = reopen(t, l, fs, false)
	check("moved, from disk")
}
