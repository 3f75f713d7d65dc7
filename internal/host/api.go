package host

import (
	"time"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// Level is the consistency a read was served at.
type Level uint8

const (
	// Linearizable reads see every write acknowledged before they began.
	Linearizable Level = iota
	// BoundedStaleness reads are at most ReadPoint.Age old.
	BoundedStaleness
)

// ReadPoint is the permission to read one group here: what to read and how to
// judge expiry.
type ReadPoint struct {
	Group keyspace.GroupID
	// Index is the applied index the read waited for.
	Index keyspace.Index
	// Rev is the revision to read at.
	Rev keyspace.Revision
	// Clock judges expiry; never beyond an applied ceiling.
	Clock keyspace.Revision
	// Physical is the leader's physical time in Unix milliseconds, 0 when no
	// quorum of clocks agrees.
	Physical int64
	Level    Level
	// Age bounds how old the answer may be; 0 for Linearizable.
	Age time.Duration
	// Fixed: Rev is one that the caller named. Without, a read that met a prepared
	// transaction reads at what is published once that has ended.
	Fixed bool
	// Slots is what the group owned at the moment of the permission; nil owns all.
	Slots *format.SlotState
}

// ScanRequest asks for one byte-bounded page of a group at a revision.
type ScanRequest struct {
	Namespace keyspace.NamespaceID
	Revision  keyspace.Revision
	// Start is inclusive, End exclusive; an empty End means to the end.
	Start, End []byte
	Reverse    bool
	KeysOnly   bool
	CountOnly  bool
	Limit      int
	MaxBytes   int
	Tags       map[string]string
	// EndsAfter and EndsBy, Unix milliseconds: ScanPage.Ends tells whether a record
	// expires after the one and not after the other; 0 for neither.
	EndsAfter, EndsBy int64
}

// ScanPoint is a group to scan and what makes a revision whole on replicas
// where it is not closed.
type ScanPoint struct {
	Group keyspace.GroupID
	// Index is ClockReading.Index of a reading at or above the revision; 0 when
	// there is none.
	Index keyspace.Index
}

// ScanItem is a record with its key.
type ScanItem struct {
	Key    string
	Record format.Record
}

// ScanPage is the answer to a ScanRequest.
type ScanPage struct {
	Items []ScanItem
	// Next is where the following page starts (its End, when reverse).
	Next  []byte
	More  bool
	Count uint64
	// Ends: a record that the page looked at expires in the time asked.
	Ends bool
	// Slots are those that the page's groups owned when it was read. AnySlots: one
	// of them knows no slots and owns what is routed to it. Overlap: two of them
	// owned a slot.
	Slots    format.SlotSet
	AnySlots bool
	Overlap  bool
	// Silent are the groups of AnySlots, in the order asked.
	Silent []keyspace.GroupID
}

// GroupStatus describes a replica hosted here.
type GroupStatus struct {
	Group      keyspace.GroupID
	Replica    keyspace.ReplicaID
	Instance   keyspace.InstanceID
	Leader     keyspace.ReplicaID
	LeaderNode keyspace.NodeID
	Term       keyspace.Term
	Commit     keyspace.Index
	Applied    keyspace.Index
	// Role is leader, follower, candidate, learner, witness or removed.
	Role    string
	Clock   keyspace.Revision
	Ceiling keyspace.Revision
	Closed  keyspace.Revision
	ReadRev keyspace.Revision
	Floor   keyspace.Revision
	// Serving tells whether a leader has applied an entry of its own term.
	Serving bool
	// Quarantined names why this replica does not run, empty otherwise.
	Quarantined string
	// Lost are members that told this leader that their log is damaged; each
	// must be replaced by a new replica on the same node.
	Lost    []keyspace.ReplicaID
	Digest  Digest
	Members []format.Member
	// Slots is what the group's log says of its slots; nil owns all.
	Slots *format.SlotState
	// Prepared are the transactions that wait here for their outcome, shared and
	// never changed; LowWater is the group's mark.
	Prepared []*format.Prepared
	LowWater keyspace.Revision
	// Copies is how many voters have everything that was acknowledged, as far as
	// this leader knows; 0 where it does not know yet, and on others.
	Copies int
	// Backlog is how many keys have expired and are not deleted yet, as far as this
	// leader has counted: some 10,000 may be more. Swept counts those that were
	// deleted here.
	Backlog int
	Swept   uint64
	// Progress is filled on leaders only, by replica.
	Progress map[keyspace.ReplicaID]Progress
}

// Progress is what a leader knows of a member.
type Progress struct {
	Match  keyspace.Index
	Active bool
	// State is raft's: probe, replicate or snapshot.
	State string
	// Copy is the snapshot that is sent to the member, if one is.
	Copy CopyProgress
}

// CopyProgress is how far a snapshot is sent.
type CopyProgress struct {
	// Sent of about Total bytes, by what the store estimates.
	Sent, Total int64
	// For is how long it runs.
	For time.Duration
}

// Digest is a hash over all user records of a replica at one log index.
type Digest struct {
	Index keyspace.Index
	Hash  uint64
	Keys  uint64
}

// MemberChange is one step of a membership change: of AddLearner, Promote and
// Remove exactly one is set.
type MemberChange struct {
	// AddLearner names the node that gets a new replica, a Witness where the node
	// is one.
	AddLearner keyspace.NodeID
	Witness    bool
	// Promote makes a learner a voter and, in the same joint change, removes
	// Replace when it is not 0.
	Promote keyspace.ReplicaID
	Replace keyspace.ReplicaID
	// Remove takes a replica out of the group.
	Remove keyspace.ReplicaID
}

// GroupSeed is a group at bootstrap.
type GroupSeed struct {
	Group keyspace.GroupID
	// Members in order; the first is the preferred leader. Replica ids from 1.
	Members []format.Member
	// Self is this node's replica, 0 when it has none.
	Self keyspace.ReplicaID
	// Slots are those that the group owns; the meta group's do not count.
	Slots format.SlotSet
}
