// Package keyspace defines the identities of the store (namespaces, slots,
// groups, replicas, revisions) and the codec of every key that is persisted.
package keyspace

import (
	"fmt"
	"strings"
	"time"

	"github.com/zeebo/xxh3"
)

// SlotCount is the number of arcs of the hash ring (DESIGN 2).
const SlotCount = 4096

// MaxKeyBytes is the longest user key (S3.7).
const MaxKeyBytes = 1024

// MaxValueBytes is the largest value (S3.8).
const MaxValueBytes = 16 << 20

type (
	// GroupID names a Raft group. Group 0 is the meta group.
	GroupID uint32
	// SlotID is one of SlotCount arcs of the hash ring.
	SlotID uint16
	// NamespaceID is the number of a namespace; never reused.
	NamespaceID uint32
	// ReplicaID is a member of a group's Raft configuration; never reused in
	// its group. It tells whether the member is a witness.
	ReplicaID uint64
	// InstanceID is one life of a replica's data on one disk; unique per node.
	InstanceID uint64
	// Index is a position in a group's log, from 1.
	Index uint64
	// Term is a Raft term.
	Term uint64
	// NodeID is the UUID of a node.
	NodeID string
)

// MetaGroup holds the cluster's metadata as records of SystemNamespace.
const MetaGroup GroupID = 0

// witnessBit marks the id of a replica that votes without data. It is the highest
// bit that every reader of JSON keeps.
const witnessBit ReplicaID = 1 << 52

// Witness reports whether the replica votes without data (DESIGN 11).
func (r ReplicaID) Witness() bool { return r&witnessBit != 0 }

// Number is the id as it is counted in its group: witnesses and others draw
// from the same numbers.
func (r ReplicaID) Number() ReplicaID { return r &^ witnessBit }

// AsWitness is the id of the witness with the number of r.
func (r ReplicaID) AsWitness() ReplicaID { return r | witnessBit }

func (r ReplicaID) String() string {
	if r.Witness() {
		return fmt.Sprintf("%dw", uint64(r.Number()))
	}
	return fmt.Sprint(uint64(r))
}

const (
	// SystemNamespace is reserved ("_system") and routed to MetaGroup, never
	// hashed.
	SystemNamespace NamespaceID = 0
	// DefaultNamespace is "default"; it exists from the start.
	DefaultNamespace NamespaceID = 1
	// FirstUserNamespace is the first id given to a created namespace.
	FirstUserNamespace NamespaceID = 16
	// TxnNamespace holds the records of transactions, at keys of TxnKey, LeaseNamespace
	// leases and what is attached to them, at keys of LeaseKey and its like. Both are
	// the store's own: records in them are moved, copied and hashed as those of users.
	TxnNamespace   NamespaceID = 1<<32 - 2
	LeaseNamespace NamespaceID = 1<<32 - 3
	// FirstReservedNamespace is the lowest of the namespaces that are the store's own.
	FirstReservedNamespace NamespaceID = 1<<32 - 16
)

// Names of the namespaces that exist from the start.
const (
	SystemNamespaceName  = "_system"
	DefaultNamespaceName = "default"
	LeaseNamespaceName   = "_lease"
)

// Revision is a hybrid logical clock reading: 48 bits of Unix milliseconds,
// then a 16-bit counter. It is the MVCC version of a write (DESIGN 2).
type Revision uint64

// MaxRevision is above every revision.
const MaxRevision = Revision(1<<64 - 1)

// RevisionAt returns the first revision of the given Unix millisecond.
func RevisionAt(unixMilli int64) Revision {
	if unixMilli < 0 {
		return 0
	}
	return Revision(uint64(unixMilli) << 16)
}

// UnixMilli returns the physical part of r.
func (r Revision) UnixMilli() int64 { return int64(r >> 16) }

// Time returns the physical part of r.
func (r Revision) Time() time.Time { return time.UnixMilli(r.UnixMilli()) }

func (r Revision) String() string { return fmt.Sprintf("%d.%d", r>>16, r&0xffff) }

// HashPart returns the part of key that decides its slot: the text inside the
// first {braces} when there is one and it is not empty, else the whole key.
func HashPart(key string) string {
	open := strings.IndexByte(key, '{')
	if open < 0 {
		return key
	}
	length := strings.IndexByte(key[open+1:], '}')
	if length <= 0 {
		return key
	}
	return key[open+1 : open+1+length]
}

// Reserved reports whether a namespace is the store's own: no user reads, writes,
// lists or watches it.
func (n NamespaceID) Reserved() bool { return n >= FirstReservedNamespace }

// SlotOf returns the slot of a user key (DESIGN 2), of a key of TxnNamespace the one
// that it names, and of a key of LeaseNamespace that of its lease.
func SlotOf(ns NamespaceID, key string) SlotID {
	switch ns { //nolint:exhaustive // the others have the slot of their hash part
	case TxnNamespace:
		return txnSlot(key)
	case LeaseNamespace:
		ns, key = DefaultNamespace, leaseOf(key)
	}
	part := HashPart(key)
	if len(part) > fewBytes {
		var buf [4 + MaxKeyBytes]byte
		return slotOf(buf[:0], ns, part)
	}
	var buf [4 + fewBytes]byte // clearing the other costs more than hashing
	return slotOf(buf[:0], ns, part)
}

const fewBytes = 60

func slotOf(b []byte, ns NamespaceID, part string) SlotID {
	b = append(b, byte(ns>>24), byte(ns>>16), byte(ns>>8), byte(ns))
	b = append(b, part...)
	return SlotID(xxh3.Hash(b) >> 52)
}
