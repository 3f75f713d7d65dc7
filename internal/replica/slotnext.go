package replica

import (
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// nextSlots is the state after a step whose entry is at index with a ceiling. It
// shares nothing with the change.
func (c *Core) nextSlots(old *format.SlotState, change *format.SlotChange, index keyspace.Index, ceiling keyspace.Revision) *format.SlotState {
	if change.Kind == format.SlotFound {
		return &format.SlotState{Owned: change.Slots, Floor: change.Floor}
	}
	invariant.Assert(old != nil, "group %d: step %d of move %d without a layout of slots", c.cfg.Group, change.Kind, change.Move)
	s := new(*old)
	switch change.Kind {
	case format.SlotBegin, format.SlotReady, format.SlotAccept, format.SlotImport:
		nextIn(s, change)
	case format.SlotFreeze, format.SlotThaw, format.SlotLeave, format.SlotForget:
		nextOut(s, change, index, ceiling)
	case format.SlotAbort:
		nextAborted(s, change, c.cfg.Group)
	case format.SlotPurged:
		nextPurged(s, change)
	default:
		invariant.Assert(false, "group %d: step %d of move %d is unknown", c.cfg.Group, change.Kind, change.Move)
	}
	return s
}

// nextIn takes a step of the move to the group.
func nextIn(s *format.SlotState, c *format.SlotChange) {
	if c.Kind == format.SlotBegin {
		s.In = &format.SlotsIn{ID: c.Move, From: c.Peer, Slots: c.Slots, Phase: format.SlotsCopying}
		s.Leftover = s.Leftover.With(&c.Slots)
		return
	}
	invariant.Assert(s.In != nil && s.In.ID == c.Move, "slots: step %d of move %d, under way is %+v", c.Kind, c.Move, s.In)
	in := new(*s.In)
	s.In = in
	switch c.Kind {
	case format.SlotReady:
		in.Phase, in.Nonce = format.SlotsReady, c.Nonce
	case format.SlotImport:
		nextImported(in, c)
	default: // format.SlotAccept
		s.Owned, s.Leftover = s.Owned.With(&in.Slots), s.Leftover.Without(&in.Slots)
		s.Floor = max(s.Floor, in.Floor, c.Floor)
		s.Accepted = c.Move
		endIn(s, c.Move)
	}
}

// nextImported notes what an import brought. Whatever comes after the receiver
// was ready comes of a later freeze.
func nextImported(in *format.SlotsIn, c *format.SlotChange) {
	in.Phase, in.Nonce = format.SlotsCopying, 0
	if c.Base != 0 {
		in.Base = c.Base
	}
	if c.Rev != 0 {
		in.Rev = c.Rev
	}
	if c.Done || len(c.Cursor) > 0 {
		in.Cursor, in.Copied = append([]byte(nil), c.Cursor...), c.Done
	}
	in.Floor = max(in.Floor, c.Floor)
	in.Bytes += c.Bytes
}

// nextOut takes a step of the move from the group.
func nextOut(s *format.SlotState, c *format.SlotChange, index keyspace.Index, ceiling keyspace.Revision) {
	if c.Kind == format.SlotFreeze {
		s.Out = &format.SlotsOut{ID: c.Move, To: c.Peer, Slots: c.Slots, Nonce: index}
		return
	}
	invariant.Assert(s.Out != nil && s.Out.ID == c.Move, "slots: step %d of move %d, under way is %+v", c.Kind, c.Move, s.Out)
	out := new(*s.Out)
	s.Out = out
	switch c.Kind {
	case format.SlotThaw:
		out.Nonce = 0
	case format.SlotLeave:
		out.Left, out.Ceiling, out.Floor, out.LowWater = true, ceiling, max(s.Floor, c.Floor), c.LowWater
		s.Owned = s.Owned.Without(&out.Slots)
		s.Gone, s.Leftover = s.Gone.With(&out.Slots), s.Leftover.With(&out.Slots)
	default: // format.SlotForget
		endOut(s, c.Move)
		s.Purging, s.Purged = true, nil
	}
}

// nextAborted ends a move on the side that its peer tells, or keeps it from
// beginning.
func nextAborted(s *format.SlotState, c *format.SlotChange, g keyspace.GroupID) {
	if c.Peer < g {
		endIn(s, c.Move)
	} else {
		endOut(s, c.Move)
	}
}

// nextPurged moves the purge on. What left while it went on is not purged yet:
// the end of that move begins the purge anew.
func nextPurged(s *format.SlotState, c *format.SlotChange) {
	if !c.Done {
		if len(c.Cursor) > 0 {
			s.Purged = append([]byte(nil), c.Cursor...)
		}
		return
	}
	purged := s.Gone
	if s.Out != nil && s.Out.Left {
		purged = purged.Without(&s.Out.Slots)
	}
	s.Leftover = s.Leftover.Without(&purged)
	s.Purging, s.Purged = false, nil
}

func endIn(s *format.SlotState, id format.MoveID) {
	if s.In != nil && s.In.ID == id {
		s.In = nil
	}
	s.EndedIn, s.Ended = max(s.EndedIn, id), max(s.Ended, id)
}

func endOut(s *format.SlotState, id format.MoveID) {
	if s.Out != nil && s.Out.ID == id {
		s.Out = nil
	}
	s.EndedOut, s.Ended = max(s.EndedOut, id), max(s.Ended, id)
}
