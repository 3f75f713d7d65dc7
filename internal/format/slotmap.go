package format

import (
	"encoding/binary"
	"strconv"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// SystemSlotsKey is the key of the SlotsRecord, SystemFoundingPrefix that of
// FoundingRecords.
const (
	SystemSlotsKey       = "slots"
	SystemFoundingPrefix = "founding/"
)

// MaxGroups bounds the data groups of a cluster.
const MaxGroups = 1024

// SystemFoundingKey returns the key of a FoundingRecord.
func SystemFoundingKey(g keyspace.GroupID) string {
	return SystemFoundingPrefix + strconv.FormatUint(uint64(g), 10)
}

// SystemFoundingOf is the inverse of SystemFoundingKey.
func SystemFoundingOf(key string) (keyspace.GroupID, bool) {
	return groupAfter(SystemFoundingPrefix, key)
}

// SlotsRecord is the slot map: which group owns which slots, and what moves. It
// is written as a whole, guarded by its version, and says where requests go;
// what a group owns its own log says (SlotState). Without a record a cluster has
// its founding layout.
type SlotsRecord struct {
	// Epoch grows by one with every write.
	Epoch uint64 `json:"epoch"`
	// Owners are all data groups in order, from 1; one may own nothing yet.
	Owners []SlotOwner      `json:"owners"`
	Moves  []SlotMoveRecord `json:"moves,omitempty"`
	// NextMove is the id of the next move; none is given twice.
	NextMove MoveID `json:"next_move"`
}

// SlotOwner is a data group and what it owns.
type SlotOwner struct {
	Group keyspace.GroupID `json:"group"`
	Slots SlotSet          `json:"slots"`
}

// SlotMoveRecord is a move of slots that is to happen. They are owned by From
// until it is over.
type SlotMoveRecord struct {
	ID    MoveID           `json:"id"`
	From  keyspace.GroupID `json:"from"`
	To    keyspace.GroupID `json:"to"`
	Slots SlotSet          `json:"slots"`
	// Since in Unix milliseconds, and Reason for operators.
	Since  int64  `json:"since,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Cancelled by an operator: it is undone, unless its slots have left already.
	Cancelled bool `json:"cancelled,omitempty"`
}

// FoundingRecord is a data group that is being founded: its first replica is
// made on Node. It ends when the group is in the slot map.
type FoundingRecord struct {
	Node    keyspace.NodeID    `json:"node"`
	Replica keyspace.ReplicaID `json:"replica"`
	Since   int64              `json:"since,omitempty"` // Unix milliseconds
}

// slotBitmapBytes is the length of a set as a bitmap.
const slotBitmapBytes = keyspace.SlotCount / 8

// Bitmap is the set in bits: slot s is bit s%8 of byte s/8.
func (s *SlotSet) Bitmap() []byte {
	b := make([]byte, 0, slotBitmapBytes)
	for _, w := range s {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// SlotSetOf is the inverse of Bitmap; ok is false for anything else.
func SlotSetOf(bitmap []byte) (s SlotSet, ok bool) {
	if len(bitmap) != slotBitmapBytes {
		return s, false
	}
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(bitmap[i*8:])
	}
	return s, true
}

// FoundingSlotsRecord is the map of a cluster founded with a number of groups.
func FoundingSlotsRecord(groups int) SlotsRecord {
	r := SlotsRecord{Epoch: 1, NextMove: 1}
	for g := 1; g <= groups; g++ {
		r.Owners = append(r.Owners, SlotOwner{Group: keyspace.GroupID(g)})
	}
	if groups > 0 {
		for slot := range keyspace.SlotCount {
			r.Owners[slot*groups/keyspace.SlotCount].Slots.Add(keyspace.SlotID(slot))
		}
	}
	return r
}

// Validate reports what makes a record unusable, fault.Corruption: every slot
// has one owner, and every move is of slots that its sender owns, to a group of
// a higher id, one per sender and receiver.
func (r *SlotsRecord) Validate() error {
	if n := len(r.Owners); n == 0 || n > MaxGroups {
		return badMap("groups of the slot map are out of range", "limit", MaxGroups, "actual", n)
	}
	var owned SlotSet
	for i := range r.Owners {
		o := &r.Owners[i]
		if int(o.Group) != i+1 {
			return badMap("groups of the slot map are not in order", "expected", i+1, "actual", o.Group)
		}
		if owned.Meets(&o.Slots) {
			return badMap("a slot has two owners", "group", o.Group)
		}
		owned = owned.With(&o.Slots)
	}
	if n := owned.Count(); n != keyspace.SlotCount {
		return badMap("slots have no owner", "expected", keyspace.SlotCount, "actual", n)
	}
	return r.validateMoves()
}

func (r *SlotsRecord) validateMoves() error {
	last := MoveID(0)
	from, to := make(map[keyspace.GroupID]MoveID), make(map[keyspace.GroupID]MoveID)
	for i := range r.Moves {
		m := &r.Moves[i]
		switch {
		case m.ID <= last || m.ID >= r.NextMove:
			return badMap("ids of moves are out of order", "move", m.ID, "after", last, "next", r.NextMove)
		case m.From == 0 || m.To <= m.From || int(m.To) > len(r.Owners):
			return badMap("a move is not from a group to a later one", "move", m.ID, "from", m.From, "to", m.To, "groups", len(r.Owners))
		case m.Slots.Empty() || !r.Owners[m.From-1].Slots.Contains(&m.Slots):
			return badMap("a move is of slots that its sender does not own", "move", m.ID, "from", m.From, "slots", m.Slots.String())
		case from[m.From] != 0 || to[m.To] != 0:
			return badMap("a group has two moves", "move", m.ID, "from", m.From, "to", m.To, "other", max(from[m.From], to[m.To]))
		}
		from[m.From], to[m.To], last = m.ID, m.ID, m.ID
	}
	return nil
}

func badMap(message string, kv ...any) error { return fault.New(fault.Corruption, message, kv...) }
