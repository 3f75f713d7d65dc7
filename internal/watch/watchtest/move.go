package watchtest

import (
	"context"

	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// Move has a group give slots to one of a higher id, by the steps of the mover. The
// map (GroupOf) follows with Record only. Between is called when nobody owns the
// slots; it may be nil.
func (n *Node) Move(id format.MoveID, from, to keyspace.GroupID, slots format.SlotSet, between func()) {
	n.t.Helper()
	receive := format.SlotChange{Move: id, Peer: from, Slots: slots}
	send := format.SlotChange{Move: id, Peer: to, Slots: slots}
	n.Step(to, format.SlotBegin, receive)
	n.copy(id, from, to, slots, 0) // what is written meanwhile comes with the second copy
	a := n.Step(from, format.SlotFreeze, send)
	n.copy(id, from, to, slots, a.Nonce)
	receive.Nonce, send.Nonce = a.Nonce, a.Nonce
	n.Step(to, format.SlotReady, receive)
	a = n.Step(from, format.SlotLeave, send)
	if between != nil {
		between()
	}
	receive.Ceiling, receive.Floor = a.Ceiling, a.Floor
	n.Step(to, format.SlotAccept, receive)
}

// Step takes a step of a move in a group.
func (n *Node) Step(g keyspace.GroupID, kind format.SlotOpKind, c format.SlotChange) host.SlotAnswer {
	n.t.Helper()
	c.Kind = kind
	a, err := n.Host.ChangeSlots(context.Background(), g, c)
	if err != nil {
		n.t.Fatalf("step %d in group %d: %v", kind, g, err)
	}
	return a
}

// Purge deletes what a group gave away in a move.
func (n *Node) Purge(id format.MoveID, g keyspace.GroupID) {
	n.t.Helper()
	n.Step(g, format.SlotForget, format.SlotChange{Move: id})
	var after []byte
	for done := false; !done; {
		var keys []format.ExportKey
		var err error
		keys, after, done, err = n.Host.LeftoverPage(context.Background(), g, after, 100)
		if err == nil {
			err = n.Host.ImportSlots(context.Background(), g, format.SlotChange{Kind: format.SlotPurged, Move: id, Cursor: after, Done: done}, keys)
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *Node) copy(id format.MoveID, from, to keyspace.GroupID, slots format.SlotSet, nonce keyspace.Index) {
	n.t.Helper()
	clock, err := n.Host.Clock(context.Background(), from, 0)
	if err != nil {
		n.t.Fatal(err)
	}
	r := host.ExportRequest{Group: from, Slots: slots, Rev: clock.Clock, Index: clock.Index, MaxBytes: 4 << 10}
	for done := false; !done; {
		page, err := n.Host.ExportSlots(context.Background(), r)
		if err == nil {
			done, r.After = page.Done, page.Last
			err = n.Host.ImportSlots(context.Background(), to, format.SlotChange{Kind: format.SlotImport, Move: id, Base: nonce,
				Rev: clock.Clock, Cursor: page.Last, Done: done, Floor: page.Floor}, page.Keys)
		}
		if err != nil {
			n.t.Fatal(err)
		}
	}
}

// Record makes a group the owner of slots in the map.
func (n *Node) Record(slots format.SlotSet, g keyspace.GroupID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for slot := range slots.All() {
		n.owner[slot] = g
	}
}
