package raftlog

import (
	"errors"
	"sort"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/fault"
)

// maxKeptBuffer is the largest encoding buffer kept between commits.
const maxKeptBuffer = 8 << 20

// Commit writes the batch with one write and, with sync, makes it and all
// before it durable with one fdatasync. It is all or nothing: after an error
// that is not ErrFailed (the batch is too large, the disk is full: Overloaded)
// nothing was written and the log goes on; after ErrFailed it does not. The
// batch may be reset as soon as Commit returns.
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
	l.buf = l.buf[:0]
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
		l.buf = l.appendHead(l.buf, s, nil)
		l.nextFrame++
	}
	l.appendFrame(b, s)
	if err := l.write(s); err != nil {
		return err
	}
	if sync {
		if err := l.sync(); err != nil {
			return err
		}
	}
	for _, m := range moved {
		m.apply(s)
	}
	b.apply(l, s)
	if cap(l.buf) > maxKeptBuffer {
		l.buf = nil
	}
	if rolled {
		l.prepareAhead()
		l.reclaimDue = true
	}
	l.reclaim()
	return nil
}

func (l *Log) current() *segment { return l.segments[len(l.segments)-1] }

func (l *Log) appendFrame(b *Batch, s *segment) {
	start := len(l.buf)
	l.buf = beginFrame(l.buf)
	l.buf = b.encode(l.buf, s.end)
	l.buf = endFrame(l.buf, start, s.salt, l.nextFrame, l.durable)
	l.nextFrame++
}

func (l *Log) write(s *segment) error {
	if _, err := s.file.WriteAt(l.buf, s.end); err != nil {
		return l.fail(err, "write")
	}
	s.end += int64(len(l.buf))
	l.stats.written.Add(uint64(len(l.buf)))
	return nil
}

// sync makes all frames durable: those before the current segment are.
func (l *Log) sync() error {
	var start time.Duration
	if l.opts.OnSync != nil {
		start = l.opts.Clock.Mono()
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

// PendingSync is a sync that any goroutine may run while the log goes on: what
// is written meanwhile is for the next one.
type PendingSync struct {
	segment *segment
	frame   uint64
	took    time.Duration
	clock   env.Clock
}

// Written is the number of the last frame handed to the file, Durable that of
// the last one known to be on disk.
func (l *Log) Written() uint64 { return l.nextFrame - 1 }

// Durable is described at Written.
func (l *Log) Durable() uint64 { return l.durable }

// BeginSync returns a sync of everything written so far, nil when all of it is
// durable. The caller runs it anywhere and then passes it to EndSync.
func (l *Log) BeginSync() *PendingSync {
	if l.failed != nil || l.durable == l.Written() {
		return nil
	}
	s := l.current()
	s.syncing.Add(1)
	return &PendingSync{segment: s, frame: l.Written(), clock: l.opts.Clock}
}

// Run syncs; it blocks for as long as the disk takes.
func (p *PendingSync) Run() error {
	start := p.clock.Mono()
	err := p.segment.file.Sync()
	p.took = p.clock.Mono() - start
	return err
}

// Took is how long Run took.
func (p *PendingSync) Took() time.Duration { return p.took }

// EndSync takes the outcome of Run. Segments before the synced one were made
// durable when they were left.
func (l *Log) EndSync(p *PendingSync, err error) error {
	p.segment.syncing.Add(-1)
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

// roll goes on to the next segment, with room for need bytes after its head,
// which is left in l.buf to be written together with what follows. The segment
// that is left is durable whole.
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
	l.buf = l.appendHead(l.buf, next, moved)
	if err := l.fit(next, int64(len(l.buf))+need); err != nil {
		return nil, err
	}
	l.ahead.spare = nil
	l.segments = append(l.segments, next)
	l.nextFrame++
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
