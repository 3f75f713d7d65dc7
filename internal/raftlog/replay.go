package raftlog

import (
	"errors"

	"kvstore/internal/fault"
)

// verify reports whether all records of a frame are intact.
func verify(b []byte) (bool, error) {
	for len(b) > 0 {
		rec, err := nextRecord(b)
		if errors.Is(err, errRecordVersion) {
			return false, errUnknownRecord(rec)
		}
		if err != nil {
			return false, nil
		}
		b = b[rec.size:]
	}
	return true, nil
}

func errUnknownRecord(rec record) error {
	return fault.Wrap(fault.Unsupported, errRecordVersion, "raft log was written by a newer version", "type", rec.typ, "group", rec.group)
}

// apply takes the records of a frame at s.end in, and blames damaged ones on
// their groups.
func (r *recovery) apply(s *segment, b []byte) error {
	offset := s.end + frameHeaderBytes
	for len(b) > 0 {
		rec, err := nextRecord(b)
		switch {
		case errors.Is(err, errRecordHeader):
			r.hidden("a record header is damaged", s, offset)
			return nil
		case errors.Is(err, errRecordVersion):
			return errUnknownRecord(rec)
		case err == nil:
			err = r.record(s, offset, rec)
		}
		if err != nil {
			r.blame(s, offset, rec)
		}
		b = b[rec.size:]
		offset += int64(rec.size)
	}
	return nil
}

func (r *recovery) blame(s *segment, offset int64, rec record) {
	if rec.typ == recordMeta {
		r.hidden("a fact of the node is damaged", s, offset)
		return
	}
	r.l.log.Error("raft log is damaged; a replica has to be rebuilt",
		"group", rec.group, "record", rec.typ, "segment", s.number, "offset", offset)
	r.group(rec.group).damaged = true
}

// record applies one intact record. An error means that its content makes no
// sense, which is damage too.
func (r *recovery) record(s *segment, offset int64, rec record) error {
	switch rec.typ {
	case recordMeta:
		key, value, err := decodeMeta(rec.body)
		if err == nil {
			r.l.setMeta(key, value)
		}
		return err
	case recordGroup:
		return r.restate(rec)
	case recordCreate:
		return r.create(rec)
	case recordRemove:
		replica, _, err := decodeReplica(rec.body)
		if err == nil {
			g := r.group(rec.group)
			g.removed = max(g.removed, replica)
			g.remove(&r.l.cache)
		}
		return err
	case recordAdopt:
		replica, _, err := decodeReplica(rec.body)
		if err == nil {
			r.group(rec.group).adopt(replica)
		}
		return err
	case recordEntry, recordStripped:
		return r.entry(s, offset, rec)
	case recordHardState:
		h, err := decodeHardState(rec.body)
		if err == nil {
			r.group(rec.group).setHardState(h)
		}
		return err
	case recordCheckpoint, recordSwitch:
		c, err := decodeCheckpoint(rec.body)
		if err != nil {
			return err
		}
		if rec.typ == recordSwitch {
			r.group(rec.group).restart(c, &r.l.cache)
		} else {
			r.group(rec.group).setCheckpoint(c)
		}
	}
	return nil
}

func (r *recovery) create(rec record) error {
	replica, rest, err := decodeReplica(rec.body)
	if err != nil {
		return err
	}
	c, err := decodeCheckpoint(rest)
	if err != nil {
		return err
	}
	r.group(rec.group).create(replica, c, &r.l.cache)
	return nil
}

// restate takes in what the head of a segment says of a group. In the first
// segment that is how groups become known; later it only says something new
// when damage hid it.
func (r *recovery) restate(rec record) error {
	live, rest, err := decodeReplica(rec.body)
	if err != nil {
		return err
	}
	removed, _, err := decodeReplica(rest)
	if err != nil {
		return err
	}
	known := r.l.groups[rec.group] != nil
	g := r.group(rec.group)
	g.removed = max(g.removed, removed)
	switch {
	case !known:
		g.replica = live
		g.damaged = r.blind && live != 0
	case live == 0 && g.replica != 0:
		g.remove(&r.l.cache)
	case g.replica != live:
		g.tombstone()
		g.replica, g.damaged = live, true
	}
	return nil
}

// entry puts an entry in its place. Damaged groups keep none.
func (r *recovery) entry(s *segment, offset int64, rec record) error {
	h, data, err := decodeEntry(rec.typ, rec.body)
	if err != nil {
		return err
	}
	g := r.group(rec.group)
	if g.damaged {
		return nil
	}
	if !g.anchored && (len(g.refs) == 0 || h.index < g.first) {
		// Segments that are gone held what came before. An entry may come
		// below those seen: it replaced them.
		g.first, g.firstTerm, g.refs, g.bytes = h.index, 0, nil, 0
	}
	if h.index == 0 || h.index < g.first || h.index > g.last()+1 {
		return errGap
	}
	ref := refOf(s, offset, h.term, data, rec.typ == recordStripped)
	g.append(h.index, ref, &r.l.cache)
	return nil
}

var errGap = errors.New("entry does not follow the log")

// finish settles where a group's log begins, and finds the damage that shows
// only in what is missing.
func (r *recovery) finish(g *groupLog) {
	if g.live() && !g.damaged && !g.settle(&r.l.cache) {
		r.l.log.Error("raft log is damaged; a replica has to be rebuilt", "group", g.id,
			"what", "entries are missing", "first", g.first, "last", g.last(),
			"checkpoint", g.checkpoint.Index, "commit", g.hard.commit)
		g.damaged = true
	}
	if g.damaged {
		g.restart(g.checkpoint, &r.l.cache)
	}
}

// settle reports whether the log reaches from the checkpoint to the commit
// index. Entries before the checkpoint may be there in part: how far the log
// was compacted is not written down.
func (g *groupLog) settle(cache *entryCache) bool {
	if !g.anchored && len(g.refs) == 0 {
		g.restart(g.checkpoint, cache)
	}
	base := uint64(g.checkpoint.Index)
	if base+1 < g.first || base > g.last() || g.hard.commit > g.last() {
		return false
	}
	if !g.anchored {
		if g.first > base {
			g.firstTerm = uint64(g.checkpoint.Term)
		} else {
			g.compact(g.first+1, cache) // its term is all that is needed of the first entry
		}
	}
	return g.term(base) == uint64(g.checkpoint.Term)
}
