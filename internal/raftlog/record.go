package raftlog

import (
	"encoding/binary"
	"errors"
	"hash/crc32"

	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// recordType is the kind of a record. Numbers are never reused.
type recordType uint8

const (
	// recordEntry: term, index, entry type, data. It replaces the entry at its
	// index and everything after it.
	recordEntry recordType = 1
	// recordHardState: term, vote, commit.
	recordHardState recordType = 2
	// recordCheckpoint: a checkpoint.
	recordCheckpoint recordType = 3
	// recordCreate: replica, a checkpoint. The log restarts after it.
	recordCreate recordType = 4
	// recordSwitch: a checkpoint. The log restarts after it.
	recordSwitch recordType = 5
	// recordRemove: the replica that was removed.
	recordRemove recordType = 6
	// recordMeta: length of the key, key, value.
	recordMeta recordType = 7
	// recordGroup: replica (0 for none), highest removed replica. Written at
	// the head of each segment; it creates nothing and drops nothing.
	recordGroup recordType = 8
	// recordAdopt: replica. It takes over the log of the one that lives here.
	recordAdopt recordType = 9
	// recordStripped: term, index. It stands where recordEntry would, for an entry
	// of which a witness keeps no payload.
	recordStripped recordType = 10

	lastRecordType = recordStripped
)

// A record: checksum of the header (4 bytes), checksum of the body (4), length
// of the body (4), group (4), type (1), record format version (1), zero (2),
// body. The header has its own checksum so that a damaged body is blamed on
// its group alone.
const (
	recordHeaderBytes = 20
	entryFixedBytes   = 8 + 8 + 1
	strippedBytes     = 8 + 8
	recordVersion     = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// errRecordHeader: length, group and type of the record are unknown.
	errRecordHeader = errors.New("record header is damaged")
	// errRecordBody: the body is not what was written.
	errRecordBody = errors.New("record body is damaged")
	// errRecordVersion: written by a newer version of the program.
	errRecordVersion = errors.New("record has an unknown type or version")
)

// beginRecord appends a header to be completed by endRecord.
func beginRecord(b []byte, t recordType, g keyspace.GroupID) []byte {
	var h [recordHeaderBytes]byte
	binary.LittleEndian.PutUint32(h[12:], uint32(g))
	h[16] = byte(t)
	h[17] = recordVersion
	return append(b, h[:]...)
}

// endRecord completes the record that starts at start and ends with b.
func endRecord(b []byte, start int) []byte {
	h, body := b[start:start+recordHeaderBytes], b[start+recordHeaderBytes:]
	binary.LittleEndian.PutUint32(h[4:], crc32.Checksum(body, castagnoli))
	binary.LittleEndian.PutUint32(h[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(h[0:], crc32.Checksum(h[4:], castagnoli))
	return b
}

func appendEntry(b []byte, g keyspace.GroupID, e *raftpb.Entry) []byte {
	start := len(b)
	if isStripped(e) {
		b = beginRecord(b, recordStripped, g)
		b = binary.LittleEndian.AppendUint64(b, e.GetTerm())
		b = binary.LittleEndian.AppendUint64(b, e.GetIndex())
		return endRecord(b, start)
	}
	b = beginRecord(b, recordEntry, g)
	b = binary.LittleEndian.AppendUint64(b, e.GetTerm())
	b = binary.LittleEndian.AppendUint64(b, e.GetIndex())
	b = append(b, byte(e.GetType()))
	b = append(b, e.Data...)
	return endRecord(b, start)
}

func appendHardState(b []byte, g keyspace.GroupID, h hardState) []byte {
	start := len(b)
	b = beginRecord(b, recordHardState, g)
	b = binary.LittleEndian.AppendUint64(b, h.term)
	b = binary.LittleEndian.AppendUint64(b, h.vote)
	b = binary.LittleEndian.AppendUint64(b, h.commit)
	return endRecord(b, start)
}

func appendCheckpointRecord(b []byte, t recordType, g keyspace.GroupID, c *Checkpoint) []byte {
	start := len(b)
	b = appendCheckpoint(beginRecord(b, t, g), c)
	return endRecord(b, start)
}

func appendCreate(b []byte, g keyspace.GroupID, r keyspace.ReplicaID, c *Checkpoint) []byte {
	start := len(b)
	b = beginRecord(b, recordCreate, g)
	b = binary.LittleEndian.AppendUint64(b, uint64(r))
	return endRecord(appendCheckpoint(b, c), start)
}

func appendRemove(b []byte, g keyspace.GroupID, r keyspace.ReplicaID) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint64(beginRecord(b, recordRemove, g), uint64(r))
	return endRecord(b, start)
}

func appendAdopt(b []byte, g keyspace.GroupID, r keyspace.ReplicaID) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint64(beginRecord(b, recordAdopt, g), uint64(r))
	return endRecord(b, start)
}

func appendGroup(b []byte, g keyspace.GroupID, live, removed keyspace.ReplicaID) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint64(beginRecord(b, recordGroup, g), uint64(live))
	b = binary.LittleEndian.AppendUint64(b, uint64(removed))
	return endRecord(b, start)
}

