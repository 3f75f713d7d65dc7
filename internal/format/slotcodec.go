package format

import (
	"encoding/binary"

	"kvstore/internal/keyspace"
)

// A set of slots is the count of its ranges, then for each range the slots that
// are skipped before it and its length less one, all uvarints. Absent parts of a
// state are flags.

const (
	slotsIn = 1 << iota
	slotsOut
	slotsPurging
	slotsOutLow     // SlotsOut has a low-water mark
	slotsKnownFlags = 1<<iota - 1
)

func appendSlotSet(dst []byte, s *SlotSet) []byte {
	if s.Empty() {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, s.ranges())
	end := 0
	for slot := 0; slot < keyspace.SlotCount; slot++ {
		if !s.Has(keyspace.SlotID(slot)) {
			continue
		}
		first := slot
		for slot+1 < keyspace.SlotCount && s.Has(keyspace.SlotID(slot+1)) {
			slot++
		}
		dst = binary.AppendUvarint(dst, uint64(first-end))
		dst = binary.AppendUvarint(dst, uint64(slot-first))
		end = slot + 1
	}
	return dst
}

// ranges counts the slots whose predecessor is not in the set.
func (s *SlotSet) ranges() (n uint64) {
	inside := false
	for slot := range keyspace.SlotID(keyspace.SlotCount) {
		has := s.Has(slot)
		if has && !inside {
			n++
		}
		inside = has
	}
	return n
}

func (d *decoder) slotSet() (s SlotSet) {
	var end uint64
	for n := d.count(2); n > 0; n-- {
		skipped, more := d.uvarint(), d.uvarint()
		if skipped >= keyspace.SlotCount || more >= keyspace.SlotCount || end+skipped+more >= keyspace.SlotCount {
			d.fail()
			return SlotSet{}
		}
		first := end + skipped
		s.AddRange(keyspace.SlotID(first), keyspace.SlotID(first+more))
		end = first + more + 1
	}
	return s
}

func appendSlotChange(dst []byte, c *SlotChange) []byte {
	dst = append(dst, byte(c.Kind))
	dst = binary.AppendUvarint(dst, uint64(c.Move))
	dst = binary.AppendUvarint(dst, uint64(c.Peer))
	dst = appendSlotSet(dst, &c.Slots)
	for _, v := range []uint64{uint64(c.Nonce), uint64(c.Ceiling), uint64(c.Floor), uint64(c.Base), uint64(c.Rev)} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = appendBytes(dst, c.Cursor)
	dst = appendBool(dst, c.Done)
	dst = binary.AppendUvarint(dst, c.Bytes)
	if c.LowWater != 0 { // else as every step was before there were any
		dst = binary.AppendUvarint(dst, uint64(c.LowWater))
	}
	return dst
}

// slotChange reads a step, up to the end; one of an unknown kind is malformed,
// since it would have to be skipped.
func (d *decoder) slotChange() *SlotChange {
	c := &SlotChange{Kind: SlotOpKind(d.byte())}
	if c.Kind < SlotFound || c.Kind > SlotImport {
		d.fail()
	}
	c.Move = MoveID(d.uvarint())
	c.Peer = keyspace.GroupID(d.uvarint())
	c.Slots = d.slotSet()
	c.Nonce = keyspace.Index(d.uvarint())
	c.Ceiling = keyspace.Revision(d.uvarint())
	c.Floor = keyspace.Revision(d.uvarint())
	c.Base = keyspace.Index(d.uvarint())
	c.Rev = keyspace.Revision(d.uvarint())
	c.Cursor = d.bytes()
	c.Done = d.byte() == 1
	c.Bytes = d.uvarint()
	if len(d.b) > 0 {
		if c.LowWater = keyspace.Revision(d.uvarint()); c.LowWater == 0 {
			d.fail()
		}
	}
	return c
}

