package router

import (
	"strings"
	"sync"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// SlotMap is one state of the slot map (format.SlotsRecord). It says where
// requests go; what a group owns only its own log says, so a map that is too old
// or too new costs a refusal and a second look, never a wrong answer.
type SlotMap struct {
	Epoch uint64
	// Owner of each slot, shared and never changed.
	Owner *[keyspace.SlotCount]keyspace.GroupID
	// Owning are the groups that own something, in order.
	Owning   []keyspace.GroupID
	Moves    []SlotMove
	NextMove format.MoveID
	// Version of the record, for its next write.
	Version uint64
	// owners are the record's, in order of their groups from 1.
	owners []format.SlotOwner
}

// SlotMove is a move of slots that is to happen.
type SlotMove format.SlotMoveRecord

// Founding is a data group that is being founded.
type Founding struct {
	Node    keyspace.NodeID
	Replica keyspace.ReplicaID
	Since   int64 // Unix milliseconds
	// Version of the record, for its next write.
	Version uint64
}

// NewSlotMap returns the map of a valid record.
func NewSlotMap(r *format.SlotsRecord, version uint64) *SlotMap {
	m := &SlotMap{Epoch: r.Epoch, Owner: new([keyspace.SlotCount]keyspace.GroupID), NextMove: r.NextMove, Version: version, owners: r.Owners}
	for i := range r.Owners {
		o := &r.Owners[i]
		for slot := range o.Slots.All() {
			m.Owner[slot] = o.Group
		}
		if !o.Slots.Empty() {
			m.Owning = append(m.Owning, o.Group)
		}
	}
	for _, move := range r.Moves {
		m.Moves = append(m.Moves, SlotMove(move))
	}
	return m
}

// GroupOf returns the group that owns a slot, ok false before the number of
// groups is known.
func (m *Map) GroupOf(slot keyspace.SlotID) (g keyspace.GroupID, ok bool) {
	switch {
	case m.Slots != nil:
		return m.Slots.Owner[slot], true
	case m.Groups == 0:
		return 0, false
	}
	return 1 + keyspace.GroupID(int(slot)*m.Groups/keyspace.SlotCount), true
}

// Owned is the set of slots that a group owns.
func (m *Map) Owned(g keyspace.GroupID) format.SlotSet {
	slots := m.Slots
	if slots == nil {
		slots = foundingMap(m.Groups)
	}
	if g == keyspace.MetaGroup || int(g) > len(slots.owners) {
		return format.SlotSet{}
	}
	return slots.owners[g-1].Slots
}

// foundings are the maps of founding layouts by the number of groups; a process
// sees one or two.
var foundings sync.Map // int -> *SlotMap

func foundingMap(groups int) *SlotMap {
	if m, ok := foundings.Load(groups); ok {
		return m.(*SlotMap)
	}
	record := format.FoundingSlotsRecord(groups)
	m, _ := foundings.LoadOrStore(groups, NewSlotMap(&record, 0))
	return m.(*SlotMap)
}

// MoveTo returns the move of slots to a group.
func (m *Map) MoveTo(g keyspace.GroupID) (SlotMove, bool) {
	return m.move(func(move *SlotMove) bool { return move.To == g })
}

// MoveFrom returns the move of slots from a group.
func (m *Map) MoveFrom(g keyspace.GroupID) (SlotMove, bool) {
	return m.move(func(move *SlotMove) bool { return move.From == g })
}

func (m *Map) move(is func(*SlotMove) bool) (SlotMove, bool) {
	if m.Slots != nil {
		for i := range m.Slots.Moves {
			if is(&m.Slots.Moves[i]) {
				return m.Slots.Moves[i], true
			}
		}
	}
	return SlotMove{}, false
}

// GroupsWanted is how many data groups the cluster should have: those it has,
// what an operator asked for, and unless that is off one for each node that
// takes replicas, so that every node can lead one.
func (m *Map) GroupsWanted() int {
	want := max(m.Groups, m.Balance.Groups)
	if !m.Balance.SplitOff {
		active := 0
		for id, n := range m.Nodes {
			if !n.Draining && !n.Unrecorded && !n.Witness && !m.Dead[id] {
				active++
			}
		}
		want = max(want, active)
	}
	return max(m.Groups, min(want, format.MaxGroups))
}

// owning are the groups that own slots, in order; shared.
func (m *Map) owning() []keyspace.GroupID {
	if m.Slots != nil {
		return m.Slots.Owning
	}
	return foundingMap(m.Groups).Owning
}

// groupsOfPrefix returns the groups that may hold keys of a namespace with
// the given prefix. One when the prefix already holds the whole hash part: slot
// is then the only one that matters, -1 else.
func (m *Map) groupsOfPrefix(ns keyspace.NamespaceID, prefix string) (groups []keyspace.GroupID, slot int, ok bool) {
	if ns == keyspace.SystemNamespace {
		return []keyspace.GroupID{keyspace.MetaGroup}, -1, true
	}
	if m.Groups == 0 {
		return nil, -1, false
	}
	if ns == keyspace.LeaseNamespace && strings.IndexByte(prefix, 0) > 0 {
		s := keyspace.SlotOf(ns, prefix)
		g, ok := m.GroupOf(s)
		return []keyspace.GroupID{g}, int(s), ok
	}
	if open := strings.IndexByte(prefix, '{'); open >= 0 && strings.IndexByte(prefix[open+1:], '}') > 0 {
		s := keyspace.SlotOf(ns, prefix)
		g, ok := m.GroupOf(s)
		return []keyspace.GroupID{g}, int(s), ok
	}
	return m.owning(), -1, true
}
