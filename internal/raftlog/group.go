package raftlog

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// hardState is raftpb.HardState by value.
type hardState struct {
	term, vote, commit uint64
}

func hardStateOf(h *raftpb.HardState) hardState {
	return hardState{h.GetTerm(), h.GetVote(), h.GetCommit()}
}

func (h hardState) proto() *raftpb.HardState {
	return &raftpb.HardState{Term: new(h.term), Vote: new(h.vote), Commit: new(h.commit)}
}

// entryRef says where an entry is on disk. Terms are kept in memory, so that
// Term never reads. It holds no pointers: there may be millions.
type entryRef struct {
	segment uint64
	term    uint64
	offset  uint32 // of the record; segments are smaller than 4 GiB
	data    uint32 // bytes of the entry's data; noData where the record has none
}

// noData marks the record of a stripped entry.
const noData = 1<<32 - 1

func refOf(s *segment, offset int64, term uint64, data []byte, stripped bool) entryRef {
	r := entryRef{segment: s.number, term: term, offset: uint32(offset), data: uint32(len(data))}
	if stripped {
		r.data = noData
	}
	return r
}

func (r entryRef) stripped() bool { return r.data == noData }

// dataBytes is the size of the entry's data in memory.
func (r entryRef) dataBytes() uint32 {
	if r.stripped() {
		return uint32(len(format.Stripped()))
	}
	return r.data
}

func (r entryRef) recordBytes() int64 {
	if r.stripped() {
		return recordHeaderBytes + strippedBytes
	}
	return recordHeaderBytes + entryFixedBytes + int64(r.data)
}

// groupLog is the state of one group, as all durable records together say.
//
// Entries first..last are on disk at refs; the newest of them, from
// last-len(cache)+1 on, are also in cache. The term of entry first-1 is
// firstTerm. first-1 <= checkpoint.Index <= last.
type groupLog struct {
	id      keyspace.GroupID
	replica keyspace.ReplicaID // 0: no replica lives here
	// removed is the highest replica id that ever stopped living here.
	removed    keyspace.ReplicaID
	hard       hardState
	checkpoint Checkpoint
	first      uint64
	firstTerm  uint64
	refs       []entryRef
	cache      []*raftpb.Entry
	bytes      int64 // of the records at refs
	damaged    bool
	// anchored: during recovery, the start of the log is known.
	anchored bool
	storage  *GroupStorage
	plan     plan
}

func (g *groupLog) last() uint64       { return g.first + uint64(len(g.refs)) - 1 }
func (g *groupLog) cacheFirst() uint64 { return g.first + uint64(len(g.refs)-len(g.cache)) }
func (g *groupLog) live() bool         { return g.replica != 0 }

// restart drops the log and lets it begin after c.
func (g *groupLog) restart(c Checkpoint, cache *entryCache) {
	cache.drop(g, len(g.cache))
	g.checkpoint = c
	g.first, g.firstTerm = uint64(c.Index)+1, uint64(c.Term)
	g.refs, g.bytes = nil, 0
	g.anchored = true
	g.raise()
}

// raise keeps the hard state in step with the checkpoint: what a checkpoint
// covers is committed, and its term has been seen.
func (g *groupLog) raise() {
	if t := uint64(g.checkpoint.Term); g.hard.term < t {
		g.hard.term, g.hard.vote = t, 0
	}
	g.hard.commit = max(g.hard.commit, uint64(g.checkpoint.Index))
}

func (g *groupLog) setHardState(h hardState) {
	g.hard = h
	g.raise()
}

func (g *groupLog) setCheckpoint(c Checkpoint) {
	g.checkpoint = c
	g.raise()
}

// tombstone makes the present replica one that lived here.
func (g *groupLog) tombstone() {
	g.removed = max(g.removed, g.replica)
	g.replica = 0
}

// create starts replica r with nothing of the one before it.
func (g *groupLog) create(r keyspace.ReplicaID, c Checkpoint, cache *entryCache) {
	g.tombstone()
	g.replica = r
	g.hard, g.damaged = hardState{}, false
	g.storage = nil
	g.restart(c, cache)
}

// adopt lets replica r go on with all of the one before it.
func (g *groupLog) adopt(r keyspace.ReplicaID) {
	g.tombstone()
	g.replica = r
}

func (g *groupLog) remove(cache *entryCache) {
	g.tombstone()
	g.hard, g.damaged = hardState{}, false
	g.storage = nil
	g.restart(Checkpoint{}, cache)
	g.hard = hardState{}
}

// truncate drops the entries from index on.
func (g *groupLog) truncate(index uint64, cache *entryCache) {
	keep := int(index - g.first)
	for _, r := range g.refs[keep:] {
		g.bytes -= r.recordBytes()
	}
	if dropped := len(g.refs) - keep; dropped >= len(g.cache) {
		cache.drop(g, len(g.cache))
	} else {
		cache.dropNewest(g, dropped)
	}
	g.refs = g.refs[:keep]
}

// append puts the entry at index in place of what is there and after it.
func (g *groupLog) append(index uint64, r entryRef, cache *entryCache) {
	if index < g.first || index > g.last()+1 {
		panic(fmt.Sprintf("raftlog: group %d: entry %d does not follow the log %d..%d", g.id, index, g.first, g.last()))
	}
	if index <= g.last() {
		g.truncate(index, cache)
	}
	g.refs = append(g.refs, r)
	g.bytes += r.recordBytes()
}

// compact forgets the entries below first, a known index.
func (g *groupLog) compact(first uint64, cache *entryCache) {
	n := int(first - g.first)
	if n <= 0 {
		return
	}
	g.firstTerm = g.refs[n-1].term
	if kept := len(g.refs) - n; len(g.cache) > kept {
		cache.drop(g, len(g.cache)-kept)
	}
	for _, r := range g.refs[:n] {
		g.bytes -= r.recordBytes()
	}
	g.first = first
	g.refs = g.refs[n:]
	if len(g.refs) < cap(g.refs)/4 {
		g.refs = slices.Clip(slices.Clone(g.refs))
	}
}

// term returns the term of an index in first-1..last.
func (g *groupLog) term(index uint64) uint64 {
	if index == g.first-1 {
		return g.firstTerm
	}
	return g.refs[index-g.first].term
}

func (g *groupLog) info() GroupInfo {
	i := GroupInfo{
		Group: g.id, Replica: g.replica, HardState: g.hard.proto(), Checkpoint: g.checkpoint,
		First: keyspace.Index(g.first), Last: keyspace.Index(g.last()),
		Damaged: g.damaged, Removed: !g.live() && !g.damaged,
	}
	if i.Removed {
		i.Replica = g.removed
	}
	return i
}