func appendSlotState(dst []byte, s *SlotState) []byte {
	var flags byte
	if s.In != nil {
		flags |= slotsIn
	}
	if s.Out != nil {
		flags |= slotsOut
		if s.Out.LowWater != 0 {
			flags |= slotsOutLow
		}
	}
	if s.Purging {
		flags |= slotsPurging
	}
	dst = append(dst, flags)
	for _, set := range []*SlotSet{&s.Owned, &s.Gone, &s.Leftover} {
		dst = appendSlotSet(dst, set)
	}
	for _, v := range []uint64{uint64(s.Floor), uint64(s.Ended), uint64(s.EndedIn), uint64(s.EndedOut),
		uint64(s.Accepted)} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = appendBytes(dst, s.Purged)
	if s.In != nil {
		dst = appendSlotsIn(dst, s.In)
	}
	if s.Out != nil {
		dst = appendSlotsOut(dst, s.Out)
	}
	return dst
}

func appendSlotsIn(dst []byte, in *SlotsIn) []byte {
	dst = append(dst, byte(in.Phase))
	dst = appendBool(dst, in.Copied)
	dst = appendSlotSet(dst, &in.Slots)
	for _, v := range []uint64{uint64(in.ID), uint64(in.From), uint64(in.Base), uint64(in.Rev),
		uint64(in.Floor), uint64(in.Nonce), in.Bytes} {
		dst = binary.AppendUvarint(dst, v)
	}
	return appendBytes(dst, in.Cursor)
}

func appendSlotsOut(dst []byte, out *SlotsOut) []byte {
	dst = appendBool(dst, out.Left)
	dst = appendSlotSet(dst, &out.Slots)
	for _, v := range []uint64{uint64(out.ID), uint64(out.To), uint64(out.Nonce), uint64(out.Ceiling), uint64(out.Floor)} {
		dst = binary.AppendUvarint(dst, v)
	}
	if out.LowWater != 0 {
		dst = binary.AppendUvarint(dst, uint64(out.LowWater))
	}
	return dst
}

// slotState reads a state that keeps nothing of the bytes it came from.
func (d *decoder) slotState() *SlotState {
	flags := d.byte()
	if flags&^byte(slotsKnownFlags) != 0 || flags&(slotsOut|slotsOutLow) == slotsOutLow {
		d.fail()
	}
	s := &SlotState{Purging: flags&slotsPurging != 0}
	s.Owned, s.Gone, s.Leftover = d.slotSet(), d.slotSet(), d.slotSet()
	s.Floor = keyspace.Revision(d.uvarint())
	s.Ended, s.EndedIn, s.EndedOut = MoveID(d.uvarint()), MoveID(d.uvarint()), MoveID(d.uvarint())
	s.Accepted = MoveID(d.uvarint())
	s.Purged = append([]byte(nil), d.bytes()...)
	if flags&slotsIn != 0 {
		s.In = d.slotsIn()
	}
	if flags&slotsOut != 0 {
		s.Out = d.slotsOut()
	}
	if s.Out != nil && flags&slotsOutLow != 0 {
		s.Out.LowWater = keyspace.Revision(d.uvarint())
	}
	return s
}

func (d *decoder) slotsIn() *SlotsIn {
	in := &SlotsIn{Phase: SlotPhase(d.byte()), Copied: d.byte() == 1, Slots: d.slotSet()}
	in.ID, in.From = MoveID(d.uvarint()), keyspace.GroupID(d.uvarint())
	in.Base, in.Rev = keyspace.Index(d.uvarint()), keyspace.Revision(d.uvarint())
	in.Floor, in.Nonce, in.Bytes = keyspace.Revision(d.uvarint()), keyspace.Index(d.uvarint()), d.uvarint()
	in.Cursor = append([]byte(nil), d.bytes()...)
	return in
}

func (d *decoder) slotsOut() *SlotsOut {
	out := &SlotsOut{Left: d.byte() == 1, Slots: d.slotSet()}
	out.ID, out.To, out.Nonce = MoveID(d.uvarint()), keyspace.GroupID(d.uvarint()), keyspace.Index(d.uvarint())
	out.Ceiling, out.Floor = keyspace.Revision(d.uvarint()), keyspace.Revision(d.uvarint())
	return out
}