func appendMeta(b []byte, key string, value []byte) []byte {
	start := len(b)
	b = beginRecord(b, recordMeta, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(key)))
	b = append(append(b, key...), value...)
	return endRecord(b, start)
}

// record is a parsed record; body aliases what was parsed.
type record struct {
	typ   recordType
	group keyspace.GroupID
	body  []byte
	size  int // header and body
}

// nextRecord parses the record at the start of b. On errRecordBody typ, group
// and size are known; on errRecordHeader nothing is.
func nextRecord(b []byte) (record, error) {
	if len(b) < recordHeaderBytes {
		return record{}, errRecordHeader
	}
	h := b[:recordHeaderBytes]
	if binary.LittleEndian.Uint32(h) != crc32.Checksum(h[4:], castagnoli) {
		return record{}, errRecordHeader
	}
	n := int64(binary.LittleEndian.Uint32(h[8:]))
	if n > int64(len(b)-recordHeaderBytes) {
		return record{}, errRecordHeader
	}
	r := record{
		typ:   recordType(h[16]),
		group: keyspace.GroupID(binary.LittleEndian.Uint32(h[12:])),
		body:  b[recordHeaderBytes : recordHeaderBytes+n],
		size:  recordHeaderBytes + int(n),
	}
	if crc32.Checksum(r.body, castagnoli) != binary.LittleEndian.Uint32(h[4:]) {
		return r, errRecordBody
	}
	if h[17] != recordVersion || r.typ < recordEntry || r.typ > lastRecordType {
		return r, errRecordVersion
	}
	return r, nil
}

// entryHead is an entry without its data.
type entryHead struct {
	term, index uint64
	typ         raftpb.EntryType
}

// isStripped reports whether a record of e has no payload.
func isStripped(e *raftpb.Entry) bool {
	return e.GetType() == raftpb.EntryNormal && format.IsStripped(e.Data)
}

// entryBytes is the size of the record of e.
func entryBytes(e *raftpb.Entry) int64 {
	if isStripped(e) {
		return recordHeaderBytes + strippedBytes
	}
	return recordHeaderBytes + entryFixedBytes + int64(len(e.Data))
}

// decodeStripped is decodeEntry for a record without a payload.
func decodeStripped(body []byte) (h entryHead, data []byte, err error) {
	if len(body) != strippedBytes {
		return h, nil, errShort
	}
	h.term = binary.LittleEndian.Uint64(body)
	h.index = binary.LittleEndian.Uint64(body[8:])
	h.typ = raftpb.EntryNormal
	return h, format.Stripped(), nil
}

// decodeEntry splits the body of an entry's record; data aliases it.
func decodeEntry(typ recordType, body []byte) (h entryHead, data []byte, err error) {
	if typ == recordStripped {
		return decodeStripped(body)
	}
	if len(body) < entryFixedBytes {
		return h, nil, errShort
	}
	h.term = binary.LittleEndian.Uint64(body)
	h.index = binary.LittleEndian.Uint64(body[8:])
	h.typ = raftpb.EntryType(body[16])
	return h, body[entryFixedBytes:], nil
}

func decodeHardState(body []byte) (h hardState, err error) {
	if len(body) < 24 {
		return h, errShort
	}
	h.term = binary.LittleEndian.Uint64(body)
	h.vote = binary.LittleEndian.Uint64(body[8:])
	h.commit = binary.LittleEndian.Uint64(body[16:])
	return h, nil
}

func decodeReplica(body []byte) (keyspace.ReplicaID, []byte, error) {
	if len(body) < 8 {
		return 0, nil, errShort
	}
	return keyspace.ReplicaID(binary.LittleEndian.Uint64(body)), body[8:], nil
}

// decodeMeta copies the key; value aliases body.
func decodeMeta(body []byte) (key string, value []byte, err error) {
	if len(body) < 4 {
		return "", nil, errShort
	}
	n := int64(binary.LittleEndian.Uint32(body))
	if n > int64(len(body)-4) {
		return "", nil, errShort
	}
	return string(body[4 : 4+n]), body[4+n:], nil
}
