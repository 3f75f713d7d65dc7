package format

import "kvstore/internal/keyspace"

// RecordFlag is a bit of a record's header.
type RecordFlag uint8

const (
	// FlagTombstone marks a deletion kept as a value record.
	FlagTombstone RecordFlag = 1 << iota
	// FlagChunked marks a value stored as chunk records.
	FlagChunked
	// FlagExpired is set beside FlagTombstone when the reason was expiry.
	FlagExpired
)

// ChunkRef names the chunk records of a large value.
type ChunkRef struct {
	// Upload is the stamp of the upload; unique in its group.
	Upload keyspace.Revision
	// Count of chunks, numbered from 0.
	Count uint32
}

// Header is the part of a record that evaluation needs. Revision is not in the
// encoding: it is the record's MVCC version in the engine.
type Header struct {
	Flags    RecordFlag
	Version  uint64            // this key's own counter, 1 at creation
	Revision keyspace.Revision // set by the reader from the MVCC version
	Created  keyspace.Revision // revision of the write that created the key
	Expires  int64             // Unix milliseconds, 0 for never
	Size     uint64            // bytes of the value
	Checksum uint32            // CRC32C of the plaintext value
	Chunks   ChunkRef          // with FlagChunked
	// Lease is what the key is attached to, "" for nothing. Of a tombstone: the key
	// was deleted because this lease had expired, with FlagExpired, or was revoked.
	Lease string
	// Reserved for later features; written as zero.
	KeyID, Tenant uint32
	Origin        uint16
}

// Exists reports whether the record is a live value at the given group time
// (Unix milliseconds).
func (h *Header) Exists(nowMilli int64) bool {
	return h.Version != 0 && h.Flags&FlagTombstone == 0 && (h.Expires == 0 || h.Expires > nowMilli)
}

// Record is one version of a key.
type Record struct {
	Header
	ContentType string
	Encoding    string
	Tags        map[string]string
	Metadata    map[string]string
	// Value is empty with FlagChunked.
	Value []byte
}

// Write is one finished change of a replica's disk state: followers apply it
// blindly. Key is a disk key without its instance prefix
// (keyspace.AppendDataKey and friends).
type Write struct {
	Key      []byte
	Revision keyspace.Revision
	// Value is an encoded record, or a chunk's bytes. With Delete it is empty:
	// the engine deletes the key at Revision.
	Value  []byte
	Delete bool
}

// EntryType is the kind of a log entry. An unknown one stops the replica.
type EntryType uint8

const (
	// EntryWrite carries the write sets of all operations that waited.
	EntryWrite EntryType = 1
	// EntryChunk carries chunks of large values, unclaimed until an
	// EntryWrite names their upload.
	EntryChunk EntryType = 2
	// EntryClock moves the ceiling only: up for idle groups and reads ahead,
	// down (Lower) before a planned transfer.
	EntryClock EntryType = 3
	// EntryDigest makes every replica hash its newest versions at or below
	// Closed.
	EntryDigest EntryType = 4
	// EntrySlots carries one step of a move of slots, Slots. The one with which slots
	// leave lowers the ceiling (Lower), at which the receiver goes on.
	EntrySlots EntryType = 5
	// EntryImport carries records of slots that the group does not own, at the
	// revisions they have where they come from, or deletions of such records, with
	// the progress that Slots says.
	EntryImport EntryType = 6
	// EntryTxn is an EntryWrite that also changes what is prepared of transactions
	// over several groups, or the low-water mark. Of its writes, those of commits are
	// at the revisions of the commits, which may lie below others.
	EntryTxn EntryType = 7
	// EntryStripped stands for an entry whose payload a witness does not get.
	// It is in the log of witnesses only.
	EntryStripped EntryType = 127
)

// Writes reports whether the records of an entry are what operations wrote.
func (t EntryType) Writes() bool { return t == EntryWrite || t == EntryTxn }

// Entry is the payload of a normal Raft entry (DESIGN 4, 6, 13).
type Entry struct {
	Type EntryType
	// Prev is the chain hash (ChainHash) of the previous payload in this log.
	Prev uint64
	// Stamp is the highest revision this entry stamped; the group clock is at
	// least this once it is applied.
	Stamp keyspace.Revision
	// Ceiling is the group's clock ceiling once this is applied.
	Ceiling keyspace.Revision
	// Closed: nothing is ever written at or below it after this entry.
	Closed keyspace.Revision
	// Lower marks an entry that lowers the ceiling.
	Lower  bool
	Writes []Write
	// Claims are uploads that become part of records with this entry.
	Claims []keyspace.Revision
	// Upload is the upload an EntryChunk belongs to, First the number of its
	// first chunk in this entry.
	Upload keyspace.Revision
	// Slots is set in EntrySlots and EntryImport only.
	Slots *SlotChange
	// Prepared, Ended and LowWater belong to EntryTxn: transactions that become
	// prepared, those that cease to be, and what the low-water mark is raised to, 0
	// for not.
	Prepared []*Prepared
	Ended    []keyspace.TxnKey
	LowWater keyspace.Revision
}

// Member is a replica in a group's descriptor.
type Member struct {
	Replica keyspace.ReplicaID
	Node    keyspace.NodeID
	Learner bool
}

// Witness reports whether the member votes without data.
func (m Member) Witness() bool { return m.Replica.Witness() }

// State is a replica's applied state beside its records. It is stored with
// every checkpoint and snapshot, so that a restart or a receiver continues
// exactly as if it had applied the whole log.
type State struct {
	Group   keyspace.GroupID
	Index   keyspace.Index // applied
	Term    keyspace.Term  // term of the entry at Index
	LastRev keyspace.Revision
	Ceiling keyspace.Revision
	Closed  keyspace.Revision
	Chain   uint64
	Format  uint32 // finalized format version of this group
	Members []Member
	NextID  keyspace.ReplicaID // next replica id to give
	Uploads []Upload           // unclaimed, sorted by Stamp
	// ConfState is the marshalled raftpb.ConfState at Index.
	ConfState []byte
	// Slots is what the log says of the group's slots; nil owns all that is
	// routed to the group.
	Slots *SlotState
	// Prepared are the transactions that wait for their outcome, in the order of
	// their keys. The slice and what it points to are never changed.
	Prepared []*Prepared
	// LowWater: a transaction that was created at or below it, and of which there
	// is no record, is not prepared any more.
	LowWater keyspace.Revision
}

// Upload is an unclaimed large value.
type Upload struct {
	Stamp keyspace.Revision
	Term  keyspace.Term
	// Chunks received so far.
	Chunks uint32
}
