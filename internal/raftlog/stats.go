package raftlog

import "sync/atomic"

// Stats are figures of a log since Open.
type Stats struct {
	// Bytes of the segments in use; the prepared one is not counted.
	Bytes int64
	// Segments in use.
	Segments int
	Commits  uint64
	Syncs    uint64
	// Written counts bytes given to the file system by commits.
	Written uint64
	// CachedBytes of entries in memory.
	CachedBytes int64
	// DiskReads counts reads of entries that were not in memory.
	DiskReads uint64
}

type counters struct {
	bytes, segments, cached            atomic.Int64
	commits, syncs, written, diskReads atomic.Uint64
}

// Stats may be called by any goroutine.
func (l *Log) Stats() Stats {
	c := &l.stats
	return Stats{
		Bytes: c.bytes.Load(), Segments: int(c.segments.Load()), Commits: c.commits.Load(),
		Syncs: c.syncs.Load(), Written: c.written.Load(), CachedBytes: c.cached.Load(),
		DiskReads: c.diskReads.Load(),
	}
}
