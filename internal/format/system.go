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
	SystemTargetPrefix    = "target/"
	SystemPendingPrefix   = "pending/"
	SystemDeadPrefix      = "dead/"
	SystemBalanceKey      = "balance"
)

// SystemNodeKey returns the key of a NodeRecord.
func SystemNodeKey(id keyspace.NodeID) string { return SystemNodePrefix + string(id) }

// SystemGroupKey returns the key of a GroupRecord.
func SystemGroupKey(g keyspace.GroupID) string {
	return SystemGroupPrefix + strconv.FormatUint(uint64(g), 10)
}

// SystemTargetKey returns the key of a TargetRecord.
func SystemTargetKey(g keyspace.GroupID) string {
	return SystemTargetPrefix + strconv.FormatUint(uint64(g), 10)
}

// SystemPendingKey returns the key of a PendingRecord.
func SystemPendingKey(name string) string { return SystemPendingPrefix + name }

// SystemDeadKey returns the key of a DeadRecord.
func SystemDeadKey(id keyspace.NodeID) string { return SystemDeadPrefix + string(id) }

// SystemGroupOf is the inverse of SystemGroupKey.
func SystemGroupOf(key string) (keyspace.GroupID, bool) {
	return groupAfter(SystemGroupPrefix, key)
}

// SystemTargetOf is the inverse of SystemTargetKey.
func SystemTargetOf(key string) (keyspace.GroupID, bool) {
	return groupAfter(SystemTargetPrefix, key)
}

func groupAfter(prefix, key string) (keyspace.GroupID, bool) {
	digits, ok := strings.CutPrefix(key, prefix)
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

// ClusterRecord is the cluster's identity and shape. ReplicationFactor and what
// recoveries count are all that changes later.
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
	// Weight is the capacity beside other nodes; 0 means 1.
	Weight float64 `json:"weight,omitempty"`
	// Priority: groups prefer to be led by members with a higher one.
	Priority int `json:"leader_priority,omitempty"`
	// ReplacedBy names the node that came back under the same name with an
	// empty disk. A replaced node never returns.
	ReplacedBy keyspace.NodeID `json:"replaced_by,omitempty"`
	// State is NodeActive or NodeDraining; an operator sets it.
	State string `json:"state,omitempty"`
	// DrainTo is the node that takes the place of a draining one; without it,
	// whoever has room.
	DrainTo keyspace.NodeID `json:"drain_to,omitempty"`
	// Role is RoleData, which is not written, or RoleWitness. It is one for the
	// life of a node id.
	Role string `json:"role,omitempty"`
	// Removed says why the node does not belong to the cluster any more. It
	// never returns; its name is free.
	Removed string `json:"removed,omitempty"`
	// RemovedAt is when, in Unix milliseconds; 0 for nodes removed by versions
	// that did not note it.
	RemovedAt int64 `json:"removed_at,omitempty"`
}

// States of a node.
const (
	NodeActive   = ""
	NodeDraining = "draining"
)

// Roles of a node.
const (
	RoleData    = "data"
	RoleWitness = "witness"
)

// TargetRecord says where a group's voters should be; the first node is the
// preferred leader. The leader of the meta group writes it, the group's leader
// works towards it. A group without one stays where it is.
type TargetRecord struct {
	Nodes []keyspace.NodeID `json:"nodes"`
	// Held keeps the placement from changing the target, except for nodes that
	// are gone; set when an operator cancels a move.
	Held bool `json:"held,omitempty"`
	// Reason for operators, and Since in Unix milliseconds.
	Reason string `json:"reason,omitempty"`
	Since  int64  `json:"since,omitempty"`
}

// PendingRecord announces a node that an operator expects (S3.12's
// pending_config). It ends when a node of that name joins.
type PendingRecord struct {
	Name    string `json:"name"`
	Address string `json:"address,omitempty"` // peer address, when known
	Since   int64  `json:"since"`             // Unix milliseconds
}

// DeadRecord says that a node was silent for so long that its replicas are
// placed elsewhere, until it is heard from again. It is stored, so that whoever
// leads the meta group next places nothing on it.
type DeadRecord struct {
	Since int64 `json:"since"` // Unix milliseconds
}

// BalanceRecord is how replicas may be moved; zero fields mean the defaults.
type BalanceRecord struct {
	// Paused: no step of a move begins and no copy goes on.
	Paused bool `json:"paused,omitempty"`
	// MaxMoves bounds the groups whose members change at the same time.
	MaxMoves int `json:"max_moves,omitempty"`
	// CopyRate bounds what a node sends of snapshots, bytes per second.
	CopyRate int64 `json:"copy_rate,omitempty"`
	// Groups is how many data groups an operator wants at least.
	Groups int `json:"groups,omitempty"`
	// SplitOff keeps the number of groups from following that of nodes.
	SplitOff bool `json:"split_off,omitempty"`
	// HoldSlots: no move of slots is planned; set when an operator cancels one.
	HoldSlots bool `json:"hold_slots,omitempty"`
}

// Defaults of a BalanceRecord.
const (
	DefaultMaxMoves = 2
	DefaultCopyRate = 64 << 20
)

// GroupRecord tells who the members of a group are; its leader keeps it true.
type GroupRecord struct {
	// Term in which the leader wrote it: one of an earlier term writes no more.
	Term    keyspace.Term  `json:"term,omitempty"`
	Members []MemberRecord `json:"members"`
	// GivenUp are nodes to which the group was not copied, by id; they get no
	// replica of it until the entry is gone.
	GivenUp []GivenUpRecord `json:"given_up,omitempty"`
}

// GivenUpRecord is a copy that did not come to an end.
type GivenUpRecord struct {
	Node   keyspace.NodeID `json:"node"`
	Reason string          `json:"reason"`
	// Since, and Until the copy may begin anew, are Unix milliseconds; Until is 0
	// when that is once the node is heard from again.
	Since int64 `json:"since"`
	Until int64 `json:"until,omitempty"`
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
	JobRunning   = "running"
	JobDone      = "done"
	JobFailed    = "failed"
	JobCancelled = "cancelled"
)

// Kinds of jobs.
const (
	// JobDeleteNamespace deletes a namespace with its keys.
	JobDeleteNamespace = "delete-namespace"
	// JobDeleteRange deletes the keys of a range that were there when it began.
	JobDeleteRange = "delete-range"
)

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

	// The keys of a delete-range, as ListRequest chooses them, and the revision
	// above which they are left.
	Prefix   string            `json:"prefix,omitempty"`
	Start    string            `json:"start,omitempty"`
	End      string            `json:"end,omitempty"`
	Tags     map[string]string `json:"tags,omitempty"`
	Revision keyspace.Revision `json:"revision,omitempty"`
	// Cursor is the last key that was looked at; Left counts those that were
	// written after Revision.
	Cursor string `json:"cursor,omitempty"`
	Left   uint64 `json:"left,omitempty"`
	// Cancel asks the job to end where it is.
	Cancel bool `json:"cancel,omitempty"`
	// Runner names the run that may write the record; a later one takes it over.
	Runner string `json:"runner,omitempty"`
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
