package raftlog

import (
	"fmt"
	"io"
	"path"
	"strings"

	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// hiddenKey is a fact that the log keeps for itself: see Log.Hidden.
const hiddenKey = "raftlog/hidden"

// Open recovers the log in dir, or makes an empty one. When it returns, all
// that Groups, Meta and the storages show is durable: what may have been in the
// page cache only is written again and synced. It fails when a file cannot be
// read or was written by a newer version; damage does not make it fail, see
// GroupInfo.Damaged.
func Open(fs env.FS, dir string, o Options) (_ *Log, err error) {
	o = o.withDefaults()
	l := &Log{
		fs: fs, dir: dir, opts: o, log: o.Logger,
		groups:    make(map[keyspace.GroupID]*groupLog),
		cache:     entryCache{limit: o.CacheBytes},
		meta:      make(map[string][]byte),
		nextFrame: 1,
	}
	defer func() {
		if err != nil {
			l.abandon()
			err = fmt.Errorf("open raft log in %s: %w", dir, err)
		}
	}()
	found, err := l.openSegments()
	if err != nil {
		return nil, err
	}
	r := &recovery{l: l, found: found}
	if err := r.run(); err != nil {
		return nil, err
	}
	l.ahead = newPreparer(fs, dir, o.Inline, l.removed)
	l.ahead.spare = r.spare
	if err := l.begin(); err != nil {
		return nil, err
	}
	return l, nil
}

// begin writes the first frame of this life of the log.
func (l *Log) begin() error {
	first := l.NewBatch()
	if _, known := l.meta[hiddenKey]; l.unscoped && !known {
		first.SetMeta(hiddenKey, []byte{1})
	} else if known {
		l.unscoped = true
	}
	err := l.commit(first, true)
	if err != nil && (l.failed != nil || l.nextFrame == 1) {
		return err
	}
	if err != nil { // a full disk: what is here can be read, and may make room
		l.log.Warn("raft log opened without room to write", "error", err)
	}
	l.prepareAhead()
	return nil
}

// abandon closes what a failed Open opened.
func (l *Log) abandon() {
	if l.ahead != nil {
		l.ahead.close()
	}
	for _, s := range l.segments {
		_ = s.file.Close()
	}
}

// removed is told the outcome of each removal of a segment.
func (l *Log) removed(s *segment, err error) {
	if err != nil {
		l.log.Error("raft log: a segment cannot be removed", "segment", s.number, "error", err)
	}
}

// found is a segment as it lies on the disk.
type found struct {
	*segment
	// unreadable: the header is damaged, so no frame can be verified.
	unreadable bool
}

// openSegments opens all segments in order and removes unfinished ones.
func (l *Log) openSegments() ([]found, error) {
	if err := l.fs.MkdirAll(l.dir); err != nil {
		return nil, err
	}
	if err := l.fs.SyncDir(path.Dir(l.dir)); err != nil {
		return nil, err
	}
	names, err := l.fs.List(l.dir)
	if err != nil {
		return nil, err
	}
	var all []found
	for _, name := range names {
		if strings.HasSuffix(name, preparingSuffix) {
			if err := l.fs.Remove(path.Join(l.dir, name)); err != nil {
				return nil, err
			}
			continue
		}
		number, ok := segmentNumber(name)
		if !ok {
			continue
		}
		f, err := l.openSegment(number)
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// openSegment opens one segment. All of them are in l.segments at once, so that
// abandon finds them.
func (l *Log) openSegment(number uint64) (found, error) {
	file, err := l.fs.Open(segmentName(l.dir, number))
	if err != nil {
		return found{}, err
	}
	env.Uncached(file)
	s := &segment{number: number, file: file, end: sectorBytes}
	l.segments = append(l.segments, s)
	if s.size, err = file.Size(); err != nil {
		return found{}, err
	}
	s.size &^= sectorBytes - 1
	header := make([]byte, sectorBytes)
	if _, err := file.ReadAt(header, 0); err != nil && err != io.EOF { //nolint:errorlint // ReaderAt says io.EOF itself
		return found{}, err
	}
	s.salt, err = decodeSegmentHeader(header, number)
	if fault.CodeOf(err) == fault.Unsupported {
		return found{}, err
	}
	return found{segment: s, unreadable: err != nil}, nil
}
