package raftlog

// settle ends recovery on the disk: what could be in the page cache only is
// written again, what was cut becomes zero, and both become durable before
// anything else is written. last is the segment where the log ends, -1 for
// none.
func (r *recovery) settle(last int) error {
	l := r.l
	if err := r.clean(last + 1); err != nil {
		return err
	}
	kept := make([]*segment, 0, last+1)
	for _, f := range r.found[:last+1] {
		kept = append(kept, f.segment)
	}
	if last < 0 {
		s, err := r.firstSegment()
		if err != nil {
			return err
		}
		kept = append(kept, s)
	} else if err := r.rewriteTail(kept[last]); err != nil {
		return err
	}
	l.segments = kept
	l.nextFrame = max(l.nextFrame, r.expect)
	l.durable = l.nextFrame - 1
	for _, s := range kept {
		l.stats.bytes.Add(s.size)
	}
	l.stats.segments.Store(int64(len(kept)))
	return nil
}

// clean empties the segments behind the end of the log. The first one is the
// prepared one; others, and one with a damaged header, are of no use. They go
// from the last one down, so that no gap is ever seen.
func (r *recovery) clean(from int) error {
	for i := len(r.found) - 1; i >= from; i-- {
		f := r.found[i]
		next := i == from && (i == 0 || f.number == r.found[i-1].number+1)
		if f.unreadable || !next || f.size < r.l.opts.SegmentBytes {
			if err := removeSegment(r.l.fs, r.l.dir, f.segment); err != nil {
				return err
			}
			continue
		}
		f.end = sectorBytes
		dirty, err := r.zero(f.segment)
		if err != nil {
			return err
		}
		if dirty {
			if err := f.file.Sync(); err != nil {
				return err
			}
		}
		r.spare = f.segment
	}
	return nil
}

// firstSegment returns the segment that an empty log begins with.
func (r *recovery) firstSegment() (*segment, error) {
	if s := r.spare; s != nil {
		r.spare = nil
		return s, nil
	}
	number := uint64(1)
	if n := len(r.found); n > 0 {
		number = r.found[n-1].number + 1
	}
	l := r.l
	s, err := prepareSegment(l.fs, l.dir, number, l.opts.Rand.Uint64(), l.opts.SegmentBytes)
	if err != nil {
		return nil, err
	}
	return s, nil
}

// rewriteTail writes the frames that no other frame calls durable once more:
// after a failed fsync, or a kill, the page cache may hold what the disk does
// not, and a sync alone would not write pages that the kernel believes clean.
func (r *recovery) rewriteTail(s *segment) error {
	from := s.end
	for _, p := range r.frames {
		if r.reading == s && p.number > r.synced {
			from = p.offset
			break
		}
	}
	if err := r.rewrite(s, from); err != nil {
		return err
	}
	if _, err := r.zero(s); err != nil {
		return err
	}
	return s.file.Sync()
}

func (r *recovery) rewrite(s *segment, from int64) error {
	r.buf = grow(r.buf, scanBytes)
	for from < s.end {
		b := r.buf[:min(scanBytes, s.end-from)]
		if _, err := s.file.ReadAt(b, from); err != nil {
			return err
		}
		if _, err := s.file.WriteAt(b, from); err != nil {
			return err
		}
		from += int64(len(b))
	}
	return nil
}

// zero writes zeroes over what is left behind the end of a segment, so that no
// cut frame ever comes back.
func (r *recovery) zero(s *segment) (dirty bool, err error) {
	end, err := r.dirtyEnd(s, s.end)
	if err != nil || end == s.end {
		return false, err
	}
	r.buf = grow(r.buf, scanBytes)
	clear(r.buf)
	for from := s.end; from < end; {
		b := r.buf[:min(scanBytes, end-from)]
		if _, err := s.file.WriteAt(b, from); err != nil {
			return false, err
		}
		from += int64(len(b))
	}
	return true, nil
}
