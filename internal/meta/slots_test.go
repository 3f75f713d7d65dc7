package meta

import (
	"testing"
	"testing/synctest"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// grown is the record of a cluster that was founded with four groups and has
// six: two moves go to the fifth and sixth, which own nothing yet.
func grown(t *testing.T) format.SlotsRecord {
	t.Helper()
	r := format.FoundingSlotsRecord(4)
	r.Epoch, r.NextMove = 7, 4
	r.Owners = append(r.Owners, format.SlotOwner{Group: 5}, format.SlotOwner{Group: 6})
	for id, text := range map[format.MoveID]string{2: "0-99", 3: "1024-1100"} {
		slots, err := format.ParseSlotSet(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Moves = append(r.Moves, format.SlotMoveRecord{ID: id, From: keyspace.GroupID(id) - 1, To: keyspace.GroupID(id) + 3, Slots: slots, Reason: "growth", Since: 1})
	}
	if r.Moves[0].ID > r.Moves[1].ID {
		r.Moves[0], r.Moves[1] = r.Moves[1], r.Moves[0]
	}
	return r
}

func TestSlotMapIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		before := *s.dir.Map()
		if g, ok := before.GroupOf(4095); before.Slots != nil || !ok || g != 4 {
			t.Fatalf("before there is a record: group %d, %v", g, before.Slots)
		}
		r := grown(t)
		s.write(format.SystemSlotsKey, r)
		s.write(format.SystemFoundingKey(7), format.FoundingRecord{Node: "id-d", Replica: 1, Since: 5})
		m := s.dir.Map()
		if m.Epoch <= before.Epoch || m.Groups != 6 || m.Slots.Epoch != 7 || m.Slots.NextMove != 4 || m.Slots.Version != 1 {
			t.Fatalf("epoch %d after %d, %d groups, slots %+v", m.Epoch, before.Epoch, m.Groups, m.Slots)
		}
		if f := m.Founding[7]; f.Node != "id-d" || f.Replica != 1 || f.Since != 5 || f.Version != 1 {
			t.Errorf("founding %+v", m.Founding)
		}
		for _, g := range []keyspace.GroupID{1, 4, 5} {
			if m.Owned(g) != before.Owned(g) {
				t.Errorf("group %d owns something else than before", g)
			}
		}
		if to, ok := m.MoveTo(6); !ok || to.ID != 3 || to.From != 2 {
			t.Errorf("move to group 6: %+v", to)
		}
		if from, ok := m.MoveFrom(1); !ok || from.ID != 2 {
			t.Errorf("move from group 1: %+v", from)
		}
		if _, ok := m.MoveTo(1); ok {
			t.Error("nothing moves to group 1")
		}

		// The move is over.
		r.Owners[0].Slots, r.Owners[4].Slots = r.Owners[0].Slots.Without(&r.Moves[0].Slots), r.Moves[0].Slots
		r.Moves, r.Epoch = r.Moves[1:], 8
		s.write(format.SystemSlotsKey, r)
		next := s.dir.Map()
		if g, _ := next.GroupOf(99); g != 5 || next.Epoch <= m.Epoch || next.Slots.Version != 2 {
			t.Errorf("slot 99 is of group %d, epoch %d after %d", g, next.Epoch, m.Epoch)
		}
		if g, _ := m.GroupOf(99); g != 1 {
			t.Error("a map that was given changed")
		}

		// Half of a map is none.
		r.Owners[0].Slots = format.SlotSet{}
		s.write(format.SystemSlotsKey, r)
		if m := s.dir.Map(); m.Slots != nil || m.Groups != 4 || len(s.dir.current.Load().damaged) != 1 {
			t.Errorf("a damaged map is used: %+v", m.Slots)
		}
	})
}

