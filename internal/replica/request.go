package replica

import (
	"slices"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// Condition guards a write; all that are set must hold, judged against the
// newest state in log order.
type Condition struct {
	// Version must equal the key's version; 0 asks for absence.
	Version *uint64
	// Revision must equal the key's revision.
	Revision     *uint64
	MustExist    bool
	MustNotExist bool
	// ValueEquals is compared with the whole value when HasValueEquals is set.
	ValueEquals    []byte
	HasValueEquals bool
}

// Op is one put or delete. The caller fills it and must not change it, nor the
// bytes it refers to, until the request's Done was called.
type Op struct {
	Delete    bool
	Namespace keyspace.NamespaceID
	Key       string
	Condition Condition

	Value       []byte
	ContentType string
	Encoding    string
	Tags        map[string]string
	Metadata    map[string]string
	// Checksum is the CRC32C of Value.
	Checksum uint32
	// TTL counts from the write's stamp; ExpiresAt is Unix milliseconds of
	// group time. At most one is set; 0 means none.
	TTL       time.Duration
	ExpiresAt int64

	Result  OpResult
	fetch   Fetched
	upload  *upload
	diskKey []byte
}

// OpResult is what happened to an Op; valid once Done was called.
type OpResult struct {
	// Err is a *fault.Error: condition_failed, or batch_aborted when another
	// operation of the request failed.
	Err error
	// Existed tells, for a delete, whether the key was there.
	Existed  bool
	Version  uint64
	Revision keyspace.Revision
	Created  keyspace.Revision
	// Expires is Unix milliseconds, 0 for never.
	Expires int64
}

// Request is a set of operations on one group that happens whole or not at
// all. Keys within one request are distinct.
type Request struct {
	Group keyspace.GroupID
	Ops   []Op
	// Deadline is on env.Clock.Mono; 0 means none. A request that was not
	// proposed by then ends with deadline_exceeded, one that was with
	// unknown_outcome.
	Deadline time.Duration
	// Done is called exactly once, on the host loop, on the caller's goroutine or,
	// with an error, on one of the host's, and must not block.
	Done func(*Request)
	// Err is set when the request as a whole failed; the ops' results are then
	// meaningless. wrong_leader, unavailable and overloaded mean that nothing
	// was executed.
	Err error

	// Clock makes this a reading of the group's clock instead of operations.
	Clock *ClockOp

	seq        uint64
	evaluation uint64
	confirmed  bool
	refused    bool
	finished   bool
}

// ClockOp confirms leadership, waits until all that the leader stamped is
// applied, and moves the clock to at least AtLeast within an applied ceiling
// (DESIGN 8). Afterwards nothing is written at or below Result.
type ClockOp struct {
	AtLeast keyspace.Revision
	Result  keyspace.Revision
}

// Fetched is what the prefetch found for one key outside the core.
type Fetched struct {
	Header format.Header
	// Delta is the active delta when the view of the fetch was taken: while it
	// is in memory, every later write of the key is found there.
	Delta    mvcc.DeltaID
	Instance keyspace.InstanceID
	// Equal is the outcome of ValueEquals against Header.Revision.
	Equal bool
	Valid bool
}

// Uploading reports whether the core keeps chunks of one of the values: such a
// request ends on the loop.
func (r *Request) Uploading() bool {
	return slices.ContainsFunc(r.Ops, func(op Op) bool { return op.upload != nil })
}

// DiskKey is the operation's key in the engine, without instance.
func (op *Op) DiskKey() []byte {
	if op.diskKey == nil {
		op.diskKey = keyspace.AppendDataKey(nil, op.Namespace, []byte(op.Key))
	}
	return op.diskKey
}

// SetFetched takes the result of a prefetch.
func (op *Op) SetFetched(f Fetched) { op.fetch = f }
