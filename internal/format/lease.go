package format

import (
	"encoding/json"

	"kvstore/internal/fault"
)

// The values of the records in the namespace of leases (keyspace.LeaseKey) are the
// JSON of these. Members are only added.

// LeaseRecord is the value of a lease and of its mark.
type LeaseRecord struct {
	// TTLSeconds is what was granted.
	TTLSeconds int64 `json:"ttl_seconds"`
	// Revoked, of a mark: the lease did not end by itself.
	Revoked bool `json:"revoked,omitempty"`
}

// AttachedRecord says which key is attached.
type AttachedRecord struct {
	Namespace string `json:"namespace"`
	Key       string `json:"key"`
}

// EncodeLease returns the value of such a record.
func EncodeLease[T LeaseRecord | AttachedRecord](r T) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // plain structs always encode
	}
	return b
}

// DecodeLease is the inverse of EncodeLease. Errors are fault.Corruption.
func DecodeLease[T LeaseRecord | AttachedRecord](b []byte) (r T, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fault.Wrap(fault.Corruption, err, "record of a lease is damaged", "length", len(b))
	}
	return r, nil
}
