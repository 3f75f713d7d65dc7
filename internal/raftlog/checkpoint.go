package raftlog

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/keyspace"
)

// Checkpoint says that everything up to Index is in the engine under Instance,
// durably. A start replays the log from here.
type Checkpoint struct {
	Instance keyspace.InstanceID
	// State is an encoded format.State; opaque to the log.
	State []byte
	// Index and Term name the last entry that the checkpoint covers.
	Index keyspace.Index
	Term  keyspace.Term
	// ConfState is the Raft configuration at Index; nil means empty.
	ConfState *raftpb.ConfState
}

// GroupInfo is what the log knows of one group after Open.
type GroupInfo struct {
	Group keyspace.GroupID
	// Replica is the replica that lives here; with Removed, the highest one
	// that ever lived here; 0 when damage hid it.
	Replica   keyspace.ReplicaID
	HardState *raftpb.HardState
	// Checkpoint aliases the log's memory and must not be changed.
	Checkpoint Checkpoint
	// First and Last bound the entries that can be read; Last = First-1 when
	// there are none.
	First, Last keyspace.Index
	// Damaged: durable records of this replica were lost or altered. It must
	// not take part in Raft again; Remove it and rebuild it under a new id.
	Damaged bool
	// Removed: no replica lives here any more.
	Removed bool
}

var errShort = errors.New("record is too short")

// A checkpoint in a record: instance, index, term (8 bytes each, little
// endian), the length of the configuration (4 bytes), the configuration
// (protobuf), the state.
const checkpointFixed = 8 + 8 + 8 + 4

func checkpointBytes(c *Checkpoint) int {
	n := checkpointFixed + len(c.State)
	if c.ConfState != nil {
		n += proto.Size(c.ConfState)
	}
	return n
}

func appendCheckpoint(b []byte, c *Checkpoint) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Instance))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Index))
	b = binary.LittleEndian.AppendUint64(b, uint64(c.Term))
	at := len(b)
	b = binary.LittleEndian.AppendUint32(b, 0)
	if c.ConfState != nil {
		var err error
		b, err = proto.MarshalOptions{Deterministic: true}.MarshalAppend(b, c.ConfState)
		if err != nil {
			panic(fmt.Sprintf("raftlog: configuration %v cannot be encoded: %v", c.ConfState, err))
		}
	}
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	return append(b, c.State...)
}

// decodeCheckpoint copies what it keeps out of b.
func decodeCheckpoint(b []byte) (Checkpoint, error) {
	if len(b) < checkpointFixed {
		return Checkpoint{}, errShort
	}
	c := Checkpoint{
		Instance: keyspace.InstanceID(binary.LittleEndian.Uint64(b)),
		Index:    keyspace.Index(binary.LittleEndian.Uint64(b[8:])),
		Term:     keyspace.Term(binary.LittleEndian.Uint64(b[16:])),
	}
	n := int64(binary.LittleEndian.Uint32(b[24:]))
	b = b[checkpointFixed:]
	if n > int64(len(b)) {
		return Checkpoint{}, errShort
	}
	conf := new(raftpb.ConfState)
	if err := proto.Unmarshal(b[:n], conf); err != nil {
		return Checkpoint{}, fmt.Errorf("configuration: %w", err)
	}
	c.ConfState = raftpb.EnsureConfState(conf)
	c.State = append([]byte(nil), b[n:]...)
	return c, nil
}
