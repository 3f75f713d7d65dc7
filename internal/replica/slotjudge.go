package replica

import (
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// judgeSlots tells whether a step may be taken in the state s of group g, and
// whether it was already: done.
func judgeSlots(g keyspace.GroupID, s *format.SlotState, c *format.SlotChange) (done bool, err error) {
	j := slotJudge{group: g, state: s, change: c}
	switch {
	case g == keyspace.MetaGroup:
		return false, j.invalid("the meta group owns no slots")
	case c.Kind == format.SlotFound:
		return j.found()
	case c.Move == 0 && c.Kind != format.SlotPurged:
		return false, j.invalid("the step names no move")
	case s == nil:
		return false, j.fails("the group does not know its slots yet")
	}
	judge := slotJudges[c.Kind]
	if judge == nil {
		return false, j.invalid("unknown step of a move of slots")
	}
	return judge(&j)
}

// slotJudge is one step before the state that it would change.
type slotJudge struct {
	group  keyspace.GroupID
	state  *format.SlotState
	change *format.SlotChange
}

var slotJudges = map[format.SlotOpKind]func(*slotJudge) (bool, error){
	format.SlotBegin:  (*slotJudge).begin,
	format.SlotImport: (*slotJudge).imported,
	format.SlotReady:  (*slotJudge).ready,
	format.SlotAccept: (*slotJudge).accept,
	format.SlotFreeze: (*slotJudge).freeze,
	format.SlotThaw:   (*slotJudge).thaw,
	format.SlotLeave:  (*slotJudge).leave,
	format.SlotForget: (*slotJudge).forget,
	format.SlotAbort:  (*slotJudge).abort,
	format.SlotPurged: (*slotJudge).purged,
}

// fails refuses a step; kv are more details.
func (j *slotJudge) fails(why string, kv ...any) error {
	return fault.New(fault.FailedPrecondition, why, append(kv, "group", j.group, "move", uint64(j.change.Move), "step", j.change.Kind)...)
}

func (j *slotJudge) invalid(why string, kv ...any) error {
	return fault.New(fault.InvalidArgument, why, append(kv, "group", j.group, "move", uint64(j.change.Move), "step", j.change.Kind)...)
}

// in and out tell whether the step's move is the one under way.
func (j *slotJudge) in() bool  { return j.state.In != nil && j.state.In.ID == j.change.Move }
func (j *slotJudge) out() bool { return j.state.Out != nil && j.state.Out.ID == j.change.Move }

func (j *slotJudge) found() (bool, error) {
	switch {
	case j.state == nil:
		return false, nil
	case j.state.Owned == j.change.Slots:
		return true, nil
	}
	return false, j.fails("the group knows its slots already", "owned", &j.state.Owned)
}

func (j *slotJudge) begin() (bool, error) {
	s, c := j.state, j.change
	switch {
	case j.in() && s.In.From == c.Peer && s.In.Slots == c.Slots:
		return true, nil
	case s.In != nil:
		return false, j.fails("another move to the group is under way", "under_way", uint64(s.In.ID))
	case c.Move <= s.EndedIn:
		return false, j.fails("the move has ended", "ended", uint64(s.EndedIn))
	case c.Peer == keyspace.MetaGroup || c.Peer >= j.group:
		return false, j.invalid("slots move to groups of higher ids only", "from", c.Peer)
	case c.Slots.Empty():
		return false, j.invalid("the move names no slots")
	case s.Owned.Meets(&c.Slots):
		return false, j.fails("the group owns slots of the move", "owned", &s.Owned)
	case s.Gone.Meets(&c.Slots):
		return false, j.fails("the group gave slots of the move away and never takes them back", "gone", &s.Gone)
	}
	return false, nil
}

func (j *slotJudge) imported() (bool, error) {
	if !j.in() {
		return false, j.noMoveIn()
	}
	return false, nil
}

func (j *slotJudge) ready() (bool, error) {
	s, c := j.state, j.change
	switch {
	case !j.in():
		return false, j.noMoveIn()
	case c.Nonce == 0:
		return false, j.invalid("the step names no freeze")
	case s.In.Phase == format.SlotsReady && s.In.Nonce == c.Nonce:
		return true, nil
	case !s.In.Copied:
		return false, j.fails("not all of the slots is copied yet")
	}
	return false, nil
}

func (j *slotJudge) accept() (bool, error) {
	s, c := j.state, j.change
	switch {
	case !j.in() && c.Move == s.Accepted:
		return true, nil
	case !j.in():
		return false, j.noMoveIn()
	case s.In.Phase != format.SlotsReady:
		return false, j.fails("the group does not have all of the slots yet")
	case c.Nonce != 0 && c.Nonce != s.In.Nonce:
		return false, j.fails("the group has the slots up to another freeze", "nonce", c.Nonce, "has", s.In.Nonce)
	case c.Ceiling == 0:
		return false, j.invalid("the step names no ceiling of the former owner")
	}
	return false, nil
}

func (j *slotJudge) noMoveIn() error {
	if j.change.Move <= j.state.EndedIn {
		return j.fails("the move has ended", "ended", uint64(j.state.EndedIn))
	}
	return j.fails("no such move to the group is under way")
}

func (j *slotJudge) freeze() (bool, error) {
	s, c := j.state, j.change
	switch {
	case c.Peer <= j.group:
		return false, j.invalid("slots move to groups of higher ids only", "to", c.Peer)
	case c.Slots.Empty():
		return false, j.invalid("the move names no slots")
	case j.out() && (s.Out.To != c.Peer || s.Out.Slots != c.Slots):
		return false, j.fails("the move is one of other slots", "to", s.Out.To, "slots", &s.Out.Slots)
	case j.out() && s.Out.Left:
		return false, j.fails("the slots have been given up")
	case j.out() && s.Out.Nonce == nonceInFlight:
		return false, fault.New(fault.Unavailable, "the slots are being frozen", "group", j.group).WithRetry(frozenHint)
	case j.out():
		return s.Out.Nonce != 0, nil
	case s.Out != nil:
		return false, j.fails("another move from the group is under way", "under_way", uint64(s.Out.ID))
	case c.Move <= s.EndedOut:
		return false, j.fails("the move has ended", "ended", uint64(s.EndedOut))
	case !s.Owned.Contains(&c.Slots):
		return false, j.fails("the group does not own all slots of the move", "owned", &s.Owned)
	}
	return false, nil
}

func (j *slotJudge) thaw() (bool, error) {
	s, c := j.state, j.change
	switch {
	case c.Nonce == 0:
		return false, j.invalid("the step names no freeze")
	case !j.out() && c.Move <= s.EndedOut:
		return true, nil
	case !j.out():
		return false, j.fails("no such move from the group is under way")
	case s.Out.Left:
		return false, j.fails("the slots have been given up")
	case c.Nonce < s.Out.Nonce, s.Out.Nonce == 0:
		return true, nil // undone before
	case c.Nonce != s.Out.Nonce:
		return false, j.fails("there was no such freeze", "nonce", c.Nonce, "frozen_by", s.Out.Nonce)
	}
	return false, nil
}

func (j *slotJudge) leave() (bool, error) {
	s, c := j.state, j.change
	switch {
	case c.Nonce == 0:
		return false, j.invalid("the step names no freeze")
	case !j.out() && c.Move <= s.EndedOut:
		return false, j.fails("the move has ended", "ended", uint64(s.EndedOut))
	case !j.out():
		return false, j.fails("no such move from the group is under way")
	case s.Out.Nonce != c.Nonce:
		return false, j.fails("the freeze was undone, or is another one", "nonce", c.Nonce)
	}
	return s.Out.Left, nil
}

func (j *slotJudge) forget() (bool, error) {
	switch s := j.state; {
	case j.out() && s.Out.Left:
		return false, nil
	case j.out():
		return false, j.fails("the slots have not been given up")
	case j.change.Move <= s.EndedOut:
		return true, nil
	}
	return false, j.fails("no such move from the group is under way")
}

func (j *slotJudge) abort() (bool, error) {
	s, c := j.state, j.change
	switch {
	case c.Peer == keyspace.MetaGroup || c.Peer == j.group:
		return false, j.invalid("the step does not name the other group of the move", "peer", c.Peer)
	case c.Peer < j.group:
		return !j.in() && c.Move <= s.EndedIn, nil
	case j.out() && s.Out.Left:
		return false, j.fails("the slots have been given up; the move can only go on")
	}
	return !j.out() && c.Move <= s.EndedOut, nil
}

func (j *slotJudge) purged() (bool, error) {
	s, c := j.state, j.change
	switch {
	case c.Move != s.EndedOut:
		return false, j.fails("the purge was begun anew by a later move", "ended", uint64(s.EndedOut))
	case s.Purging:
		return false, nil
	case c.Done:
		return true, nil
	}
	return false, j.fails("the group is not purging")
}
