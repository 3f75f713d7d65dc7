package mover

import (
	"context"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// Store writes the record of the slots; *router.Router is the real one.
type Store interface {
	Put(ctx context.Context, req *api.PutRequest) (*api.PutResponse, error)
}

// moveTo is the move to a group that its leader is to drive: one that its log
// has begun, else the one that the record names.
func moveTo(g *host.GroupStatus, view *router.Map) (Move, bool) {
	if s := g.Slots; s != nil && s.In != nil {
		return listed(Move{ID: s.In.ID, From: s.In.From, To: g.Group, Slots: s.In.Slots}, view), true
	}
	m, ok := view.MoveTo(g.Group)
	return Move{ID: m.ID, From: m.From, To: m.To, Slots: m.Slots, Cancelled: m.Cancelled, Listed: true}, ok
}

// listed says what the record knows of a move by now. One that is newer than the
// record here counts as listed.
func listed(move Move, view *router.Map) Move {
	move.Listed = view.Slots == nil || view.Slots.NextMove <= move.ID
	if m, ok := view.MoveTo(move.To); ok && m.ID == move.ID {
		move.Listed, move.Cancelled = true, m.Cancelled
	}
	return move
}

// recordOf is what the metadata says of a group as a sender.
func recordOf(g keyspace.GroupID, view *router.Map) *Metadata {
	if view.Slots == nil {
		return &Metadata{}
	}
	r := &Metadata{Known: true, Owned: view.Owned(g), Next: view.Slots.NextMove, Listed: make(map[format.MoveID]bool)}
	for i := range view.Slots.Moves {
		r.Listed[view.Slots.Moves[i].ID] = true
	}
	for _, o := range view.SlotsRecord().Owners {
		if o.Group > g {
			r.Higher = append(r.Higher, o)
		}
	}
	return r
}

// record takes a move that both logs have ended out of the record; with moved,
// the receiver owns its slots from then on. When somebody else wrote meanwhile,
// the record is read again and the next look decides.
func (m *Mover) record(ctx context.Context, move Move, moved bool) error {
	view := m.o.Directory.Map()
	next, ok := withoutMove(view.SlotsRecord(), move, moved)
	return m.write(ctx, view, next, ok)
}

// relist puts a move into the record again, with its slots owned by the sender.
func (m *Mover) relist(ctx context.Context, move Move) error {
	view := m.o.Directory.Map()
	next, ok := withMove(view.SlotsRecord(), move)
	return m.write(ctx, view, next, ok)
}

// write replaces the record that view has, if there is something to change.
func (m *Mover) write(ctx context.Context, view *router.Map, next format.SlotsRecord, change bool) error {
	if change {
		version := view.SlotsVersion()
		_, err := m.o.Store.Put(ctx, &api.PutRequest{
			Namespace: keyspace.SystemNamespaceName, Key: format.SystemSlotsKey, Value: format.EncodeSystem(next),
			ContentType: "application/json", Condition: &api.Condition{VersionMatch: &version},
		})
		if err != nil && fault.CodeOf(err) != fault.ConditionFailed {
			return err
		}
	}
	return m.o.Directory.Refresh(ctx)
}

// withoutMove is a record in which a move has ended; ok is false when it does
// not name the move.
func withoutMove(r format.SlotsRecord, move Move, moved bool) (_ format.SlotsRecord, ok bool) {
	var left []format.SlotMoveRecord
	for _, other := range r.Moves {
		if other.ID == move.ID {
			ok = true
			continue
		}
		left = append(left, other)
	}
	r.Moves = left
	if !ok || !moved {
		return r, ok
	}
	for i := range r.Owners {
		o := &r.Owners[i]
		o.Slots = o.Slots.Without(&move.Slots)
		if o.Group == move.To {
			o.Slots = o.Slots.With(&move.Slots)
		}
	}
	return r, true
}

// withMove is a record that names a move again; ok is false while it names another
// one to or from the same groups.
func withMove(r format.SlotsRecord, move Move) (_ format.SlotsRecord, ok bool) {
	for _, other := range r.Moves {
		if other.To == move.To || other.From == move.From {
			return r, false
		}
	}
	r.Moves = append(slices.Clone(r.Moves), format.SlotMoveRecord{ID: move.ID, From: move.From, To: move.To, Slots: move.Slots, Reason: "recovered"})
	r.Owners = slices.Clone(r.Owners)
	for i := range r.Owners {
		o := &r.Owners[i]
		o.Slots = o.Slots.Without(&move.Slots)
		if o.Group == move.From {
			o.Slots = o.Slots.With(&move.Slots)
		}
	}
	return r, true
}

// found makes the layout of a group explicit.
func (m *Mover) found(ctx context.Context, g keyspace.GroupID, own **format.SlotState) error {
	a, err := m.o.Host.ChangeSlots(ctx, g, format.SlotChange{Kind: format.SlotFound, Slots: m.o.Directory.Map().Owned(g)})
	if err == nil {
		*own = a.Slots
	}
	return err
}
