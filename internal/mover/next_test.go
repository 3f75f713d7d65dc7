package mover

import (
	"testing"
	"time"

	"kvstore/internal/format"
)

var moved = format.FoundingSlots(1, 8)

// TestNext goes through phases, cancellation and what the sender says.
func TestNext(t *testing.T) {
	const id = 5
	in := func(change func(*format.SlotsIn)) *format.SlotState {
		s := &format.SlotState{In: &format.SlotsIn{ID: id, From: 1, Slots: moved, Phase: format.SlotsCopying}}
		change(s.In)
		return s
	}
	copied := func(i *format.SlotsIn) { i.Copied, i.Base = true, 40 }
	ready := func(i *format.SlotsIn) {
		i.Copied, i.Base, i.Phase, i.Nonce, i.Floor = true, 50, format.SlotsReady, 50, 7
	}
	owner := &format.SlotState{Owned: moved}
	out := func(o format.SlotsOut) *format.SlotState {
		o.ID, o.To, o.Slots = id, 2, moved
		s := &format.SlotState{Owned: moved, Out: &o}
		if o.Left {
			s.Owned, s.Gone = format.SlotSet{}, moved
		}
		return s
	}
	gone := &format.SlotState{Gone: moved, EndedOut: id}
	aborted := &format.SlotState{Owned: moved, EndedOut: id}
	for _, c := range []struct {
		name   string
		own    *format.SlotState
		sender *format.SlotState
		change func(*View)
		want   Action
	}{
		{name: "founded by an older version", own: nil, want: Action{Kind: Found}},
		{name: "new", own: &format.SlotState{}, want: Action{Kind: Begin}},
		{name: "new and paused", own: &format.SlotState{}, change: func(v *View) { v.Paused = true }, want: wait("moves are paused")},
		{name: "new, group not complete", own: &format.SlotState{}, change: func(v *View) { v.Complete = false }, want: wait("the group is not complete")},
		{name: "cancelled before it began", own: &format.SlotState{}, sender: owner, change: cancel, want: Action{Kind: AbortSender}},
		{name: "cancelled before it began, sender knows", own: &format.SlotState{}, sender: aborted, change: cancel, want: Action{Kind: AbortOwn}},
		{name: "another one is under way", own: &format.SlotState{In: &format.SlotsIn{ID: 4}}, want: wait("another move to the group is under way")},
		{name: "ended with the slots", own: &format.SlotState{Owned: moved, EndedIn: id}, want: Action{Kind: Record}},
		{name: "ended without", own: &format.SlotState{EndedIn: id}, want: Action{Kind: Unlist}},
		{name: "ended and recorded", own: &format.SlotState{Owned: moved, EndedIn: id}, change: unlist, want: Action{Kind: Finished}},
		{name: "not known at all", own: &format.SlotState{}, change: unlist, want: Action{Kind: Finished}},

		{name: "copying, sender not asked", own: in(nothing), change: func(v *View) { v.Asked = false }, want: Action{Kind: Ask}},
		{name: "copying, sender without a layout", own: in(nothing), want: wait("the sending group has not recorded its slots")},
		{name: "copying", own: in(nothing), sender: owner, want: Action{Kind: Copy}},
		{name: "copying, paused", own: in(nothing), sender: owner, change: func(v *View) { v.Paused = true }, want: wait("moves are paused")},
		{name: "copying, cancelled", own: in(nothing), sender: owner, change: cancel, want: Action{Kind: AbortSender}},
		{name: "copying, not in the record", own: in(nothing), sender: owner, change: unlist, want: Action{Kind: AbortSender}},
		{name: "copying, sender has ended it", own: in(nothing), sender: aborted, want: Action{Kind: AbortOwn}},
		{name: "copying, sender does not own the slots", own: in(nothing), sender: &format.SlotState{}, want: Action{Kind: AbortSender}},
		{name: "copying, but sender has left", own: in(nothing), sender: out(format.SlotsOut{Nonce: 50, Left: true}), want: Action{Kind: Copy}},
		{name: "copied, but sender has left", own: in(copied), sender: out(format.SlotsOut{Nonce: 50, Left: true}), change: func(v *View) { v.Paused = true }, want: Action{Kind: Tail, Nonce: 50}},
		{name: "copied up to it, but sender has left", own: in(copied), sender: out(format.SlotsOut{Nonce: 40, Left: true}), want: Action{Kind: Ready, Nonce: 40}},
		{name: "copying, but sender has forgotten", own: in(nothing), sender: gone, want: wait("a later leader has accepted")},
		{name: "copying again while frozen", own: in(nothing), sender: out(format.SlotsOut{Nonce: 50}), want: Action{Kind: Copy}},

		{name: "copied", own: in(copied), sender: owner, change: func(v *View) { v.TailTime = 0 }, want: Action{Kind: Tail}},
		{name: "copied, long round", own: in(copied), sender: owner, change: func(v *View) { v.TailTime = time.Second }, want: Action{Kind: Tail}},
		{name: "copied, large round", own: in(copied), sender: owner, change: func(v *View) { v.TailBytes = smallTail + 1 }, want: Action{Kind: Tail}},
		{name: "copied, small round", own: in(copied), sender: owner, want: Action{Kind: Freeze}},
		{name: "copied, paused", own: in(copied), sender: owner, change: func(v *View) { v.Paused = true }, want: wait("moves are paused")},
		{name: "copied, cancelled", own: in(copied), sender: owner, change: cancel, want: Action{Kind: AbortSender}},
		{name: "copied, thawed", own: in(copied), sender: out(format.SlotsOut{}), want: Action{Kind: Freeze}},
		{name: "copied, frozen", own: in(copied), sender: out(format.SlotsOut{Nonce: 50}), want: Action{Kind: Tail, Nonce: 50}},
		{name: "copied, frozen, paused", own: in(copied), sender: out(format.SlotsOut{Nonce: 50}), change: func(v *View) { v.Paused = true }, want: Action{Kind: Tail, Nonce: 50}},
		{name: "copied, frozen, cancelled", own: in(copied), sender: out(format.SlotsOut{Nonce: 50}), change: cancel, want: Action{Kind: AbortSender}},
		{name: "copied, frozen, all there", own: in(copied), sender: out(format.SlotsOut{Nonce: 40}), want: Action{Kind: Ready, Nonce: 40}},

		{name: "ready", own: in(ready), sender: out(format.SlotsOut{Nonce: 50}), want: Action{Kind: Leave, Nonce: 50}},
		{name: "ready, cancelled", own: in(ready), sender: out(format.SlotsOut{Nonce: 50}), change: cancel, want: Action{Kind: AbortSender}},
		{name: "ready, thawed", own: in(ready), sender: out(format.SlotsOut{}), want: Action{Kind: Freeze}},
		{name: "ready, frozen anew", own: in(ready), sender: out(format.SlotsOut{Nonce: 60}), want: Action{Kind: Tail, Nonce: 60}},
		{name: "ready, sender has ended it", own: in(ready), sender: aborted, want: Action{Kind: AbortOwn}},
		{name: "left", own: in(ready), sender: out(format.SlotsOut{Nonce: 50, Left: true, Ceiling: 90, Floor: 3}), want: Action{Kind: Accept, Nonce: 50, Ceiling: 90, Floor: 7}},
		{name: "left, cancelled", own: in(ready), sender: out(format.SlotsOut{Nonce: 50, Left: true, Ceiling: 90, Floor: 9}), change: cancel, want: Action{Kind: Accept, Nonce: 50, Ceiling: 90, Floor: 9}},
		{name: "left, paused", own: in(ready), sender: out(format.SlotsOut{Nonce: 50, Left: true}), change: func(v *View) { v.Paused = true }, want: Action{Kind: Accept, Nonce: 50, Floor: 7}},
		{name: "left with a later freeze", own: in(ready), sender: out(format.SlotsOut{Nonce: 60, Left: true}), want: Action{Kind: Tail, Nonce: 60}},
		{name: "ready, sender has forgotten", own: in(ready), sender: gone, want: wait("a later leader has accepted")},
	} {
		v := View{Move: Move{ID: id, From: 1, To: 2, Slots: moved, Listed: true}, Own: c.own, Asked: true, Sender: c.sender,
			Complete: true, TailTime: time.Millisecond}
		if c.change != nil {
			c.change(&v)
		}
		if got := Next(&v); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func nothing(*format.SlotsIn) {}
func cancel(v *View)          { v.Move.Cancelled = true }
func unlist(v *View)          { v.Move.Listed = false }
