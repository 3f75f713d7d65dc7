package format

import (
	"fmt"
	"iter"
	"math/bits"
	"strconv"
	"strings"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// SlotSet is a set of slots of the hash ring.
type SlotSet [keyspace.SlotCount / 64]uint64

// Has reports whether a slot is in the set.
func (s *SlotSet) Has(slot keyspace.SlotID) bool { return s[slot/64]>>(slot%64)&1 != 0 }

// Add puts a slot into the set.
func (s *SlotSet) Add(slot keyspace.SlotID) { s[slot/64] |= 1 << (slot % 64) }

// AddRange puts the slots from first to last, both included, into the set.
func (s *SlotSet) AddRange(first, last keyspace.SlotID) {
	for slot := int(first); slot <= int(last); slot++ {
		s.Add(keyspace.SlotID(slot))
	}
}

// Count is the number of slots in the set.
func (s *SlotSet) Count() (n int) {
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Empty reports whether no slot is in the set.
func (s *SlotSet) Empty() bool { return *s == SlotSet{} }

// With is the union with o.
func (s SlotSet) With(o *SlotSet) SlotSet {
	for i := range s {
		s[i] |= o[i]
	}
	return s
}

// Without is what s has and o has not.
func (s SlotSet) Without(o *SlotSet) SlotSet {
	for i := range s {
		s[i] &^= o[i]
	}
	return s
}

// Contains reports whether every slot of o is in s.
func (s *SlotSet) Contains(o *SlotSet) bool {
	for i := range s {
		if o[i]&^s[i] != 0 {
			return false
		}
	}
	return true
}

// Meets reports whether s and o have a slot in common.
func (s *SlotSet) Meets(o *SlotSet) bool {
	for i := range s {
		if o[i]&s[i] != 0 {
			return true
		}
	}
	return false
}

// All yields the slots in order.
func (s *SlotSet) All() iter.Seq[keyspace.SlotID] {
	return func(yield func(keyspace.SlotID) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(keyspace.SlotID(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// String gives the ranges of the set: "0-1364,2000". The empty set is "".
func (s *SlotSet) String() string {
	var b strings.Builder
	for slot := 0; slot < keyspace.SlotCount; slot++ {
		if !s.Has(keyspace.SlotID(slot)) {
			continue
		}
		last := slot
		for last+1 < keyspace.SlotCount && s.Has(keyspace.SlotID(last+1)) {
			last++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(slot))
		if last > slot {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(last))
		}
		slot = last
	}
	return b.String()
}

// ParseSlotSet is the inverse of String.
func ParseSlotSet(text string) (s SlotSet, err error) {
	if text == "" {
		return s, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		first, last, ranged := strings.Cut(part, "-")
		if !ranged {
			last = first
		}
		lo, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return SlotSet{}, badSlots(part)
		}
		hi, err := strconv.ParseUint(last, 10, 16)
		if err != nil || lo > hi || hi >= keyspace.SlotCount {
			return SlotSet{}, badSlots(part)
		}
		s.AddRange(keyspace.SlotID(lo), keyspace.SlotID(hi))
	}
	return s, nil
}

func badSlots(part string) error {
	return fault.New(fault.InvalidArgument, "slots are written as N or N-M, with commas between",
		"limit", keyspace.SlotCount-1, "actual", part)
}

// MarshalText writes the ranges, so that records hold sets as readable text.
func (s SlotSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *SlotSet) UnmarshalText(text []byte) (err error) {
	if *s, err = ParseSlotSet(string(text)); err != nil {
		return fmt.Errorf("slots %q: %w", text, err)
	}
	return nil
}

// FoundingSlots are the slots that a data group owns in a cluster that is founded
// with a number of groups.
func FoundingSlots(g keyspace.GroupID, groups int) (s SlotSet) {
	for slot := range keyspace.SlotCount {
		if 1+slot*groups/keyspace.SlotCount == int(g) {
			s.Add(keyspace.SlotID(slot))
		}
	}
	return s
}

// MoveID names a move of slots from one group to another; ids grow and are never
// used again.
type MoveID uint64

// SlotState is what a group's log says of its slots. It is never changed once it
// is part of a State; nil owns all that is routed to the group.
type SlotState struct {
	Owned SlotSet
	// Gone are slots that the group gave away. It never takes one back.
	Gone SlotSet
	// Leftover are slots that the group does not own and may have records of.
	Leftover SlotSet
	// Floor is the revision below which the group's history is not whole.
	Floor keyspace.Revision
	// In and Out are the moves under way, at most one each.
	In  *SlotsIn
	Out *SlotsOut
	// Ended is the highest id of a move that has ended here. Of moves to the group
	// that is EndedIn, of moves from it EndedOut: none of that id or an older one
	// begins in that direction.
	Ended, EndedIn, EndedOut MoveID
	// Accepted is the latest move that made the group an owner.
	Accepted MoveID
	// Purged is how far, in disk keys, what the group gave away is deleted; used
	// while Purging.
	Purging bool
	Purged  []byte
}

// SlotPhase is how far the receiver of a move is.
type SlotPhase uint8

const (
	// SlotsCopying: records are copied, then what changed meanwhile.
	SlotsCopying SlotPhase = 1
	// SlotsReady: all that the sender had when it froze is in the receiver's log.
	SlotsReady SlotPhase = 2
)

// SlotsIn is a move to this group.
type SlotsIn struct {
	ID    MoveID
	From  keyspace.GroupID
	Slots SlotSet
	Phase SlotPhase
	// Base is the sender's log index from which on changes follow the copy; 0
	// before the first page. Rev is the revision of the view that is copied.
	Base keyspace.Index
	Rev  keyspace.Revision
	// Cursor is the last disk key that was copied; Copied says that all were.
	Cursor []byte
	Copied bool
	// Floor is the revision from which on the copied history is whole.
	Floor keyspace.Revision
	// Nonce is that of the freeze up to which everything is here, when ready.
	Nonce keyspace.Index
	// Bytes imported so far, for progress.
	Bytes uint64
}

// SlotsOut is a move from this group.
type SlotsOut struct {
	ID    MoveID
	To    keyspace.GroupID
	Slots SlotSet
	// Nonce is the index of the entry that froze the slots, 0 while they are not.
	Nonce keyspace.Index
	// Left: the group has given the slots up with Ceiling and Floor.
	Left    bool
	Ceiling keyspace.Revision
	Floor   keyspace.Revision
	// LowWater is the group's mark when it gave them up.
	LowWater keyspace.Revision
}

// Owns reports whether the group owns a slot; a nil state owns all.
func (s *SlotState) Owns(slot keyspace.SlotID) bool { return s == nil || s.Owned.Has(slot) }

// Frozen reports whether writes of a slot wait for its move.
func (s *SlotState) Frozen(slot keyspace.SlotID) bool {
	return s != nil && s.Out != nil && s.Out.Nonce != 0 && !s.Out.Left && s.Out.Slots.Has(slot)
}

// Mixed reports whether the group may have records of slots that it does not
// own, now.
func (s *SlotState) Mixed() bool { return s != nil && !s.Leftover.Empty() }

// Filtered reports whether scans have to look at each key's slot: the group may
// have records of slots that it does not own, or had some once, which a scan at a
// revision below their deletion still meets.
func (s *SlotState) Filtered() bool { return s.Mixed() || s != nil && !s.Gone.Empty() }

// SlotOpKind is a step of a move.
type SlotOpKind uint8

const (
	// SlotFound makes the founding layout of a group explicit: Slots are what it
	// owns. Only for a group whose state is nil.
	SlotFound SlotOpKind = 1
	// SlotBegin opens a move to this group.
	SlotBegin SlotOpKind = 2
	// SlotReady: all up to the freeze with Nonce is here.
	SlotReady SlotOpKind = 3
	// SlotAccept makes this group the owner, above Ceiling.
	SlotAccept SlotOpKind = 4
	// SlotFreeze stops writes of the slots of a move from this group. The answer's
	// nonce is the index of the entry.
	SlotFreeze SlotOpKind = 5
	// SlotThaw undoes the freeze with Nonce.
	SlotThaw SlotOpKind = 6
	// SlotLeave gives the slots frozen with Nonce up.
	SlotLeave SlotOpKind = 7
	// SlotForget ends a move from this group that the map has recorded; what was
	// given away is purged from then on, from the first key.
	SlotForget SlotOpKind = 8
	// SlotAbort ends a move that has not left, on either side; Peer tells which. It
	// need not have begun: then it never does.
	SlotAbort SlotOpKind = 9
	// SlotPurged moves the purge on to Cursor, with the deletions up to there; Done
	// ends it. Move is SlotState.EndedOut of the state from which the purge walks:
	// a move that ended since has begun it anew.
	SlotPurged SlotOpKind = 10
	// SlotImport brings records. With a Cursor it moves the copy on to there; Done
	// says that all of the view were copied. Without both it brings what changed
	// meanwhile. Base, Rev and Floor, where they are not 0, are taken over.
	SlotImport SlotOpKind = 11
)

// SlotChange is the payload of an EntrySlots, and of an EntryImport the part that
// is not writes.
type SlotChange struct {
	Kind SlotOpKind
	Move MoveID
	// Peer is the other group of the move.
	Peer    keyspace.GroupID
	Slots   SlotSet
	Nonce   keyspace.Index
	Ceiling keyspace.Revision
	Floor   keyspace.Revision
	// LowWater, of SlotAccept, is the former owner's mark.
	LowWater keyspace.Revision
	// Of an import and of SlotPurged.
	Base   keyspace.Index
	Rev    keyspace.Revision
	Cursor []byte
	Done   bool
	Bytes  uint64
}
