package raftlog

import (
	"errors"
	"sort"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/fault"
)

// Commit takes the batch in and, with sync, makes it and all before it durable
// with one write and one fdatasync; otherwise it is written with what follows
// (BeginSync). It is all or nothing: after an error that is not ErrFailed (the
// batch is too large, the disk is full: Overloaded) nothing was taken in and the
// log goes on; after ErrFailed it does not. The batch may be reset as soon as
// Commit returns.
func (l *Log) Commit(b *Batch, sync bool) error {
	if l.failed != nil {
		return l.failed
	}
	if b.Empty() {
		if !sync || l.durable == l.nextFrame-1 {
			return nil
		}
		if err := l.sync(); err != nil {
			return err
		}
		l.reclaim()
		return nil
	}
	if err := l.check(b); err != nil {
		return err
	}
	if err := l.commit(b, sync); err != nil {
		return err
	}
	l.stats.commits.Add(1)
	l.stats.cached.Store(l.cache.bytes)
	return nil
}

// mark writes a frame without records, so that the log itself says that all
// before it is durable.
func (l *Log) mark() error { return l.commit(&Batch{}, true) }

func (l *Log) commit(b *Batch, sync bool) error {
	need := padded(frameHeaderBytes + b.size)
	if need > maxFrameBytes {
		return fault.New(fault.MessageTooLarge, "commit of the raft log is too large", "limit", maxFrameBytes, "actual", need)
	}
	s := l.current()
	l.growBuffer()
	var moved []move
	rolled := s.end+need > s.size
	switch {
	case rolled:
		var err error
		if moved, err = l.roll(need); err != nil {
			return err
		}
		s = l.current()
	case s.end == sectorBytes:
		l.take(l.appendHead(l.buf, s, nil), s)
	}
	l.take(l.appendFrame(l.buf, b, s), s)
	if err := l.passOn(sync); err != nil {
		return err
	}
	for _, m := range moved {
		m.apply(s)
	}
	b.apply(l, s)
	if rolled {
		l.prepareAhead()
		l.reclaimDue = true
	}
	l.reclaim()
	return nil
}

func (l *Log) current() *segment { return l.segments[len(l.segments)-1] }

// appendFrame appends the batch as a frame of s, which buf ends at the end of.
func (l *Log) appendFrame(buf []byte, b *Batch, s *segment) []byte {
	start := len(buf)
	base := s.end - int64(start)
	buf = b.encode(beginFrame(buf), base)
	return endFrame(buf, start, s.salt, l.nextFrame, l.durable)
}

// take makes buf, with one more frame of s, the buffer.
func (l *Log) take(buf []byte, s *segment) {
	n := len(buf) - len(l.buf)
	if len(l.buf) == 0 {
		l.bufFirst = l.nextFrame
	}
	l.buf = buf
	l.nextFrame++
	s.end += int64(n)
	l.stats.written.Add(uint64(n))
}

// sync makes all frames durable: those before the current segment are.
func (l *Log) sync() error {
	var start time.Duration
	if l.opts.OnSync != nil {
		start = l.opts.Clock.Mono()
	}
	if err := l.writeOut(); err != nil {
		return err
	}
	if err := l.current().file.Sync(); err != nil {
		return l.fail(err, "sync")
	}
	if l.opts.OnSync != nil {
		l.opts.OnSync(l.opts.Clock.Mono() - start)
	}
	l.durable = l.nextFrame - 1
	l.stats.syncs.Add(1)
	return nil
}

// roll goes on to the next segment, with room for need bytes after its head,
// which is left in the buffer to be written together with what follows. The
// segment that is left is durable whole.
func (l *Log) roll(need int64) ([]move, error) {
	next, err := l.takeAhead()
	if err != nil {
		return nil, err
	}
	if l.durable != l.nextFrame-1 {
		if err := l.sync(); err != nil {
			return nil, err
		}
	}
	moved := l.movable()
	l.growBuffer()
	head := l.appendHead(l.buf, next, moved)
	if err := l.fit(next, int64(len(head))+need); err != nil {
		return nil, err
	}
	l.ahead.spare = nil
	l.segments = append(l.segments, next)
	l.take(head, next)
	l.stats.segments.Add(1)
	l.stats.bytes.Add(next.size)
	return moved, nil
}

// takeAhead returns the prepared segment, or prepares one now. It stays the
// prepared one until the roll succeeds.
func (l *Log) takeAhead() (*segment, error) {
	if err := l.ahead.wait(); err != nil {
		l.log.Warn("raft log could not prepare a segment ahead", "error", err)
	}
	if l.ahead.spare == nil {
		s, err := prepareSegment(l.fs, l.dir, l.current().number+1, l.opts.Rand.Uint64(), l.opts.SegmentBytes)
		if err != nil {
			return nil, l.prepareFailed(err)
		}
		l.ahead.spare = s
	}
	return l.ahead.spare, nil
}

func (l *Log) prepareFailed(err error) error {
	if errors.Is(err, env.ErrNoSpace) {
		return fault.Wrap(fault.Overloaded, err, "no disk space for the raft log").WithRetry(time.Second)
	}
	return l.fail(err, "prepare a segment")
}

// fit enlarges a prepared segment for a commit larger than a segment.
func (l *Log) fit(s *segment, bytes int64) error {
	if size := sectorBytes + bytes; size > s.size {
		if err := s.file.Preallocate(size); err != nil {
			return l.prepareFailed(err)
		}
		s.size = size
	}
	return nil
}

// appendHead appends the frame that every segment begins with: the latest
// state of every group, the facts of the node, and the entries that move
// forward. Segments before it are needed for their entries only.
func (l *Log) appendHead(buf []byte, s *segment, moved []move) []byte {
	start := len(buf)
	buf = beginFrame(buf)
	for _, g := range l.sortedGroups() {
		buf = appendGroup(buf, g.id, g.replica, g.removed)
		if g.live() {
			buf = appendCheckpointRecord(buf, recordCheckpoint, g.id, &g.checkpoint)
			buf = appendHardState(buf, g.id, g.hard)
		}
	}
	for _, key := range l.metaKeys() {
		buf = appendMeta(buf, key, l.meta[key])
	}
	for i := range moved {
		moved[i].offset = s.end + int64(len(buf))
		buf = append(buf, moved[i].records...)
	}
	return endFrame(buf, start, s.salt, l.nextFrame, l.durable)
}

func (l *Log) metaKeys() []string {
	keys := make([]string, 0, len(l.meta))
	for k := range l.meta {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
