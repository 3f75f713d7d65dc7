package client

import "time"

// Consistency is the level a read asks for or was served at.
type Consistency int

const (
	// Linearizable reads see every write that was acknowledged before them.
	Linearizable Consistency = iota
	// BoundedStaleness reads come from one replica and may be as old as the
	// bound the caller gave.
	BoundedStaleness
	// Snapshot lists see every write that was acknowledged before them. Of writes
	// that run beside them they may have a later one and not an earlier one.
	Snapshot
)

func (c Consistency) String() string {
	switch c {
	case BoundedStaleness:
		return "bounded_staleness"
	case Snapshot:
		return "snapshot"
	case Linearizable:
	}
	return "linearizable"
}

// Record is one version of a key with all that is stored beside it.
type Record struct {
	Key string
	// Value belongs to the caller. It is nil where only the key was asked for.
	Value       []byte
	ContentType string
	Encoding    string
	// Checksum is the CRC32C of the value.
	Checksum  uint32
	CreatedAt time.Time
	UpdatedAt time.Time
	// ExpiresAt is the zero time for a key that does not expire.
	ExpiresAt time.Time
	// Version counts this key's writes, from 1 at creation.
	Version uint64
	// Revision is the store-wide MVCC revision of this write.
	Revision uint64
	// CreatedRevision is that of the write that created the key.
	CreatedRevision uint64
	// Lease is what the key is attached to, empty for nothing.
	Lease    string
	Tags     map[string]string
	Metadata map[string]string
	// Size is the value's size in bytes, also where Value was left out.
	Size uint64
	// Read says how a Get was served; it is zero in pages and batches.
	Read ReadInfo
}

// ReadInfo says how a read was served.
type ReadInfo struct {
	Consistency Consistency
	// Revision is the group's clock when the read was served.
	Revision uint64
	// Age is an upper bound of the answer's age; 0 for linearizable reads.
	Age time.Duration
}

// Condition guards a write. All parts that are set must hold.
type Condition struct {
	// Version the key must have; 0 means that the key must not exist.
	Version *uint64
	// Revision the key must have.
	Revision     *uint64
	MustExist    bool
	MustNotExist bool
	// Created is the revision at which the key must have been created.
	Created *uint64
	// Lease is what the key must be attached to.
	Lease string
	// ValueEquals must be the value of the existing key when HasValueEquals.
	ValueEquals    []byte
	HasValueEquals bool
}

func (c *Condition) isZero() bool {
	return c.Version == nil && c.Revision == nil && !c.MustExist && !c.MustNotExist && !c.HasValueEquals && c.Created == nil && c.Lease == ""
}

// PutItem is one write: what Put builds from its arguments and options, and
// what BatchPut takes.
type PutItem struct {
	Key         string
	Value       []byte
	ContentType string
	Encoding    string
	// Checksum is the CRC32C of Value that the server verifies before it
	// writes; nil lets this package compute it.
	Checksum *uint32
	// TTL is in whole seconds. At most one of TTL and ExpiresAt is set; a time that
	// is not later than the clock of the key's group is refused.
	TTL       time.Duration
	ExpiresAt time.Time
	Tags      map[string]string
	Metadata  map[string]string
	Condition Condition
	// Lease attaches the key to a lease.
	Lease string

	requestID string
	// fence is that of a Put.
	fence *Fence
}

// touchItem is one change of a deadline.
type touchItem struct {
	key       string
	ttl       time.Duration
	expiresAt time.Time
	persist   bool
	condition Condition
}

// DeleteItem is one deletion of a BatchDelete.
type DeleteItem struct {
	Key       string
	Condition Condition

	requestID string
	// fence is that of a Delete.
	fence *Fence
}

// PutResult is what a write answers.
type PutResult struct {
	Version   uint64
	Revision  uint64
	CreatedAt time.Time
	UpdatedAt time.Time
	ExpiresAt time.Time
	Checksum  uint32
	// Err is the item's own failure; only in the results of BatchPut.
	Err error
}

// DeleteResult is what a deletion answers.
type DeleteResult struct {
	// Existed says whether the key was there.
	Existed bool
	// Revision of the deletion; 0 when the key was not there.
	Revision uint64
	// Err is the item's own failure; only in the results of BatchDelete.
	Err error
}

// GetResult is one item of a BatchGet. A key that is not there has
// ErrNotFound in Err.
type GetResult struct {
	Record Record
	Err    error
}

// Page is one page of a List.
type Page struct {
	Records []Record
	// Token continues after this page on the same snapshot; empty on the last.
	Token string
	// Revision is the snapshot's.
	Revision uint64
	// Count is set by CountOnly.
	Count uint64
	// Consistency is the level at which the snapshot was chosen, Age how old it was
	// at most then.
	Consistency Consistency
	Age         time.Duration
}

// milliTime turns Unix milliseconds into a time, 0 into the zero time.
func milliTime(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}
