package mover

import (
	"context"
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// Metadata is what the record of the slots says, as far as a sender needs it.
type Metadata struct {
	// Known is false before there is a record of the slots.
	Known bool
	// Owned are the group's slots in the record.
	Owned format.SlotSet
	// Next is the id of the next move: the record knows of all before it. Listed
	// are the moves that are to happen or to be undone.
	Next   format.MoveID
	Listed map[format.MoveID]bool
	// Higher are the owners of slots in the record whose groups may take slots from
	// this one.
	Higher []format.SlotOwner
}

// OutKind is what a sender's leader does by itself.
type OutKind uint8

// Kinds of an OutAction.
const (
	OutNothing OutKind = iota
	// OutFound makes the layout of a group of an older version explicit.
	OutFound
	// OutForget ends a move that has left and is recorded.
	OutForget
	// OutAbort ends a move that has not left and is in no record any more.
	OutAbort
	// OutPurge deletes the next part of what was given away.
	OutPurge
	// OutYield gives up slots that another group has accepted, as the record says.
	OutYield
)

// OutAction is one step.
type OutAction struct {
	Kind  OutKind
	Move  format.MoveID
	Peer  keyspace.GroupID
	Slots format.SlotSet
}

// NextOut decides the part of moves that belongs to the group that gives slots
// away. The move itself is the receiver's to drive.
//
// A recovery after the loss of a quorum (DESIGN 11) may take the last steps of a
// move out of one of its logs. So a move is not forgotten on the word of the record
// alone: the receiver is asked whether it has the slots, and if not, the move is put
// back into the record, and is driven again from what both logs have (relist). And
// slots that the receiver accepted while their former owner's log lost that it left
// are given up again (OutYield): between two owners the receiver stays, since
// requests go to it.
func NextOut(s *format.SlotState, r *Metadata) OutAction {
	switch {
	case s == nil && r.Known:
		// A group without a layout of its own was never part of a move, so the
		// record says what it was founded with.
		return OutAction{Kind: OutFound, Slots: r.Owned}
	case s == nil:
		return OutAction{}
	case s.Out != nil && s.Out.ID < r.Next && !r.Listed[s.Out.ID]:
		kind := OutAbort
		switch {
		case s.Out.Left:
			kind = OutForget
		case r.ownsAll(s.Out.To, &s.Out.Slots):
			kind = OutYield
		}
		return OutAction{Kind: kind, Move: s.Out.ID, Peer: s.Out.To, Slots: s.Out.Slots}
	case s.Purging:
		return OutAction{Kind: OutPurge}
	case s.Out == nil:
		return r.lost(s)
	}
	return OutAction{}
}

// ownsAll reports whether the record has a higher group own all of slots.
func (r *Metadata) ownsAll(g keyspace.GroupID, slots *format.SlotSet) bool {
	return slices.ContainsFunc(r.Higher, func(o format.SlotOwner) bool { return o.Group == g && o.Slots.Contains(slots) })
}

// lost yields what the group owns although the record has a higher group own it.
func (r *Metadata) lost(s *format.SlotState) OutAction {
	for _, o := range r.Higher {
		if s.Owned.Meets(&o.Slots) {
			rest := s.Owned.Without(&o.Slots)
			return OutAction{Kind: OutYield, Peer: o.Group, Slots: s.Owned.Without(&rest)}
		}
	}
	return OutAction{}
}

// purgeKeys bounds the keys that one entry deletes.
const purgeKeys = 256

// clearing is one run of steps of a group that gave slots away.
type clearing struct {
	m     *Mover
	group keyspace.GroupID
	own   *format.SlotState
}

// run takes steps until there is nothing to do; one while there is a move to the
// group, which comes first.
func (c *clearing) run(ctx context.Context) error {
	for ctx.Err() == nil {
		view := c.m.o.Directory.Map()
		a := NextOut(c.own, recordOf(c.group, view))
		if a.Kind == OutNothing {
			return nil
		}
		if err := c.act(ctx, a); err != nil {
			return err
		}
		if _, ok := view.MoveTo(c.group); ok {
			return nil
		}
	}
	return nil
}

func (c *clearing) act(ctx context.Context, a OutAction) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	change := format.SlotChange{Move: a.Move, Peer: a.Peer, Slots: a.Slots}
	switch a.Kind {
	case OutPurge:
		return c.purge(ctx)
	case OutFound:
		change.Kind = format.SlotFound
	case OutYield:
		return c.yield(ctx, change)
	case OutForget:
		change.Kind = format.SlotForget
		if back, err := c.relist(ctx, &a); back || err != nil {
			return err
		}
	default:
		change.Kind = format.SlotAbort
	}
	return c.step(ctx, change)
}