func TestCancelSlotMove(t *testing.T) {
	for name, c := range map[string]struct {
		req  *api.CancelSlotMoveRequest
		code fault.Code
		want []bool // cancelled, by move
	}{
		"one":         {&api.CancelSlotMoveRequest{Id: 3}, "", []bool{false, true}},
		"all":         {&api.CancelSlotMoveRequest{All: true}, "", []bool{true, true}},
		"one unknown": {&api.CancelSlotMoveRequest{Id: 1}, fault.NotFound, []bool{false, false}},
		"nothing":     {&api.CancelSlotMoveRequest{}, fault.InvalidArgument, []bool{false, false}},
		"one and all": {&api.CancelSlotMoveRequest{Id: 3, All: true}, fault.InvalidArgument, []bool{false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := shape(t)
				s.write(format.SystemSlotsKey, grown(t))
				for range 2 { // the second time it is so already
					_, err := s.CancelSlotMove(t.Context(), c.req)
					wantCode(t, err, c.code)
				}
				m, err := s.Members(t.Context(), nil)
				wantCode(t, err, "")
				for i, want := range c.want {
					if got := m.SlotMoves[i].Cancelled; got != want {
						t.Errorf("move %d: cancelled %v, want %v", m.SlotMoves[i].Id, got, want)
					}
				}
				if m.Balance.HoldSlots != (c.code == "") {
					t.Errorf("held %v", m.Balance.HoldSlots)
				}
				if want := uint64(7); c.code == "" && m.SlotEpoch != want+1 || c.code != "" && m.SlotEpoch != want {
					t.Errorf("epoch %d", m.SlotEpoch)
				}
				m, err = s.Configure(t.Context(), &api.ConfigureRequest{HoldSlots: new(false)})
				wantCode(t, err, "")
				if m.Balance.HoldSlots {
					t.Error("the hold is not released")
				}
			})
		})
	}
}

// Without a record there is nothing to cancel, but what would be planned is held.
func TestCancelBeforeTheFirstMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		m, err := s.CancelSlotMove(t.Context(), &api.CancelSlotMoveRequest{All: true})
		wantCode(t, err, "")
		if !m.Balance.HoldSlots || m.SlotEpoch != 0 || s.dir.Map().Slots != nil {
			t.Errorf("%v", m)
		}
	})
}

func TestGroupsOnlyGrow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		set := func(req *api.ConfigureRequest) (*api.BalanceSettings, error) {
			m, err := s.Configure(t.Context(), req)
			return m.GetBalance(), err
		}
		for _, bad := range []*api.ConfigureRequest{{Groups: new(uint32(0))}, {Groups: new(uint32(format.MaxGroups + 1))}, {Split: "yes"}} {
			_, err := set(bad)
			wantCode(t, err, fault.InvalidArgument)
		}
		_, err := set(&api.ConfigureRequest{Groups: new(uint32(3))})
		wantCode(t, err, fault.FailedPrecondition)
		b, err := set(&api.ConfigureRequest{})
		wantCode(t, err, "")
		if b.Groups != 0 || b.GroupsWanted != 4 || b.Split != "auto" {
			t.Fatalf("%v", b)
		}
		for _, name := range []string{"e", "f"} {
			s.write(format.SystemNodeKey(record(name).ID), record(name))
		}
		drained := record("g")
		drained.State = format.NodeDraining
		s.write(format.SystemNodeKey(drained.ID), drained)
		if b, _ = set(&api.ConfigureRequest{}); b.GroupsWanted != 6 {
			t.Errorf("%d groups are wanted for six nodes that take replicas", b.GroupsWanted)
		}
		if b, _ = set(&api.ConfigureRequest{Split: "off"}); b.GroupsWanted != 4 || b.Split != "off" {
			t.Errorf("%v", b)
		}
		b, err = set(&api.ConfigureRequest{Groups: new(uint32(50))})
		wantCode(t, err, "")
		if b.Groups != 50 || b.GroupsWanted != 50 || b.Split != "off" {
			t.Errorf("%v", b)
		}
		s.write(format.SystemSlotsKey, grown(t))
		_, err = set(&api.ConfigureRequest{Groups: new(uint32(5))})
		wantCode(t, err, fault.FailedPrecondition)
	})
}

func TestMembersShowSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := shape(t)
		m, err := s.Members(t.Context(), nil)
		wantCode(t, err, "")
		if len(m.SlotOwners) != 4 || m.SlotOwners[3].Slots != "3072-4095" || m.Groups[4].Slots != 1024 || m.Groups[0].Slots != 0 {
			t.Errorf("as founded: %v", m.SlotOwners)
		}
		s.write(format.SystemSlotsKey, grown(t))
		m, err = s.Members(t.Context(), nil)
		wantCode(t, err, "")
		if len(m.SlotOwners) != 6 || m.SlotOwners[5].Count != 0 || len(m.Groups) != 7 || m.SlotEpoch != 7 {
			t.Errorf("%v", m)
		}
		if move := m.SlotMoves[0]; move.Id != 2 || move.From != 1 || move.To != 5 || move.Slots != "0-99" || move.Count != 100 || move.Reason != "growth" {
			t.Errorf("%v", move)
		}
	})
}
