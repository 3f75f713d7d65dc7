package mover

import (
	"time"

	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// Move is a move of slots as the record of the slots has it, or what the
// receiver's log has of one that the record does not list.
type Move struct {
	ID       format.MoveID
	From, To keyspace.GroupID
	Slots    format.SlotSet
	// Cancelled: an operator wants no more of it. It goes on nevertheless when the
	// sender has left already.
	Cancelled bool
	// Listed: the record names it. A move that is not listed, although the record
	// is newer than its id, has ended; what is left of it is cleared away.
	Listed bool
}

// View is what the receiver's leader knows of a move.
type View struct {
	Move Move
	// Own is the receiver's state as applied by its serving leader.
	Own *format.SlotState
	// Asked: Sender is the sender's state, read from its serving leader after Own.
	Asked  bool
	Sender *format.SlotState
	// Complete: all voters that the receiver should have are there. A move begins
	// only then.
	Complete bool
	// Paused: nothing is copied and no slot is frozen.
	Paused bool
	// TailBytes and TailTime are what the last round of changes brought and took;
	// TailTime is 0 before the first.
	TailBytes int
	TailTime  time.Duration
	// Bugs are planted by the simulation only.
	Bugs invariant.Bug
}

// Kind is what the receiver's leader does next.
type Kind uint8

// Kinds of an Action.
const (
	// Wait: nothing can be done now; look again later.
	Wait Kind = iota
	// Finished: nothing is left to do for this move here.
	Finished
	// Ask reads the sender's state.
	Ask
	// Found makes the receiver's layout explicit, Begin opens the move there.
	Found
	Begin
	// Copy imports the next page of the sender's records.
	Copy
	// Tail imports what changed at the sender meanwhile, up to Action.Nonce when
	// that is not 0, else up to now.
	Tail
	// Freeze stops the sender's writes of the slots.
	Freeze
	// Ready notes at the receiver that it has all up to the freeze of Action.Nonce.
	Ready
	// Leave makes the sender give the slots up, Accept makes the receiver own
	// them, above Action.Ceiling and whole from Action.Floor on.
	Leave
	Accept
	// AbortSender and AbortOwn end a move that has not left, the sender's side
	// first.
	AbortSender
	AbortOwn
	// Record makes the receiver the owner in the record and takes the move out of
	// it; Unlist only takes it out.
	Record
	Unlist
)

// Action is one step.
type Action struct {
	Kind    Kind
	Nonce   keyspace.Index
	Ceiling keyspace.Revision
	Floor   keyspace.Revision
	// LowWater is the sender's mark of transactions, which the receiver takes over.
	LowWater keyspace.Revision
	// Why a move waits, for operators.
	Why string
}

// What a round of changes may have brought and taken for the next one to be made
// while the sender's writes wait: the pause that clients see is about as long.
const (
	smallTail  = 1 << 20
	shortRound = 200 * time.Millisecond
)

// Next is the whole procedure of a move, as seen from the receiver. It depends
// on nothing but the View, and the steps may be repeated: each is refused or
// without effect where it was taken already. So it does not matter who took the
// last one, or whether its answer was lost.
//
// What it must never do: have the receiver accept what the sender has not left,
// or before all of it is in the receiver's log (the nonces of freeze, ready and
// leave are one); end a move on the receiver while the sender may still leave;
// and take a move out of the record before both logs have ended it.
func Next(v *View) Action {
	s := v.Own
	switch {
	case s == nil:
		return Action{Kind: Found}
	case v.Move.ID <= s.EndedIn:
		return v.ended()
	case s.In != nil && s.In.ID != v.Move.ID:
		return wait("another move to the group is under way")
	case !v.Move.Listed && s.In == nil:
		return Action{Kind: Finished}
	case s.In == nil && !v.Move.Cancelled:
		return v.begin()
	case !v.Asked:
		return Action{Kind: Ask}
	case v.Sender == nil:
		return wait("the sending group has not recorded its slots")
	}
	return v.underway()
}

func wait(why string) Action { return Action{Kind: Wait, Why: why} }

// ended is what remains when the receiver's log is done with the move.
func (v *View) ended() Action {
	switch {
	case !v.Move.Listed:
		return Action{Kind: Finished}
	case v.Own.Owned.Contains(&v.Move.Slots):
		return Action{Kind: Record}
	}
	return Action{Kind: Unlist}
}

func (v *View) begin() Action {
	switch {
	case v.Paused:
		return wait("moves are paused")
	case !v.Complete:
		return wait("the group is not complete")
	}
	return Action{Kind: Begin}
}

// underway decides a move that is open, or cancelled before it was.
func (v *View) underway() Action {
	out := v.out()
	switch {
	case out != nil && out.Left:
		return v.left(out)
	case v.Sender.EndedOut >= v.Move.ID && v.Sender.Gone.Contains(&v.Move.Slots):
		return wait("a later leader has accepted") // and the map shows it
	case v.Sender.EndedOut >= v.Move.ID:
		return Action{Kind: AbortOwn}
	case v.Move.Cancelled || !v.Move.Listed || !v.Sender.Owned.Contains(&v.Move.Slots):
		return Action{Kind: AbortSender}
	case out != nil && out.Nonce != 0 && v.Own.In.Copied:
		return v.frozen(out.Nonce)
	case v.Paused:
		return wait("moves are paused")
	case !v.Own.In.Copied:
		return Action{Kind: Copy}
	case v.TailTime == 0 || v.TailTime > shortRound || v.TailBytes > smallTail:
		return Action{Kind: Tail}
	}
	return Action{Kind: Freeze}
}

// out is the sender's part of the move, nil when it has none.
func (v *View) out() *format.SlotsOut {
	if o := v.Sender.Out; o != nil && o.ID == v.Move.ID {
		return o
	}
	return nil
}

// left goes forward, paused or not: nobody owns the slots now. The receiver was
// ready once, but one of its leaders that did not see the freeze may have gone on
// with the copy before the sender left. What the sender had then it still has.
func (v *View) left(out *format.SlotsOut) Action {
	in := v.Own.In
	switch {
	case in == nil:
		// A later leader has accepted, and refuses this; or the log has lost the move.
		return Action{Kind: Begin}
	case in.Phase == format.SlotsReady && in.Nonce == out.Nonce:
		return Action{Kind: Accept, Nonce: out.Nonce, Ceiling: out.Ceiling, Floor: max(out.Floor, in.Floor), LowWater: out.LowWater}
	case !in.Copied:
		return Action{Kind: Copy}
	}
	return v.upTo(out.Nonce)
}

// frozen ends the move before the sender undoes the freeze.
func (v *View) frozen(nonce keyspace.Index) Action {
	if in := v.Own.In; in.Phase == format.SlotsReady && in.Nonce == nonce {
		return Action{Kind: Leave, Nonce: nonce}
	}
	return v.upTo(nonce)
}

// upTo has all up to a freeze imported, and then says so.
func (v *View) upTo(nonce keyspace.Index) Action {
	if v.Own.In.Base >= nonce || v.Bugs.Has(invariant.BugLastTailMissing) {
		return Action{Kind: Ready, Nonce: nonce}
	}
	return Action{Kind: Tail, Nonce: nonce}
}
