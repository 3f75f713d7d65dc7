package raftlog

import (
	"kvstore/internal/keyspace"
)

// recovery reads the segments in order and brings memory to what they say.
//
// Frames are numbered, and each says which frames were durable when it was
// written. So where the next frame is not found or not whole, the frames that
// can be found further on decide: if one of them says that the missing frame
// was durable, or the missing frame shows no trace of a write cut short, it was
// damaged, otherwise the log ends here and the rest is cut. DESIGN.md has the
// cases.
type recovery struct {
	l     *Log
	found []found
	// expect is the number of the next frame; 0 when it is not known.
	expect uint64
	// synced is the highest frame that any frame calls durable.
	synced uint64
	// blind: damage could have hidden any record.
	blind bool
	// frames of the last segment that has some.
	reading *segment
	frames  []place
	buf     []byte
	window  window
	// spare is a prepared segment without frames.
	spare *segment
}

// place is where a frame is in its segment.
type place struct {
	number uint64
	offset int64
}

func (r *recovery) run() error {
	last := -1 // the segment where the log ends
	for i := range r.found {
		if i > 0 && r.found[i].number != r.found[i-1].number+1 {
			r.hidden("a segment is missing", r.found[i].segment, 0)
			r.expect = 0
		}
		used, end, err := r.segment(i)
		if err != nil {
			return err
		}
		if used {
			last = i
		}
		if end {
			break
		}
	}
	if err := r.settle(last); err != nil {
		return err
	}
	for _, g := range r.l.groups {
		r.finish(g)
	}
	return nil
}

// segment reads the frames of a segment. used says that it holds some, end
// that the log ends in it, or before it.
func (r *recovery) segment(i int) (used, end bool, err error) {
	s := r.found[i]
	if s.unreadable {
		return r.unreadable(i)
	}
	for s.end+sectorBytes <= s.size {
		whole, err := r.frame(s.segment)
		if err != nil {
			return false, false, err
		}
		if whole {
			continue
		}
		v, err := r.judge(i)
		if err != nil {
			return false, false, err
		}
		switch v.verdict {
		case cut:
			return s.end > sectorBytes, true, nil
		case nextSegment:
			return s.end > sectorBytes, false, nil
		case damagedFrame:
			if err := r.salvage(s.segment); err != nil {
				return false, false, err
			}
		case resume:
			r.hidden("a frame is lost", s.segment, s.end)
			s.end, r.expect = v.offset, v.number
		}
	}
	return s.end > sectorBytes, false, nil
}

// unreadable handles a segment whose header is damaged. Nothing was lost if it
// never was written to.
func (r *recovery) unreadable(i int) (used, end bool, err error) {
	s := r.found[i].segment
	dirty, err := r.dirtyEnd(s, sectorBytes)
	if err != nil || dirty == sectorBytes {
		return false, false, err
	}
	r.hidden("a segment header is damaged", s, 0)
	s.end = s.size
	r.reading, r.frames = s, r.frames[:0]
	// However many frames it holds, later ones are numbered higher.
	r.l.nextFrame = max(r.l.nextFrame, r.expect) + uint64(s.size/sectorBytes) + 1
	r.expect = 0
	return true, false, nil
}

// frame takes the frame at s.end in if it is the expected one and whole.
func (r *recovery) frame(s *segment) (bool, error) {
	h, ok, err := r.load(s)
	if err != nil || !ok {
		return false, err
	}
	if records, err := verify(r.buf[frameHeaderBytes:h.length]); err != nil || !records {
		return false, err
	}
	return true, r.accept(s, h)
}

// load reads the frame at s.end into r.buf, padding included. ok is false when
// its header is not the expected one.
func (r *recovery) load(s *segment) (h frameHeader, ok bool, err error) {
	r.buf = grow(r.buf, sectorBytes)
	if err := r.read(s, r.buf, s.end); err != nil {
		return h, false, err
	}
	h, ok = parseFrameHeader(r.buf, s.salt)
	if !ok || s.end+h.padded() > s.size || (r.expect != 0 && h.seq != r.expect) {
		return h, false, nil
	}
	if v := frameFormat(r.buf); v != frameVersion {
		return h, false, errFrameVersion(v)
	}
	r.buf = grow(r.buf, int(h.padded()))
	err = r.read(s, r.buf[sectorBytes:], s.end+sectorBytes)
	return h, err == nil, err
}

// window is a part of a segment read ahead, so that small frames cost few
// reads.
type window struct {
	segment *segment
	offset  int64
	bytes   []byte
}

func (r *recovery) read(s *segment, b []byte, offset int64) error {
	w := &r.window
	if w.segment != s || offset < w.offset || offset+int64(len(b)) > w.offset+int64(len(w.bytes)) {
		if len(b) > scanBytes {
			_, err := s.file.ReadAt(b, offset)
			return err
		}
		w.segment = nil
		w.bytes = grow(w.bytes, int(min(scanBytes, s.size-offset)))
		if _, err := s.file.ReadAt(w.bytes, offset); err != nil {
			return err
		}
		w.segment, w.offset = s, offset
	}
	copy(b, w.bytes[offset-w.offset:])
	return nil
}

// accept applies the readable records of the frame in r.buf and goes on.
func (r *recovery) accept(s *segment, h frameHeader) error {
	if err := r.apply(s, r.buf[frameHeaderBytes:h.length]); err != nil {
		return err
	}
	if r.reading != s {
		r.reading, r.frames = s, r.frames[:0]
	}
	r.frames = append(r.frames, place{h.seq, s.end})
	s.end += h.padded()
	r.synced = max(r.synced, h.synced)
	r.expect = h.seq + 1
	r.l.nextFrame = max(r.l.nextFrame, r.expect)
	return nil
}

// salvage takes in what can be read of the damaged frame at s.end.
func (r *recovery) salvage(s *segment) error {
	h, ok, err := r.load(s)
	if err != nil || !ok {
		return err
	}
	return r.accept(s, h)
}

// hidden notes damage that any group may have suffered.
func (r *recovery) hidden(what string, s *segment, offset int64) {
	r.l.log.Error("raft log is damaged; all replicas here have to be rebuilt",
		"what", what, "segment", s.number, "offset", offset)
	r.blind, r.l.unscoped = true, true
	for _, g := range r.l.groups {
		if g.live() {
			g.damaged = true
		}
	}
}

// group returns a group that a record names. Each segment begins with all
// groups and each replica with its creation, so an unknown one was hidden by
// damage.
func (r *recovery) group(id keyspace.GroupID) *groupLog {
	g := r.l.groups[id]
	if g == nil {
		g = &groupLog{id: id, first: 1, damaged: true}
		r.l.groups[id] = g
	}
	return g
}
