// Package host runs the replicas of one node: one loop over all groups that
// ticks, evaluates, proposes, writes the shared log with one fdatasync, applies
// and answers. It is split by the stage of the path: inbox, tick, propose,
// ready, apply, read, snapshot, confchange, flush.
package host

import (
	"context"
	"log/slog"
	"time"

	"kvstore/internal/engine"
	"kvstore/internal/env"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/raftlog"

	api "kvstore/api/kvstore/v1"
)

// Outbound sends messages to other nodes. Send queues and never blocks; what
// does not fit is dropped, raft repeats it. It keeps nothing of the message. Flush
// hands over what was queued.
type Outbound interface {
	Send(to keyspace.NodeID, m *api.GroupMessage)
	Flush()
}

// SnapshotSender streams a snapshot; next returns io.EOF at the end. It
// returns nil once the receiver has made the snapshot durable and accepted it.
type SnapshotSender interface {
	SendSnapshot(ctx context.Context, h *api.SnapshotHeader, next func() ([]byte, error)) error
}

// Hooks are called from the loop for metrics; nil ones are skipped.
type Hooks struct {
	Election    func(group keyspace.GroupID, planned bool)
	Commit      func(d time.Duration)
	Batch       func(operations int)
	ReadBatch   func(reads int)
	Flush       func(d time.Duration, bytes int64)
	Merge       func(d time.Duration, bytes int64)
	Move        func(d time.Duration, bytes int64)
	Snapshot    func(sent bool, bytes int64)
	Overloaded  func()
	LoopLatency func(d time.Duration)
	// Blocked: something waits behind a prepared transaction; called anew now and
	// then while it does. It must not block.
	Blocked func(group keyspace.GroupID, p *format.Prepared)
	// Stall: a sync of the raft log, or an iteration of the loop, has run for
	// StallAfter; the second is called beside the loop.
	Stall func()
	// Locked: a reader, on whose goroutine it is called, has waited for a moment for
	// the end of a prepared transaction. Once per transaction, and again at intervals
	// while somebody waits. It must not block.
	Locked func(group keyspace.GroupID, t *format.Prepared)
	// LeaseExpired: the deadline of a lease that is led here, by its key in
	// keyspace.LeaseNamespace, has passed on group time. The sweep leaves it where it is, and says so about once
	// per second until it is gone.
	LeaseExpired func(group keyspace.GroupID, key string)
	// Detached: a key that was attached to a lease has expired and was deleted. It must
	// not block.
	Detached func(ns keyspace.NamespaceID, key, lease string)
}

// Options configure a Host. Zero numbers take defaults.
type Options struct {
	Node      keyspace.NodeID
	ClusterID string
	Log       *raftlog.Log
	Store     *mvcc.Store
	Engine    engine.Engine
	Out       Outbound
	Snapshots SnapshotSender
	Clock     env.Clock
	Rand      env.Rand
	Logger    *slog.Logger
	Hooks     Hooks

	// TickInterval is raft's tick; ElectionTicks of them without a leader
	// start an election.
	TickInterval  time.Duration
	ElectionTicks int
	// Window is how long history is kept.
	Window time.Duration
	// MaxClockOffset is how far the node's clock may be from its peers'.
	MaxClockOffset time.Duration
	// StallAfter is how long a sync of the raft log may run, or room may be
	// missing, before the node gives up its leaderships; it leads nothing half an
	// election timeout after the disk began to hang for so long.
	StallAfter time.Duration
	// LagLimit is how long a leader's own sync may wait for one that others need, and
	// how long ago they must have needed one.
	LagLimit time.Duration

	MaxEntryBytes, MaxEntryOps int
	ChunkBytes                 int
	// MaxQueueOps and MaxQueueBytes bound what waits per group.
	MaxQueueOps, MaxQueueBytes int
	// MaxWaitingReads bounds reads that wait for confirmation, per group.
	MaxWaitingReads int
	// MaxUncommittedBytes and MaxInflightBytes bound raft's own queues, per group.
	MaxUncommittedBytes, MaxInflightBytes uint64
	// LogBytes is the size the shared log may reach before followers that lag
	// get snapshots instead of entries.
	LogBytes int64
	// LogTail is how many entries behind its checkpoint a replica keeps for
	// followers while the log has room.
	LogTail int
	// ScanRecords bounds the records that one page of a scan visits, matching or
	// not; a page that ends by it may be empty and have more behind it.
	ScanRecords int
	// FeedBytes bounds the latest writes that are kept for those who watch, per
	// watched group.
	FeedBytes int
	// MaxFreeze is how long writes of a slot may wait for its move, before the
	// leader undoes the freeze.
	MaxFreeze time.Duration
	// MaxSnapshots bounds snapshots sent at once.
	MaxSnapshots int

	// Go runs a background job; the default is an owned goroutine. The
	// simulation runs jobs as events of its own.
	Go   func(job func(context.Context))
	Bugs invariant.Bug

	// Witness: this node votes without data. All replicas here are witnesses,
	// and on other nodes none is.
	Witness bool
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (o *Options) setDefaults() {
	def(&o.TickInterval, 100*time.Millisecond)
	def(&o.ElectionTicks, 10)
	def(&o.Window, 10*time.Minute)
	def(&o.MaxClockOffset, 500*time.Millisecond)
	def(&o.StallAfter, time.Second)
	def(&o.LagLimit, time.Millisecond)
	def(&o.MaxEntryBytes, 1<<20)
	def(&o.MaxEntryOps, 4096)
	def(&o.ChunkBytes, 128<<10)
	def(&o.MaxQueueOps, 16384)
	def(&o.MaxQueueBytes, 64<<20)
	def(&o.MaxWaitingReads, 65536)
	def(&o.MaxUncommittedBytes, 64<<20)
	def(&o.MaxInflightBytes, 16<<20)
	def(&o.LogBytes, 1<<30)
	def(&o.LogTail, 10000)
	def(&o.ScanRecords, 50_000)
	def(&o.FeedBytes, 4<<20)
	def(&o.MaxFreeze, time.Second)
	def(&o.MaxSnapshots, 2)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

func (o *Options) electionTimeout() time.Duration {
	return o.TickInterval * time.Duration(o.ElectionTicks)
}
