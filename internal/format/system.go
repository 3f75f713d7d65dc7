package format

import (
	"encoding/json"
	"strconv"
	"strings"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Keys of the reserved namespace. Their values are the JSON records below;
// readers ignore fields they do not know.
const (
	SystemClusterKey      = "cluster"
	SystemNodePrefix      = "node/"
	SystemGroupPrefix     = "group/"
	SystemNamespacePrefix = "namespace/"
	SystemNamespaceSeqKey = "namespace-seq"
	SystemJobPrefix       = "job/"
)

// SystemNodeKey returns the key of a NodeRecord.
func SystemNodeKey(id keyspace.NodeID) string { return SystemNodePrefix + string(id) }

// SystemGroupKey returns the key of a GroupRecord.
func SystemGroupKey(g keyspace.GroupID) string {
	return SystemGroupPrefix + strconv.FormatUint(uint64(g), 10)
}

// SystemGroupOf is the inverse of SystemGroupKey.
func SystemGroupOf(key string) (keyspace.GroupID, bool) {
	digits, ok := strings.CutPrefix(key, SystemGroupPrefix)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return keyspace.GroupID(n), err == nil
}

// SystemNamespaceKey returns the key of a NamespaceRecord.
func SystemNamespaceKey(name string) string { return SystemNamespacePrefix + name }

// SystemJobKey returns the key of a JobRecord.
func SystemJobKey(id string) string { return SystemJobPrefix + id }

// ClusterRecord is what hardly changes about a cluster.
type ClusterRecord struct {
	ID                string `json:"id"`
	Name              string `json:"name"`
	Groups            int    `json:"groups"`
	ReplicationFactor int    `json:"replication_factor"`
	Created           int64  `json:"created"` // Unix milliseconds
	// RecoveryEpoch counts the recoveries after a loss of quorums.
	RecoveryEpoch uint64 `json:"recovery_epoch,omitempty"`
}

// NodeRecord is a member of the cluster; addresses are host:port.
type NodeRecord struct {
	ID     keyspace.NodeID `json:"id"`
	Name   string          `json:"name"`
	HTTP   string          `json:"http,omitempty"`
	GRPC   string          `json:"grpc,omitempty"`
	Peer   string          `json:"peer"`
	Gossip string          `json:"gossip,omitempty"`
	Zone   string          `json:"zone,omitempty"`
	// ReplacedBy names the node that came back under the same name with an
	// empty disk. A replaced node never returns.
	ReplacedBy keyspace.NodeID `json:"replaced_by,omitempty"`
	// Removed says why the node does not belong to the cluster any more. It
	// never returns; its name is free.
	Removed string `json:"removed,omitempty"`
}

// GroupRecord tells who the members of a group are; its leader keeps it true.
type GroupRecord struct {
	Members []MemberRecord `json:"members"`
}

// MemberRecord is a replica in a GroupRecord.
type MemberRecord struct {
	Replica keyspace.ReplicaID `json:"replica"`
	Node    keyspace.NodeID    `json:"node"`
	Learner bool               `json:"learner,omitempty"`
}

// States of a namespace.
const (
	NamespaceActive   = "active"
	NamespaceDeleting = "deleting"
)

// NamespaceRecord is a namespace; ids are never reused.
type NamespaceRecord struct {
	ID      keyspace.NamespaceID `json:"id"`
	Created int64                `json:"created"` // Unix milliseconds
	State   string               `json:"state"`
	Job     string               `json:"job,omitempty"`
}

// NamespaceSeqRecord holds the next id to give.
type NamespaceSeqRecord struct {
	Next keyspace.NamespaceID `json:"next"`
}

// States of a job.
const (
	JobRunning = "running"
	JobDone    = "done"
	JobFailed  = "failed"
)

// JobDeleteNamespace is the kind of job that deletes a namespace's keys.
const JobDeleteNamespace = "delete-namespace"

// JobRecord is a long task that the leader of the meta group runs.
type JobRecord struct {
	ID          string               `json:"id"`
	Kind        string               `json:"kind"`
	State       string               `json:"state"`
	Namespace   string               `json:"namespace,omitempty"`
	NamespaceID keyspace.NamespaceID `json:"namespace_id,omitempty"`
	Done        uint64               `json:"done"`
	Total       uint64               `json:"total"`
	Message     string               `json:"message,omitempty"`
	Started     int64                `json:"started"`            // Unix milliseconds
	Finished    int64                `json:"finished,omitempty"` // Unix milliseconds
}

// EncodeSystem returns the value of a system record.
func EncodeSystem(record any) []byte {
	b, err := json.Marshal(record)
	if err != nil {
		panic("format: system record does not encode: " + err.Error())
	}
	return b
}

// DecodeSystem decodes the value of a system record.
func DecodeSystem[T any](key string, value []byte) (T, error) {
	var record T
	if err := json.Unmarshal(value, &record); err != nil {
		return record, fault.Wrap(fault.Corruption, err, "system record does not decode", "key", key)
	}
	return record, nil
}