func (c *clearing) step(ctx context.Context, change format.SlotChange) error {
	answer, err := c.m.o.Host.ChangeSlots(ctx, c.group, change)
	if err != nil {
		return err
	}
	c.own = answer.Slots
	return nil
}

// relist puts a move that has left back into the record when the receiver turns
// out not to have its slots: back.
func (c *clearing) relist(ctx context.Context, a *OutAction) (back bool, err error) {
	peer, err := c.m.o.Sender.SlotStatus(ctx, a.Peer)
	if err != nil {
		return false, err
	}
	if s := peer.Slots; s != nil {
		if had := s.Owned.With(&s.Gone); had.Contains(&a.Slots) {
			return false, nil
		}
	}
	c.m.o.Logger.Warn("slots that have left are not where they went; the move goes on", "move", a.Move, "from", c.group, "to", a.Peer, "slots", a.Slots.Count())
	if err := c.m.relist(ctx, Move{ID: a.Move, From: c.group, To: a.Peer, Slots: a.Slots}); err != nil {
		return true, err
	}
	return true, fault.New(fault.Unavailable, "a move of slots was put back into the record", "move", uint64(a.Move), "from", c.group, "to", a.Peer)
}

// yield gives up slots that another group has accepted, by a freeze and a leave of
// the move by which it did.
func (c *clearing) yield(ctx context.Context, change format.SlotChange) error {
	peer, err := c.m.o.Sender.SlotStatus(ctx, change.Peer)
	if err != nil {
		return err
	}
	if peer.Slots == nil || !peer.Slots.Owned.Contains(&change.Slots) {
		return fault.New(fault.FailedPrecondition, "slots are owned twice in the record but not in the logs", "group", c.group, "other", change.Peer, "slots", &change.Slots)
	}
	if change.Move == 0 {
		change.Move = max(peer.Slots.Accepted, c.own.EndedOut+1)
	}
	c.m.o.Logger.Warn("slots are owned by two groups; this one gives them up", "group", c.group, "other", change.Peer, "slots", change.Slots.Count())
	change.Kind = format.SlotFreeze
	if err := c.step(ctx, change); err != nil {
		return err
	}
	if c.own == nil || c.own.Out == nil {
		return fault.New(fault.Unavailable, "the slots were not frozen", "group", c.group)
	}
	change.Kind, change.Nonce = format.SlotLeave, c.own.Out.Nonce
	return c.step(ctx, change)
}

// purge deletes one page of what the group does not own, and waits for as long
// as copying it would take.
func (c *clearing) purge(ctx context.Context) error {
	keys, last, done, err := c.m.o.Host.LeftoverPage(ctx, c.group, c.own.Purged, purgeKeys)
	if err != nil {
		return err
	}
	change := format.SlotChange{Kind: format.SlotPurged, Move: c.own.EndedOut, Cursor: last, Done: done}
	if err := c.m.o.Host.ImportSlots(ctx, c.group, change, keys); err != nil {
		return err
	}
	next := *c.own
	next.Purged, next.Purging = last, !done
	c.own = &next
	return c.m.pacer.wait(ctx, purgeCost*max(1, len(keys)))
}

// purgeCost is what a deletion counts as, in bytes of a copy: reading for it and
// rewriting its file later.
const purgeCost = 1 << 10
