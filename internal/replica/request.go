package replica

import (
	"time"
	"unsafe"

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
	// Created must equal the revision at which the key was created, Lease what it is
	// attached to.
	Created *uint64
	Lease   *string
	// ValueEquals is compared with the whole value when HasValueEquals is set.
	HasValueEquals bool
	ValueEquals    []byte
}

// Op is one put, delete or, in a transaction, read. The caller fills it and must
// not change it, nor the bytes it refers to, until the request's Done was called.
type Op struct {
	Delete bool
	// Read tells what is there and writes nothing. Its value is not part of the
	// result: the revision that was seen names it. Its condition keeps the others
	// from happening as that of a write does.
	Read bool
	// Touch changes the deadline of a key that exists and nothing else of it: it
	// writes a version with the same value.
	Touch     bool
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
	// group time, and later than that. At most one is set; 0 means none.
	TTL       time.Duration
	ExpiresAt int64
	// Lease is what a put attaches the key to. Of a delete it is the lease that the
	// key was attached to and that has Ended: what expired is deleted then too, so
	// that nothing of it stays.
	Lease string
	Ended LeaseEnd

	// slot is that of the key once slotted.
	slotted bool
	slot    keyspace.SlotID

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
	// Existed tells, for a delete or a read, whether the key was there.
	Existed bool
	// Checksum is that of the value that was written.
	Checksum uint32
	// Of a put the new version's, of a read the one's that was seen.
	Version  uint64
	Revision keyspace.Revision
	Created  keyspace.Revision
	// Expires is Unix milliseconds, 0 for never.
	Expires int64
	// Detached, of a write, is the lease that the replaced version was attached to
	// and the new one is not.
	Detached string
}

// LeaseEnd says why a lease ended, and with it the keys that were attached to it.
type LeaseEnd uint8

// The ends of leases.
const (
	LeaseHolds LeaseEnd = iota
	LeaseExpired
	LeaseRevoked
)

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
	// Slots makes this a step of a move of slots.
	Slots *SlotOp
	// Sweep makes this a deletion of keys that have expired.
	Sweep *SweepOp
	// Txn makes this a transaction, which chooses its operations: the caller
	// leaves Ops empty.
	Txn *TxnOp
	// Order makes this a step of a transaction over several groups.
	Order *OrderOp
	// Low makes this a reading of the low-water mark, Forget a deletion of records of
	// transactions.
	Low    *LowOp
	Forget *ForgetOp

	// ID, when it is not zero, makes the group remember how the operations or the
	// transaction ended, in a record in the same entry; also that a condition did
	// not hold. Encode is called at the evaluation, perhaps several times, and
	// returns the answer to keep. What is remembered already is answered with
	// Remembered, and nothing is executed. With the error that the id was begun over
	// several groups, Remembered is what the participant's record keeps of it.
	ID         keyspace.TxnID
	Encode     func(*Request) []byte
	Remembered []byte
	outcome    *Op // fetches what is remembered

	seq        uint64
	evaluation uint64
	confirmed  bool
	refused    bool
	// denied is the error that a refusal ends with once it is confirmed.
	denied   error
	finished bool
	// patience is when it waits for holds no longer, once it met one.
	patience time.Duration
}

// Fetched is what the prefetch found for one key outside the core.
type Fetched struct {
	Header format.Header
	// Delta is the active delta when the view of the fetch was taken: while it
	// is in memory, every later write of the key is found there.
	Delta    mvcc.DeltaID
	Instance keyspace.InstanceID
	// Progress is that of the leader before the view was taken.
	Progress Progress
	// Equal is the outcome of ValueEquals against Header.Revision.
	Equal bool
	Valid bool
	// Record is the encoded record, for operations that need it (NeedsRecord) and for
	// those that Request.Records yields.
	Record []byte
}

// Uploading reports whether the core keeps chunks of one of the values: such a
// request ends on the loop.
func (r *Request) Uploading() bool {
	for range r.uploads {
		return true
	}
	return false
}

// uploads yields those of the request.
func (r *Request) uploads(yield func(*upload) bool) {
	for _, ops := range r.Sets() {
		for i := range ops {
			if u := ops[i].upload; u != nil && !yield(u) {
				return
			}
		}
	}
	if r.Slots == nil {
		return
	}
	for i := range r.Slots.Keys {
		for _, u := range r.Slots.Keys[i].uploads {
			if u != nil && !yield(u) {
				return
			}
		}
	}
}

// dataKeyRoom is what a disk key has beside a key without NULs.
const dataKeyRoom = 7

// DiskKey is the operation's key in the engine, without instance.
func (op *Op) DiskKey() []byte {
	if op.diskKey == nil {
		room := make([]byte, 0, len(op.Key)+dataKeyRoom)
		op.diskKey = keyspace.AppendDataKey(room, op.Namespace, []byte(op.Key))
	}
	return op.diskKey
}

// diskKeyText is the disk key as a string, in the same memory, which nobody changes.
func (op *Op) diskKeyText() string {
	return unsafe.String(unsafe.SliceData(op.diskKey), len(op.diskKey)) //nolint:gosec // built once, and only read from then on
}

// BuildDiskKeys builds the disk keys of operations in memory that they share, so that
// DiskKey has nothing to do.
func BuildDiskKeys(ops []Op) {
	room := 0
	for i := range ops {
		if ops[i].diskKey == nil {
			room += len(ops[i].Key) + dataKeyRoom
		}
	}
	all := make([]byte, 0, room)
	for i := range ops {
		op := &ops[i]
		if op.diskKey != nil {
			continue
		}
		begin := len(all)
		all = keyspace.AppendDataKey(all, op.Namespace, []byte(op.Key))
		op.diskKey = all[begin:len(all):len(all)]
	}
}

// keySlot is the slot of the operation's key.
func (op *Op) keySlot() keyspace.SlotID {
	if !op.slotted {
		op.slotted, op.slot = true, keyspace.SlotOf(op.Namespace, op.Key)
	}
	return op.slot
}

// NeedsRecord reports whether the operation needs more of a record than its
// header.
func (op *Op) NeedsRecord() bool { return op.Touch }

// SetFetched takes the result of a prefetch.
func (op *Op) SetFetched(f Fetched) { op.fetch = f }
