// Package replica is the core of one group's copy on one node: it evaluates
// operations, builds log entries, applies them and keeps the group's clock. It
// has no goroutine, does no I/O and reads no wall clock; the host drives it.
package replica

import (
	"math"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// Memory is what the core reads and writes: the deltas of this node, which are
// in memory. *mvcc.Store is one.
type Memory interface {
	// Latest returns the newest version of key in the deltas.
	Latest(inst keyspace.InstanceID, key []byte) (value []byte, rev keyspace.Revision, del, ok bool)
	// Oldest is the oldest delta still in memory.
	Oldest() mvcc.DeltaID
	// Insert adds a version; it keeps key and value.
	Insert(inst keyspace.InstanceID, key []byte, rev keyspace.Revision, value []byte, del bool)
	// InsertAll inserts all of writes.
	InsertAll(inst keyspace.InstanceID, writes []format.Write)
}

// Config is fixed for the life of a Core.
type Config struct {
	Group   keyspace.GroupID
	Replica keyspace.ReplicaID
	// ElectionTimeout bounds how far the ceiling runs ahead of the clock.
	ElectionTimeout time.Duration
	// MaxEntryBytes and MaxEntryOps bound one log entry.
	MaxEntryBytes, MaxEntryOps int
	// ChunkBytes is the size of a chunk; larger values are chunked.
	ChunkBytes int
	// MaxQueueOps and MaxQueueBytes bound what waits for evaluation.
	MaxQueueOps, MaxQueueBytes int
	// MaxFreeze is how long a freeze may wait for prepared transactions.
	MaxFreeze time.Duration
	// Blocked, when set, is called when a request meets a prepared transaction, and
	// now and then while it waits behind it.
	Blocked func(*format.Prepared)
	Bugs    invariant.Bug
}

// Now is a reading of the clocks. Physical is the node's clock clipped to a
// quorum of its peers' in Unix milliseconds, 0 when no quorum agrees.
type Now struct {
	Physical int64
	Mono     time.Duration
}

// Core is one group's copy.
//
// A write passes through it as: Enqueue, Evaluate (conditions against the
// newest state in log order, finished records out), Proposed or Dropped (what
// raft said), Apply (the same entry back from the log, on every replica), and
// the request's Done. What is evaluated but not yet applied lives in the
// leadership's overlay, which dies with its term.
type Core struct {
	cfg      Config
	mem      Memory
	instance keyspace.InstanceID
	state    format.State
	// closed >= state.Closed: advanced beyond entries by an idle leader.
	closed keyspace.Revision
	lead   *leadership
	queue  queue
	entry  format.Entry // scratch of Apply
	// earliest deadline that was applied since TakeDeadline.
	earliest int64
	// seen is scratch of one evaluation, record that of putRecord.
	seen   []current
	record []byte
	// deferred is filled by BugHalfEntry only.
	deferred []format.Write
}

// New returns the core of a replica whose applied state is s.
func New(cfg Config, mem Memory, inst keyspace.InstanceID, s format.State) *Core {
	return &Core{cfg: cfg, mem: mem, instance: inst, state: s, closed: s.Closed, earliest: math.MaxInt64}
}

// Reset replaces the applied state by a snapshot's.
func (c *Core) Reset(inst keyspace.InstanceID, s format.State) {
	invariant.Assert(s.Index >= c.state.Index, "group %d replica %d: snapshot at %d behind applied %d",
		c.cfg.Group, c.cfg.Replica, s.Index, c.state.Index)
	c.instance, c.state = inst, s
	c.closed = max(c.closed, s.Closed)
}

// State is the applied state; its slices must not be changed.
func (c *Core) State() *format.State { return &c.state }

// Instance is the current life of the replica's data.
func (c *Core) Instance() keyspace.InstanceID { return c.instance }

// Closed is the revision at or below which nothing is ever written.
func (c *Core) Closed() keyspace.Revision { return c.closed }

// Settled is the revision up to which the replica has applied everything that
// will ever be: no entry after the applied one writes at or below it. Stamps grow
// in log order, so that the newest applied one is settled as well as what is
// closed; but what is prepared may still be committed, at its stamp or above.
func (c *Core) Settled() keyspace.Revision {
	return max(c.closed, min(c.state.LastRev, c.OldestPrepared()-1))
}

// ObserveClosed takes a leader's promise made at an applied position.
func (c *Core) ObserveClosed(term keyspace.Term, index keyspace.Index, closed keyspace.Revision) {
	if c.lead == nil && term == c.state.Term && index <= c.state.Index && closed > c.closed {
		c.closed = closed
	}
}
