package meta

import (
	"context"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// What ConfigureRequest.Split and BalanceSettings.Split say.
const (
	splitAuto = "auto"
	splitOff  = "off"
)

// CancelSlotMove marks moves of slots as cancelled, and holds those that would
// be planned next until Configure lets them go on. Whoever drives a move undoes
// it, unless its slots have left their group: it then goes on to its end.
func (s *Service) CancelSlotMove(ctx context.Context, req *api.CancelSlotMoveRequest) (*api.MembersResponse, error) {
	if (req.GetId() == 0) != req.GetAll() {
		return nil, fault.New(fault.InvalidArgument, "either the id of a move or all of them are cancelled", "actual", req.GetId(), "all", req.GetAll())
	}
	return s.change(ctx, "slot map", "", func(ctx context.Context, st *state) error {
		writes := make([]*api.PutRequest, 0, 2)
		slots, found, changed := cancelled(&st.slots.record, format.MoveID(req.GetId()))
		if !found && !req.GetAll() {
			return fault.New(fault.NotFound, "no move of slots has this id", "move", req.GetId())
		}
		if changed {
			writes = append(writes, item(format.SystemSlotsKey, slots, atVersion(st.slots.version)))
		}
		if b := st.balance.record; !b.HoldSlots {
			b.HoldSlots = true
			writes = append(writes, item(format.SystemBalanceKey, b, atVersion(st.balance.version)))
		}
		if len(writes) == 0 {
			return nil
		}
		return s.putAll(ctx, writes...)
	})
}

// cancelled is a copy of the map with one move cancelled, or all for id 0; found
// says whether there is one, changed whether one was not cancelled before.
func cancelled(r *format.SlotsRecord, id format.MoveID) (out format.SlotsRecord, found, changed bool) {
	out = *r
	out.Moves = make([]format.SlotMoveRecord, len(r.Moves))
	for i, m := range r.Moves {
		if id == 0 || m.ID == id {
			found, changed = true, changed || !m.Cancelled
			m.Cancelled = true
		}
		out.Moves[i] = m
	}
	out.Epoch++
	return out, found, changed
}

func balanceSettings(m *router.Map) *api.BalanceSettings {
	b := &m.Balance
	out := &api.BalanceSettings{
		Paused: b.Paused, MaxMoves: uint32(b.MaxMoves), CopyRate: uint64(b.CopyRate),
		Groups: uint32(b.Groups), GroupsWanted: uint32(m.GroupsWanted()), Split: splitAuto, HoldSlots: b.HoldSlots,
	}
	if b.SplitOff {
		out.Split = splitOff
	}
	return out
}

// describeSlots adds the slot map.
func describeSlots(m *router.Map, out *api.MembersResponse) {
	for g := keyspace.GroupID(1); int(g) <= m.Groups; g++ {
		slots := m.Owned(g)
		out.SlotOwners = append(out.SlotOwners, &api.SlotOwner{Group: uint32(g), Slots: slots.String(), Count: uint32(slots.Count())})
	}
	if m.Slots == nil {
		return
	}
	out.SlotEpoch = m.Slots.Epoch
	for i := range m.Slots.Moves {
		move := &m.Slots.Moves[i]
		out.SlotMoves = append(out.SlotMoves, &api.SlotMove{
			Id: uint64(move.ID), From: uint32(move.From), To: uint32(move.To), Slots: move.Slots.String(), Count: uint32(move.Slots.Count()),
			SinceMs: move.Since, Reason: move.Reason, Cancelled: move.Cancelled,
		})
	}
}
