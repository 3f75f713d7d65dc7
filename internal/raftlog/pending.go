package raftlog

import (
	"sync"
	"time"

	"kvstore/internal/env"
)

const (
	// minBuffer is the least capacity of a buffer of frames. Allocations of that
	// size begin at a page, so that frames can be written past the page cache.
	minBuffer = 64 << 10
	// maxKeptBuffer is the largest buffer kept for reuse.
	maxKeptBuffer = 8 << 20
	// maxUnwritten bounds the frames that wait for a sync to be written with it: a
	// commit of more writes them itself, which takes as long as the disk does.
	maxUnwritten = 16 << 20
)

// PendingSync is a write and a sync that any goroutine may run while the log goes
// on: what is committed meanwhile is for the next one.
//
// Frames are not written when they are committed but when they are synced, all
// that came since the last sync with one write. Both take as long as the disk
// does, so neither belongs to the goroutine of the log; and a disk that is given
// one write for many commits has less to do. Until then memory has the frames, and
// readAt shows them.
type PendingSync struct {
	segment *segment
	from    int64  // where buf goes
	buf     []byte // not changed until EndSync
	frame   uint64
	// alone: what is before buf is durable, so that only buf has to become so.
	alone bool
	// prev is the sync that was begun before and has not ended, nil for none: its
	// frames come first.
	prev  *PendingSync
	took  time.Duration
	clock env.Clock

	once   sync.Once
	synced bool  // the write was durable
	err    error // of the write
}

// Written is the number of the last frame, Durable that of the last one known to
// be on disk.
func (l *Log) Written() uint64 { return l.nextFrame - 1 }

// Durable is described at Written.
func (l *Log) Durable() uint64 { return l.durable }

// BeginSync returns a sync of everything committed so far, nil when all of it is
// durable. The caller runs it anywhere and then passes it to EndSync.
func (l *Log) BeginSync() *PendingSync {
	if l.failed != nil || l.durable == l.Written() {
		return nil
	}
	s := l.current()
	s.syncing.Add(1)
	p := &PendingSync{
		segment: s, from: s.end - int64(len(l.buf)), buf: l.buf,
		frame: l.Written(), alone: l.durable+1 == l.bufFirst, clock: l.opts.Clock,
	}
	l.buf, l.spare = l.spare, nil
	if n := len(l.writing); n > 0 {
		p.prev = l.writing[n-1]
	}
	l.writing = append(l.writing, p)
	return p
}

// Run writes and syncs; it blocks for as long as the disk takes.
func (p *PendingSync) Run() error {
	start := p.clock.Mono()
	err := p.write(p.alone)
	if err == nil && !p.synced {
		err = p.segment.file.Sync()
	}
	p.took = p.clock.Mono() - start
	return err
}

// write writes the frames, durably if it is said to, unless somebody has, or does;
// then it waits for that.
func (p *PendingSync) write(durably bool) error {
	p.once.Do(func() {
		if p.prev != nil {
			p.err = p.prev.write(false)
			p.prev = nil
		}
		switch {
		case p.err != nil, len(p.buf) == 0:
		case durably:
			p.err = env.WriteSync(p.segment.file, p.buf, p.from)
			p.synced = p.err == nil
		default:
			_, p.err = p.segment.file.WriteAt(p.buf, p.from)
		}
	})
	return p.err
}

// Took is how long Run took.
func (p *PendingSync) Took() time.Duration { return p.took }

// EndSync takes the outcome of Run. Segments before the synced one were made
// durable when they were left.
func (l *Log) EndSync(p *PendingSync, err error) error {
	p.segment.syncing.Add(-1)
	l.ended(p)
	switch {
	case l.failed != nil:
		return l.failed
	case err != nil:
		return l.fail(err, "sync")
	}
	if l.opts.OnSync != nil {
		l.opts.OnSync(p.took)
	}
	l.durable = max(l.durable, p.frame)
	l.stats.syncs.Add(1)
	l.reclaim()
	return nil
}

// ended forgets p and keeps its buffer.
func (l *Log) ended(p *PendingSync) {
	for i, w := range l.writing {
		if w == p {
			l.writing = append(l.writing[:i], l.writing[i+1:]...)
			break
		}
	}
	l.recycle(p.buf)
	p.buf = nil
}

func (l *Log) recycle(buf []byte) {
	if cap(buf) <= maxKeptBuffer && cap(buf) > cap(l.spare) {
		l.spare = buf[:0]
	}
}

// growBuffer makes sure that there is a buffer.
func (l *Log) growBuffer() {
	if l.buf == nil {
		l.buf, l.spare = l.spare, nil
	}
	if l.buf == nil {
		l.buf = make([]byte, 0, minBuffer)
	}
}

// passOn hands what was committed to the disk when it has to be durable, or has
// become too much to wait for a sync.
func (l *Log) passOn(sync bool) error {
	switch {
	case sync:
		return l.sync()
	case len(l.buf) > maxUnwritten:
		return l.writeOut()
	default:
		return nil
	}
}

// writeOut writes all frames that are not in the file yet.
func (l *Log) writeOut() error {
	for _, p := range l.writing {
		if err := p.write(false); err != nil {
			return l.fail(err, "write")
		}
	}
	if len(l.buf) == 0 {
		return nil
	}
	s := l.current()
	if _, err := s.file.WriteAt(l.buf, s.end-int64(len(l.buf))); err != nil {
		return l.fail(err, "write")
	}
	l.buf = l.buf[:0]
	if cap(l.buf) > maxKeptBuffer {
		l.buf = nil
	}
	return nil
}

// readAt fills b from a segment as if all frames were in its file.
func (l *Log) readAt(s *segment, b []byte, off int64) error {
	if _, err := s.file.ReadAt(b, off); err != nil {
		return err
	}
	for _, p := range l.writing {
		if p.segment == s {
			overlay(b, off, p.buf, p.from)
		}
	}
	if s == l.current() {
		overlay(b, off, l.buf, s.end-int64(len(l.buf)))
	}
	return nil
}

// overlay copies what b, at off, and over, at from, have in common.
func overlay(b []byte, off int64, over []byte, from int64) {
	lo, hi := max(off, from), min(off+int64(len(b)), from+int64(len(over)))
	if lo < hi {
		copy(b[lo-off:hi-off], over[lo-from:])
	}
}
