package router

import (
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// SlotsRecord is the record behind the slot map as its next write begins: with
// the epoch after this one's. Without a record it is the founding layout's first.
func (m *Map) SlotsRecord() format.SlotsRecord {
	if m.Slots == nil {
		return format.FoundingSlotsRecord(m.Groups)
	}
	r := format.SlotsRecord{Epoch: m.Slots.Epoch + 1, NextMove: m.Slots.NextMove, Owners: make([]format.SlotOwner, m.Groups)}
	for i := range r.Owners {
		r.Owners[i].Group = keyspace.GroupID(i + 1)
	}
	for slot, owner := range m.Slots.Owner {
		r.Owners[owner-1].Slots.Add(keyspace.SlotID(slot))
	}
	for _, move := range m.Slots.Moves {
		r.Moves = append(r.Moves, format.SlotMoveRecord(move))
	}
	return r
}

// SlotsVersion guards the next write of the slot map's record.
func (m *Map) SlotsVersion() uint64 {
	if m.Slots == nil {
		return 0
	}
	return m.Slots.Version
}

// Complete reports whether a group has all the voters that it should have, in
// their places: as many as the replication factor says or, where there are
// fewer nodes for them, one on each.
func (m *Map) Complete(g keyspace.GroupID) bool {
	want := m.Wanted(g)
	usable := 0
	for id, n := range m.Nodes {
		if !n.Draining && !m.Dead[id] {
			usable++
		}
	}
	return len(want) > 0 && len(want) >= min(m.ReplicationFactor, usable) && sameVoters(m.Members[g], want)
}
