package keyspace

import (
	"crypto/sha256"
	hexadecimal "encoding/hex"
	"strings"

	"kvstore/internal/fault"
)

// All records of a lease lie in one slot, and move with it: its keys in
// LeaseNamespace are
//
//	[id][0x00]            the lease itself; it expires with the lease
//	[id][0x00]!           the mark, which is there until all is cleaned up
//	[id][0x00]k[hash]     what is attached, one record for each key
//
// and the slot is the one that a key like the id has in DefaultNamespace: a lease
// whose id has the {hash part} of some keys there lies with them, and is attached
// to them within one group.

// MaxLeaseIDBytes is the longest id of a lease.
const MaxLeaseIDBytes = 128

const (
	leaseEnd      = "\x00"
	leaseMark     = "!"
	leaseAttached = "k"
	// attachedHashBytes is how much of a SHA-256 names an attached key.
	attachedHashBytes = 20
)

// ValidateLeaseID reports whether a user may call a lease so.
func ValidateLeaseID(id string) error {
	switch {
	case id == "":
		return fault.New(fault.InvalidArgument, "lease id is empty", "limit_min_bytes", 1, "actual_bytes", 0)
	case len(id) > MaxLeaseIDBytes:
		return fault.New(fault.InvalidArgument, "lease id is too long", "limit_bytes", MaxLeaseIDBytes, "actual_bytes", len(id))
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c > '~' {
			return fault.New(fault.InvalidArgument, "lease id holds a character that is not allowed",
				"allowed", "printable ASCII without spaces", "offset", i)
		}
	}
	return nil
}

// LeaseKey is the key of a lease's own record.
func LeaseKey(id string) string { return id + leaseEnd }

// LeaseMarkKey is the key of a lease's mark.
func LeaseMarkKey(id string) string { return id + leaseEnd + leaseMark }

// LeaseKeysPrefix begins the keys of what is attached to a lease.
func LeaseKeysPrefix(id string) string { return id + leaseEnd + leaseAttached }

// LeaseAttachedKey is the key of the record that says that a key is attached.
func LeaseAttachedKey(id, namespace, key string) string {
	sum := sha256.Sum256([]byte(namespace + "\x00" + key))
	return LeaseKeysPrefix(id) + hexadecimal.EncodeToString(sum[:attachedHashBytes])
}

// LeaseRecord says what a key of LeaseNamespace is.
type LeaseRecord byte

// The records of a lease.
const (
	LeaseUnknown LeaseRecord = iota
	LeaseItself
	LeaseMarked
	LeaseAttached
)

// ParseLeaseKey takes a key of LeaseNamespace apart.
func ParseLeaseKey(key string) (id string, what LeaseRecord) {
	id, rest, ok := strings.Cut(key, leaseEnd)
	switch {
	case !ok || id == "":
		return "", LeaseUnknown
	case rest == "":
		return id, LeaseItself
	case rest == leaseMark:
		return id, LeaseMarked
	case strings.HasPrefix(rest, leaseAttached):
		return id, LeaseAttached
	}
	return "", LeaseUnknown
}

// leaseOf is the id that a key of LeaseNamespace begins with.
func leaseOf(key string) string {
	id, _, _ := strings.Cut(key, leaseEnd)
	return id
}
