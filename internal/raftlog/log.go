// Package raftlog is the one durable log of a node: the entries, hard states
// and checkpoints of all its Raft groups, written together with one fdatasync.
// DESIGN.md beside this file has the format and the rules of recovery.
package raftlog

import (
	"errors"
	"log/slog"
	"sort"
	"sync"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Defaults of Options.
const (
	DefaultSegmentBytes = 64 << 20
	DefaultCacheBytes   = 64 << 20
	minSegmentBytes     = 16 << 10
)

// ErrFailed is what every call returns after a write or an fsync failed: what
// is on the disk is not known any more, and the node has to stop.
var ErrFailed = errors.New("the raft log has failed")

// Options configure a log; zero values take defaults.
type Options struct {
	// SegmentBytes is the size of a segment file (64 MB).
	SegmentBytes int64
	// CacheBytes bounds the entries kept in memory over all groups (64 MB).
	CacheBytes int64
	// ReserveBytes stay free on the file system: segments are not prepared
	// ahead, and HasSpace says no, when they would not (0).
	ReserveBytes int64
	Logger       *slog.Logger
	// Inline prepares and removes segments within Commit and Compact instead
	// of on a goroutine of the log's own: for simulation, where one thread
	// must give one history.
	Inline bool
	// Rand salts segments (the system's).
	Rand env.Rand
	// Clock times syncs for OnSync (the system's).
	Clock env.Clock
	// OnSync is told how long each sync of a commit took. It must not block.
	OnSync func(time.Duration)
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	o.SegmentBytes = padded(max(o.SegmentBytes, minSegmentBytes))
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Rand == nil {
		o.Rand = system.Rand()
	}
	if o.Clock == nil {
		o.Clock = system.Clock()
	}
	return o
}

// Log is a node's log. Its methods belong to one goroutine (the host loop),
// except Stats and Meta, which any may call, and PendingSync.Run.
//
// Frames have consecutive numbers over all segments. A frame goes to the last
// segment of segments; the ones before it are durable whole. The next segment
// is prepared (allocated, zeroed, headed, durable) before it is needed, so a
// commit touches neither the file system's metadata nor its free space.
type Log struct {
	fs   env.FS
	dir  string
	opts Options
	log  *slog.Logger

	groups map[keyspace.GroupID]*groupLog
	cache  entryCache

	// segments is ascending by number; the last one is written to.
	segments []*segment
	ahead    *preparer

	nextFrame uint64
	// durable is the highest frame covered by a sync that succeeded.
	durable uint64
	// reclaimDue: segments may have become removable.
	reclaimDue bool
	// unscoped: damage was found, now or once, that could belong to any group.
	unscoped bool
	// epoch numbers the calls of Commit, for groupLog.plan.
	epoch  uint64
	failed error
	closed bool

	// buf has the frames at the end of the current segment that no write was
	// begun of, writing those whose writes were, beside the log. spare is a buffer
	// for reuse.
	buf      []byte
	bufFirst uint64 // number of the first frame of buf
	writing  []*PendingSync
	spare    []byte

	metaMu sync.RWMutex
	meta   map[string][]byte

	stats counters
}

// Groups returns what is known of each group that ever had a replica here, by
// group number. It is current, not only as of Open.
func (l *Log) Groups() []GroupInfo {
	infos := make([]GroupInfo, 0, len(l.groups))
	for _, g := range l.sortedGroups() {
		infos = append(infos, g.info())
	}
	return infos
}

func (l *Log) sortedGroups() []*groupLog {
	groups := make([]*groupLog, 0, len(l.groups))
	for _, g := range l.groups {
		groups = append(groups, g)
	}
	sort.Slice(groups, func(i, j int) bool { return groups[i].id < groups[j].id })
	return groups
}

// HighestRemoved returns the highest replica id of the group that ever lived
// here and does not any more; 0 if none. Ids up to it never live here again.
func (l *Log) HighestRemoved(group keyspace.GroupID) keyspace.ReplicaID {
	if g := l.groups[group]; g != nil {
		return g.removed
	}
	return 0
}

// MayCreate reports whether a message from the cluster may bring the replica
// to life here: it never lived here before, as far as the log can tell. After
// damage that hides which replicas lived here, unknown groups are refused.
func (l *Log) MayCreate(group keyspace.GroupID, replica keyspace.ReplicaID) bool {
	g := l.groups[group]
	if g == nil {
		return !l.unscoped
	}
	return (!g.damaged || g.replica != 0) && replica > max(g.removed, g.replica)
}

// Meta returns a small fact of the node, as of the last Commit that set it.
// The value must not be changed.
func (l *Log) Meta(key string) ([]byte, bool) {
	l.metaMu.RLock()
	defer l.metaMu.RUnlock()
	v, ok := l.meta[key]
	return v, ok
}

// Damaged reports whether Open found durable records that were lost or
// altered and whose replicas have not been removed since.
func (l *Log) Damaged() bool {
	for _, g := range l.groups {
		if g.damaged {
			return true
		}
	}
	return false
}

// Err returns the error that made the log unusable, or nil.
func (l *Log) Err() error { return l.failed }

// fail poisons the log.
func (l *Log) fail(cause error, doing string) error {
	l.failed = fault.Wrap(fault.Unavailable, errors.Join(ErrFailed, cause), "raft log: "+doing)
	l.log.Error("raft log failed; the node must stop", "doing", doing, "error", cause)
	return l.failed
}

// Hidden reports whether damage was ever found that no group can be blamed
// for: replicas and facts (Meta) that the log should know may be missing. It
// stays true for the life of the directory.
func (l *Log) Hidden() bool { return l.unscoped }

// Close makes everything durable, notes that in the log, and ends the
// goroutine. It is not needed for safety: recovery is the same without it.
func (l *Log) Close() error {
	if l.closed {
		return nil
	}
	l.closed = true
	var err error
	if l.failed == nil {
		err = l.mark()
	}
	l.ahead.close()
	for _, s := range l.segments {
		err = errors.Join(err, s.file.Close())
	}
	if l.failed == nil {
		l.failed = fault.New(fault.Unavailable, "raft log: closed")
	}
	return err
}
