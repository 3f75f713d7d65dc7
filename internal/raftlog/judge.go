package raftlog

import "kvstore/internal/fault"

// verdict is what recovery makes of a place where the next frame is not whole.
type verdict int

const (
	// cut: the log ends here.
	cut verdict = iota + 1
	// nextSegment: this segment ends here; the log goes on in the next one.
	nextSegment
	// damagedFrame: the frame is here, was durable, and has damaged records.
	damagedFrame
	// resume: frames that were durable are lost; the log goes on elsewhere in
	// this segment.
	resume
)

type judgement struct {
	verdict verdict
	offset  int64
	number  uint64
}

// judge decides about the place s.end of segment i.
func (r *recovery) judge(i int) (judgement, error) {
	s := r.found[i].segment
	follows, err := r.follows(i)
	if err != nil || follows {
		return judgement{verdict: nextSegment}, err
	}
	a, err := r.lookAhead(i)
	if err != nil {
		return judgement{}, err
	}
	expect := r.expect
	if expect == 0 {
		expect = max(a.number, 2) - 1
	}
	_, here, err := r.load(s)
	if err != nil {
		return judgement{}, err
	}
	whole := !torn(r.buf) // the frame, or the sector where it should begin
	durable := expect <= max(r.synced, a.synced)
	switch {
	case !durable && !whole:
		return judgement{verdict: cut}, nil
	case here:
		return judgement{verdict: damagedFrame}, nil
	case a.offset > 0:
		return judgement{verdict: resume, offset: a.offset, number: a.number}, nil
	case durable:
		r.hidden("the end of a segment is lost", s, s.end)
		r.expect = 0
		return judgement{verdict: nextSegment}, nil
	}
	// The last frame is damaged beyond its header: step over it, and leave it
	// there as evidence.
	end, err := r.dirtyEnd(s, s.end)
	return judgement{verdict: resume, offset: end, number: expect + 1}, err
}

// follows reports whether the next segment begins with the expected frame, or
// was written to and cannot say.
func (r *recovery) follows(i int) (bool, error) {
	if i+1 == len(r.found) {
		return false, nil
	}
	next := r.found[i+1]
	if next.unreadable {
		dirty, err := r.dirtyEnd(next.segment, sectorBytes)
		return dirty > sectorBytes, err
	}
	if r.expect == 0 {
		return false, nil
	}
	if next.size < 2*sectorBytes {
		return false, nil
	}
	r.buf = grow(r.buf, sectorBytes)
	if _, err := next.file.ReadAt(r.buf, sectorBytes); err != nil {
		return false, err
	}
	h, ok := parseFrameHeader(r.buf, next.salt)
	return ok && h.seq == r.expect, nil
}

// ahead is what lies behind a place where the next frame is not whole.
type ahead struct {
	// offset and number of the next frame in the same segment; 0 if none.
	offset int64
	number uint64
	// synced is the highest frame that any frame there calls durable.
	synced uint64
}

// lookAhead searches this segment and all later ones for frames.
func (r *recovery) lookAhead(i int) (ahead, error) {
	var a ahead
	for j, s := range r.found[i:] {
		if s.unreadable {
			continue
		}
		from := int64(sectorBytes)
		if j == 0 {
			from = s.end + sectorBytes
		}
		err := r.sectors(s.segment, from, func(offset int64, b []byte) {
			h, ok := parseFrameHeader(b, s.salt)
			if !ok || h.seq < r.expect {
				return
			}
			a.synced = max(a.synced, h.synced)
			if j == 0 && a.offset == 0 {
				a.offset = offset
			}
			if a.number == 0 {
				a.number = h.seq
			}
		})
		if err != nil {
			return a, err
		}
	}
	return a, nil
}

const scanBytes = 256 << 10

// sectors calls f for each sector of a segment from an offset on.
func (r *recovery) sectors(s *segment, from int64, f func(offset int64, b []byte)) error {
	chunk := make([]byte, scanBytes)
	for from < s.size {
		b := chunk[:min(scanBytes, s.size-from)]
		if _, err := s.file.ReadAt(b, from); err != nil {
			return err
		}
		for at := 0; at < len(b); at += sectorBytes {
			f(from+int64(at), b[at:at+sectorBytes])
		}
		from += int64(len(b))
	}
	return nil
}

// dirtyEnd returns the end of the last sector from an offset on that is not
// zero; the offset itself if all are.
func (r *recovery) dirtyEnd(s *segment, from int64) (int64, error) {
	end := from
	err := r.sectors(s, from, func(offset int64, b []byte) {
		if !allZero(b) {
			end = offset + sectorBytes
		}
	})
	return end, err
}

func errFrameVersion(v uint16) error {
	return fault.New(fault.Unsupported, "raft log frame has an unknown format version", "version", v, "known", frameVersion)
}

func grow(b []byte, n int) []byte {
	if cap(b) >= n {
		return b[:n]
	}
	return append(b, make([]byte, n-len(b))...)
}
