package raftlog

import (
	"kvstore/internal/keyspace"
)

// Compact forgets the group's entries below first, in memory at once; on disk
// a segment goes when no group needs an entry of it. Entries above the
// checkpoint are kept whatever first says. It is not durable: a restart may
// find some of them again.
func (l *Log) Compact(group keyspace.GroupID, first keyspace.Index) {
	g := l.groups[group]
	if g == nil || !g.live() {
		return
	}
	g.compact(min(uint64(first), uint64(g.checkpoint.Index)+1, g.last()+1), &l.cache)
	l.stats.cached.Store(l.cache.bytes)
	l.reclaimDue = true
	l.reclaim()
}

// reclaim removes the oldest segments that nothing needs, once everything that
// made them so is durable: the checkpoint that covers their entries, the head
// of a later segment. While a group is damaged all stay: they are what says so
// at the next Open.
func (l *Log) reclaim() {
	if !l.reclaimDue || l.failed != nil || l.durable != l.nextFrame-1 || l.Damaged() {
		return
	}
	needed := l.current().number
	for _, g := range l.groups {
		if len(g.refs) > 0 {
			needed = min(needed, g.refs[0].segment)
		}
	}
	for l.segments[0].number < needed && l.segments[0].syncing.Load() == 0 {
		s := l.segments[0]
		l.segments = l.segments[1:]
		l.stats.segments.Add(-1)
		l.stats.bytes.Add(-s.size)
		l.ahead.remove(s)
	}
	l.reclaimDue = l.segments[0].number < needed // one that is being synced goes later
}

// move is an idle group's log on its way to the head of a new segment, so that
// it does not hold back old ones.
type move struct {
	group   *groupLog
	records []byte
	offset  int64
}

const (
	// Logs up to this part of a segment move.
	movablePart = 64
	// All logs that move together take up to this part of a segment.
	movedPart = 8
)

// movable returns the logs to move when the current segment is left: small
// ones that begin before it. A log moves whole, because an entry record
// replaces all entries after it.
func (l *Log) movable() []move {
	var moved []move
	budget := l.opts.SegmentBytes / movedPart
	for _, g := range l.sortedGroups() {
		if len(g.refs) == 0 || g.damaged || g.refs[0].segment >= l.current().number {
			continue
		}
		if g.bytes > l.opts.SegmentBytes/movablePart || g.bytes > budget {
			continue
		}
		records, err := l.rawRecords(g)
		if err != nil {
			l.log.Error("raft log: entries of an idle group cannot be read", "group", g.id, "error", err)
			continue
		}
		budget -= g.bytes
		moved = append(moved, move{group: g, records: records})
	}
	return moved
}

// rawRecords reads and checks all entry records of a group.
func (l *Log) rawRecords(g *groupLog) ([]byte, error) {
	records := make([]byte, 0, g.bytes)
	for i, r := range g.refs {
		at := len(records)
		records = records[:at+int(r.recordBytes())]
		if err := l.readRecord(records[at:], r); err != nil {
			return nil, err
		}
		if _, _, err := checkEntry(records[at:], g.id, g.first+uint64(i), r); err != nil {
			return nil, err
		}
	}
	return records, nil
}

func (m move) apply(s *segment) {
	offset := m.offset
	for i := range m.group.refs {
		r := &m.group.refs[i]
		r.segment, r.offset = s.number, uint32(offset)
		offset += r.recordBytes()
	}
}
