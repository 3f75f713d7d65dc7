package raftlog

// HasSpace reports whether bytes more of batches can be written before the
// disk is full, without touching ReserveBytes. The segment prepared ahead is
// not counted: it is kept for what has to be written even when this says no
// (votes, checkpoints, deletions). It also tries again to prepare one, so that
// a log that was out of space goes on when there is some.
func (l *Log) HasSpace(bytes int64) bool {
	if l.failed != nil {
		return false
	}
	l.prepareAhead()
	room := int64(0)
	if l.ahead.spare != nil || l.ahead.waiting {
		room = l.current().size - l.current().end
	}
	if bytes <= room {
		return true
	}
	return bytes <= room+l.free()
}

// free returns what the file system has beyond the reserve.
func (l *Log) free() int64 {
	free, err := l.fs.Free(l.dir)
	if err != nil {
		l.log.Warn("raft log cannot tell the free disk space", "error", err)
		return 0
	}
	const huge = 1 << 60
	return max(0, int64(min(free, huge))-l.opts.ReserveBytes)
}

// prepareAhead has the next segment prepared when there is room for it.
func (l *Log) prepareAhead() {
	if err := l.ahead.poll(); err != nil {
		l.log.Warn("raft log could not prepare a segment ahead", "error", err)
	}
	if l.ahead.spare != nil || l.ahead.waiting {
		return
	}
	if l.free() < l.opts.SegmentBytes {
		return
	}
	err := l.ahead.begin(l.current().number+1, l.opts.Rand.Uint64(), l.opts.SegmentBytes)
	if err != nil {
		l.log.Warn("raft log could not prepare a segment ahead", "error", err)
	}
}
