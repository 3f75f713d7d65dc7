package raftlog

import (
	"fmt"
	"math/bits"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// GroupStorage is a group's log as Raft reads it. It belongs to the log's
// goroutine and shows every Commit at once.
type GroupStorage struct {
	log      *Log
	group    *groupLog
	snapshot func() (*raftpb.Snapshot, error)
}

var _ raft.Storage = (*GroupStorage)(nil)

// Storage returns the storage of the replica that lives here, the same one
// each time; nil when there is none.
func (l *Log) Storage(group keyspace.GroupID) *GroupStorage {
	g := l.groups[group]
	if g == nil || !g.live() {
		return nil
	}
	if g.storage == nil {
		g.storage = &GroupStorage{log: l, group: g}
	}
	return g.storage
}

// SetSnapshotFunc sets what Snapshot calls.
func (s *GroupStorage) SetSnapshotFunc(f func() (*raftpb.Snapshot, error)) { s.snapshot = f }

// Bytes returns the size on disk of the entries that can be read.
func (s *GroupStorage) Bytes() int64 { return s.group.bytes }

// Checkpoint returns the latest checkpoint. It must not be changed.
func (s *GroupStorage) Checkpoint() Checkpoint { return s.group.checkpoint }

// InitialState implements raft.Storage. The configuration is the one of the
// checkpoint; Raft learns later ones while it applies the entries after it.
func (s *GroupStorage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return s.group.hard.proto(), s.group.checkpoint.confState(), nil
}

// FirstIndex implements raft.Storage.
func (s *GroupStorage) FirstIndex() (uint64, error) { return s.group.first, nil }

// LastIndex implements raft.Storage.
func (s *GroupStorage) LastIndex() (uint64, error) { return s.group.last(), nil }

// Term implements raft.Storage; it never reads from disk.
func (s *GroupStorage) Term(index uint64) (uint64, error) {
	switch g := s.group; {
	case index+1 < g.first:
		return 0, raft.ErrCompacted
	case index > g.last():
		return 0, raft.ErrUnavailable
	default:
		return g.term(index), nil
	}
}

// Snapshot implements raft.Storage.
func (s *GroupStorage) Snapshot() (*raftpb.Snapshot, error) {
	if s.snapshot == nil {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return s.snapshot()
}

// Entries implements raft.Storage. The slice is the caller's own, the entries
// in it are shared and must not be changed. An entry that is damaged on disk
// counts as compacted when a checkpoint covers it, so that a follower that
// needs it gets a snapshot; otherwise the replica is damaged and the error is
// fault.Corruption.
func (s *GroupStorage) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	g := s.group
	switch {
	case lo < g.first:
		return nil, raft.ErrCompacted
	case hi > g.last()+1:
		return nil, raft.ErrUnavailable
	case lo >= hi:
		return nil, nil
	}
	hi = g.limit(lo, hi, maxSize)
	entries := make([]*raftpb.Entry, 0, hi-lo)
	if cached := g.cacheFirst(); lo < cached {
		var err error
		if entries, err = s.log.readEntries(entries, g, lo, min(hi, cached)); err != nil {
			return nil, s.log.unreadable(g, lo+uint64(len(entries)), err)
		}
		lo = min(hi, cached)
	}
	if lo < hi {
		at := lo - g.cacheFirst()
		entries = append(entries, g.cache[at:at+hi-lo]...)
	}
	return entries, nil
}

// limit returns the end of the longest run from lo that fits maxSize, which
// counts encoded entries as Raft does, and has one entry at least.
func (g *groupLog) limit(lo, hi, maxSize uint64) uint64 {
	var size uint64
	for i := lo; i < hi; i++ {
		r := g.refs[i-g.first]
		size += encodedBytes(r.term, i, r.dataBytes())
		if size > maxSize && i > lo {
			return i
		}
	}
	return hi
}

// encodedBytes is proto.Size of an entry whose fields are all set.
func encodedBytes(term, index uint64, data uint32) uint64 {
	n := 2 + 1 + varintBytes(term) + 1 + varintBytes(index)
	if data > 0 {
		n += 1 + varintBytes(uint64(data)) + uint64(data)
	}
	return n
}

func varintBytes(v uint64) uint64 { return uint64(bits.Len64(v|1)+6) / 7 }

// readEntries appends entries lo..hi-1 from disk, one read for each run that
// is contiguous there.
func (l *Log) readEntries(dst []*raftpb.Entry, g *groupLog, lo, hi uint64) ([]*raftpb.Entry, error) {
	for lo < hi {
		end, bytes := g.contiguous(lo, hi)
		buf := make([]byte, bytes)
		if err := l.readRecord(buf, g.refs[lo-g.first]); err != nil {
			return dst, err
		}
		for ; lo < end; lo++ {
			r := g.refs[lo-g.first]
			h, data, err := checkEntry(buf[:r.recordBytes()], g.id, lo, r)
			if err != nil {
				return dst, err
			}
			dst = append(dst, newEntry(h, data))
			buf = buf[r.recordBytes():]
		}
	}
	return dst, nil
}

// maxReadBytes bounds one read of entries.
const maxReadBytes = 1 << 20

// contiguous returns the end and the size of the run of records from lo that
// one read can take.
func (g *groupLog) contiguous(lo, hi uint64) (end uint64, bytes int64) {
	first := g.refs[lo-g.first]
	for end = lo; end < hi; end++ {
		r := g.refs[end-g.first]
		if r.segment != first.segment || int64(r.offset) != int64(first.offset)+bytes {
			break
		}
		if bytes > 0 && bytes+r.recordBytes() > maxReadBytes {
			break
		}
		bytes += r.recordBytes()
	}
	return end, bytes
}

// readRecord fills b from the place of r on.
func (l *Log) readRecord(b []byte, r entryRef) error {
	l.stats.diskReads.Add(1)
	s := l.segment(r.segment)
	if s == nil {
		panic(fmt.Sprintf("raftlog: segment %d is needed but gone", r.segment))
	}
	if err := l.readAt(s, b, int64(r.offset)); err != nil {
		return fmt.Errorf("segment %d at %d: %w", r.segment, r.offset, err)
	}
	return nil
}

func (l *Log) segment(number uint64) *segment {
	for i := len(l.segments) - 1; i >= 0; i-- {
		if l.segments[i].number == number {
			return l.segments[i]
		}
	}
	return nil
}

// checkEntry parses the record b and holds it against what memory knows.
func checkEntry(b []byte, group keyspace.GroupID, index uint64, r entryRef) (entryHead, []byte, error) {
	rec, err := nextRecord(b)
	if err == nil && (!r.isOf(rec.typ) || rec.group != group || rec.size != len(b)) {
		err = errRecordHeader
	}
	if err != nil {
		return entryHead{}, nil, fmt.Errorf("segment %d at %d: %w", r.segment, r.offset, err)
	}
	h, data, err := decodeEntry(rec.typ, rec.body)
	if err == nil && (h.index != index || h.term != r.term) {
		err = fmt.Errorf("entry %d of term %d is where %d of term %d should be", h.index, h.term, index, r.term)
	}
	return h, data, err
}

// isOf reports whether r is of a record of that type.
func (r entryRef) isOf(t recordType) bool {
	if r.stripped() {
		return t == recordStripped
	}
	return t == recordEntry
}

// newEntry makes an entry around data in two allocations.
func newEntry(h entryHead, data []byte) *raftpb.Entry {
	v := &struct {
		term, index uint64
		typ         raftpb.EntryType
	}{h.term, h.index, h.typ}
	e := &raftpb.Entry{Term: &v.term, Index: &v.index, Type: &v.typ}
	if len(data) > 0 {
		e.Data = data[:len(data):len(data)]
	}
	return e
}

// unreadable answers for an entry that cannot be read back.
func (l *Log) unreadable(g *groupLog, index uint64, cause error) error {
	l.log.Error("raft log: an entry cannot be read", "group", g.id, "index", index, "error", cause)
	if index <= uint64(g.checkpoint.Index) {
		g.compact(index+1, &l.cache)
		return raft.ErrCompacted
	}
	g.damaged = true
	return fault.Wrap(fault.Corruption, cause, "raft log entry is damaged", "group", g.id, "index", index)
}
