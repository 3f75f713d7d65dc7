package mover

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// afterRecovery is a sender and a receiver of which a recovery took steps away, and
// the record. Steps of the sender happen as its log would take them.
type afterRecovery struct {
	Host
	Sender
	sender, receiver *format.SlotState
	view             *router.Map
	steps            []format.SlotOpKind
	written          *format.SlotsRecord
}

func (a *afterRecovery) ChangeSlots(_ context.Context, _ keyspace.GroupID, c format.SlotChange) (host.SlotAnswer, error) {
	a.steps = append(a.steps, c.Kind)
	s := *a.sender
	switch c.Kind { //nolint:exhaustive // of a sender's
	case format.SlotFreeze:
		s.Out = &format.SlotsOut{ID: c.Move, To: c.Peer, Slots: c.Slots, Nonce: 77}
	case format.SlotLeave:
		if c.Nonce != s.Out.Nonce {
			return host.SlotAnswer{}, fault.New(fault.FailedPrecondition, "another freeze", "nonce", c.Nonce)
		}
		out := *s.Out
		out.Left = true
		s.Out, s.Owned, s.Gone = &out, s.Owned.Without(&out.Slots), s.Gone.With(&out.Slots)
	case format.SlotForget, format.SlotAbort:
		s.Out, s.EndedOut = nil, c.Move
	}
	a.sender = &s
	return host.SlotAnswer{Slots: &s}, nil
}

func (a *afterRecovery) SlotStatus(context.Context, keyspace.GroupID) (router.SlotStatus, error) {
	return router.SlotStatus{Slots: a.receiver}, nil
}

func (a *afterRecovery) Put(_ context.Context, q *api.PutRequest) (*api.PutResponse, error) {
	r, err := format.DecodeSystem[format.SlotsRecord](q.Key, q.Value)
	a.written = &r
	return &api.PutResponse{}, err
}

func (a *afterRecovery) Map() *router.Map              { return a.view }
func (a *afterRecovery) Refresh(context.Context) error { return nil }

// A recovery takes steps of move 5, from group 1 to group 2, out of one of the logs,
// while the record says that group 2 owns the slots.
func TestMovesAfterARecovery(t *testing.T) {
	const id = 5
	left := &format.SlotState{Gone: moved, Out: &format.SlotsOut{ID: id, To: 2, Slots: moved, Nonce: 70, Left: true}}
	thawed := &format.SlotState{Owned: moved, Out: &format.SlotsOut{ID: id, To: 2, Slots: moved}}
	accepted := &format.SlotState{Owned: moved, EndedIn: id, Accepted: id}
	for _, c := range []struct {
		name             string
		sender, receiver *format.SlotState
		steps            []format.SlotOpKind
		relisted, fails  bool
	}{
		{name: "nothing was lost", sender: left, receiver: accepted, steps: []format.SlotOpKind{format.SlotForget}},
		{name: "moved on since", sender: left, receiver: &format.SlotState{Gone: moved}, steps: []format.SlotOpKind{format.SlotForget}},
		{name: "the receiver lost that it accepted", sender: left, receiver: &format.SlotState{In: &format.SlotsIn{ID: id}}, relisted: true, fails: true},
		{name: "the receiver lost the whole move", sender: left, receiver: &format.SlotState{}, relisted: true, fails: true},
		{name: "the receiver lost all it knew", sender: left, relisted: true, fails: true},
		{name: "the sender lost that it left", sender: thawed, receiver: accepted, steps: []format.SlotOpKind{format.SlotFreeze, format.SlotLeave}},
		{name: "the sender lost the whole move", sender: &format.SlotState{Owned: moved}, receiver: accepted, steps: []format.SlotOpKind{format.SlotFreeze, format.SlotLeave}},
		{name: "the record alone has two owners", sender: &format.SlotState{Owned: moved}, receiver: &format.SlotState{}, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &afterRecovery{sender: c.sender, receiver: c.receiver, view: &router.Map{Groups: 2, Slots: &router.SlotMap{NextMove: id + 1, Owner: new([keyspace.SlotCount]keyspace.GroupID)}}}
			for slot := range keyspace.SlotCount {
				a.view.Slots.Owner[slot] = 1
			}
			for slot := range moved.All() {
				a.view.Slots.Owner[slot] = 2
			}
			m := &Mover{o: Options{Host: a, Sender: a, Store: a, Directory: a, Logger: slog.New(slog.DiscardHandler)}}
			do := &clearing{m: m, group: 1, own: c.sender}
			err := do.act(t.Context(), NextOut(c.sender, recordOf(1, a.view)))
			if (err != nil) != c.fails || !slices.Equal(a.steps, c.steps) || (a.written != nil) != c.relisted {
				t.Fatalf("steps %v, %v, written %+v", a.steps, err, a.written)
			}
			switch {
			case c.relisted:
				r := a.written
				if len(r.Moves) != 1 || r.Moves[0].ID != id || r.Moves[0].To != 2 || !r.Owners[0].Slots.Contains(&moved) || r.Owners[1].Slots.Meets(&moved) {
					t.Fatalf("the record is %+v", r)
				}
			case !c.fails && a.sender.Owned.Meets(&moved):
				t.Fatalf("the sender still owns %v", &a.sender.Owned)
			}
		})
	}
}

// What was given up twice is forgotten then, and what was put back is driven again.
func TestDrivingAgainAfterARecovery(t *testing.T) {
	const id = 5
	left := &format.SlotState{Gone: moved, Out: &format.SlotsOut{ID: id, To: 2, Slots: moved, Nonce: 70, Left: true}}
	known := &Metadata{Known: true, Next: id + 1, Listed: map[format.MoveID]bool{}, Higher: []format.SlotOwner{{Group: 2, Slots: moved}}}
	if got := NextOut(left, known); got.Kind != OutForget {
		t.Fatalf("%+v", got)
	}
	if got := NextOut(&format.SlotState{Gone: moved, EndedOut: id}, known); got.Kind != OutNothing {
		t.Fatalf("%+v", got)
	}
	move := Move{ID: id, From: 1, To: 2, Slots: moved, Listed: true}
	for _, cancelled := range []bool{false, true} {
		move.Cancelled = cancelled
		v := &View{Move: move, Own: &format.SlotState{}, Asked: true, Sender: left, Complete: true}
		if got := Next(v); got.Kind != Begin {
			t.Errorf("cancelled %t: %+v", cancelled, got)
		}
	}
}
