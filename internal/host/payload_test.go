package host

import (
	"log/slog"
	"testing"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// A leader builds each payload in the memory of the one before: raft keeps a copy of
// what it is given.
func TestRaftCopiesPayloads(t *testing.T) {
	memory := raft.NewMemoryStorage()
	if err := memory.ApplySnapshot(&raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		Index: new(uint64(1)), Term: new(uint64(1)), ConfState: &raftpb.ConfState{Voters: []uint64{1}},
	}}); err != nil {
		t.Fatal(err)
	}
	rn, err := raft.NewRawNode(&raft.Config{ID: 1, ElectionTick: 10, HeartbeatTick: 1, Storage: memory, MaxSizePerMsg: 1 << 20,
		MaxInflightMsgs: 10, Logger: raftLogger{slog.New(slog.DiscardHandler)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := rn.Campaign(); err != nil {
		t.Fatal(err)
	}
	for turn := 0; turn < 10 && rn.HasReady(); turn++ {
		rd := rn.Ready()
		if err := memory.Append(rd.Entries); err != nil {
			t.Fatal(err)
		}
		rn.Advance(rd)
	}
	payload := []byte("first")
	if err := rn.Propose(payload); err != nil {
		t.Fatal(err)
	}
	copy(payload, "other")
	entries := rn.Ready().Entries
	if n := len(entries); n == 0 || string(entries[n-1].GetData()) != "first" {
		t.Fatalf("raft has %v", entries)
	}
}
