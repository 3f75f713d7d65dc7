package balancer

import (
	"cmp"
	"context"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/placement"
	"kvstore/internal/router"
)

// Growth of the number of groups. The leader of the meta group looks at the map
// in every round and writes the one record that is next; nothing of it is kept
// elsewhere, so a new leader goes on where the last one was.
//
//  1. The layout that the cluster was founded with is written down.
//  2. founding/<n> names the node where the next group begins. That node makes the
//     group's first and only replica, which owns nothing, and its leader records
//     the members, once: the record and the founding change in one write, so a
//     founding that was given to another node in between never counts.
//  3. The group enters the slot map. From then on it is placed like the others:
//     it has too few replicas and gets more.
//  4. When it has them all, moves of slots to it are planned (placement.PlanSlots)
//     and carried out by the mover, until all groups own about as many.
//
// A founding is given to another node only when its first one is gone for good,
// and then under another replica id. Groups never become fewer.

// growKind is what growth writes next.
type growKind uint8

const (
	growNothing growKind = iota
	// growLayout writes the founding layout.
	growLayout
	// growFound has a node found the next group.
	growFound
	// growAdmit puts a founded group into the slot map.
	growAdmit
	// growForget drops the record of a founding that is over.
	growForget
	// growMove adds moves of slots.
	growMove
)

// growth is one write.
type growth struct {
	kind     growKind
	group    keyspace.GroupID
	founding format.FoundingRecord
	version  uint64 // of the founding's record, 0 for a new one
	moves    []placement.SlotMove
}

// nextGrowth decides the next write, from the map alone.
func nextGrowth(m *router.Map) growth {
	if g, f, ok := oldestFounding(m); ok {
		return continueFounding(m, g, f)
	}
	next := keyspace.GroupID(m.Groups + 1)
	switch {
	case m.GroupsWanted() > m.Groups && m.Slots == nil:
		return growth{kind: growLayout}
	case m.GroupsWanted() > m.Groups:
		return founded(m, next, 1, 0)
	case m.Slots == nil || m.Balance.HoldSlots:
		return growth{}
	}
	if moves := nextMoves(m); len(moves) > 0 {
		return growth{kind: growMove, moves: moves}
	}
	return growth{}
}

func oldestFounding(m *router.Map) (keyspace.GroupID, router.Founding, bool) {
	found := false
	var oldest keyspace.GroupID
	for g := range m.Founding {
		if !found || g < oldest {
			oldest, found = g, true
		}
	}
	return oldest, m.Founding[oldest], found
}

func continueFounding(m *router.Map, g keyspace.GroupID, f router.Founding) growth {
	_, alive := m.Nodes[f.Node]
	switch {
	case int(g) <= m.Groups:
		return growth{kind: growForget, group: g, version: f.Version}
	case m.Recorded[g].Version != 0 && m.Slots != nil:
		return growth{kind: growAdmit, group: g}
	case !alive:
		return founded(m, g, f.Replica+1, f.Version)
	}
	return growth{}
}

// founded gives a founding to the node with the fewest replicas.
func founded(m *router.Map, g keyspace.GroupID, r keyspace.ReplicaID, version uint64) growth {
	node, ok := emptiest(m)
	if !ok {
		return growth{}
	}
	return growth{kind: growFound, group: g, version: version, founding: format.FoundingRecord{Node: node, Replica: r}}
}

func emptiest(m *router.Map) (best keyspace.NodeID, ok bool) {
	load := make(map[keyspace.NodeID]int)
	for g := range keyspace.GroupID(m.Groups + 1) {
		for _, id := range m.Planned(g) {
			load[id]++
		}
	}
	for id, n := range m.Nodes {
		if n.Draining || n.Unrecorded || n.Witness || m.Dead[id] {
			continue
		}
		if !ok || cmp.Or(cmp.Compare(load[id], load[best]), cmp.Compare(id, best)) < 0 {
			best, ok = id, true
		}
	}
	return best, ok
}

// nextMoves are the moves that may begin now: a group takes part in one at a
// time, all its voters are there, and no more than Balance.MaxMoves are under way.
func nextMoves(m *router.Map) (out []placement.SlotMove) {
	busy := make(map[keyspace.GroupID]bool)
	for _, move := range m.Slots.Moves {
		busy[move.From], busy[move.To] = true, true
	}
	owned := make(map[keyspace.GroupID]format.SlotSet, m.Groups)
	for g := keyspace.GroupID(1); int(g) <= m.Groups; g++ {
		owned[g] = m.Owned(g)
	}
	for _, move := range placement.PlanSlots(owned, m.Groups) {
		if len(m.Slots.Moves)+len(out) >= m.Balance.MaxMoves {
			break
		}
		if busy[move.From] || busy[move.To] || !m.Complete(move.From) || !m.Complete(move.To) {
			continue
		}
		busy[move.From], busy[move.To] = true, true
		out = append(out, move)
	}
	return out
}

// grow writes what is next. A write that fails is decided anew.
func (b *Balancer) grow(ctx context.Context, m *router.Map) {
	step := nextGrowth(m)
	ctx, cancel := context.WithTimeout(router.WithIdentity(ctx, router.SystemIdentity), stepTimeout)
	defer cancel()
	var err error
	switch step.kind {
	case growNothing:
		return
	case growLayout:
		err = b.putSystem(ctx, format.SystemSlotsKey, m.SlotsRecord(), 0)
	case growFound:
		step.founding.Since = b.o.Clock.Wall()
		err = b.putSystem(ctx, format.SystemFoundingKey(step.group), step.founding, step.version)
	case growAdmit:
		r := m.SlotsRecord()
		r.Owners = append(r.Owners, format.SlotOwner{Group: step.group})
		err = b.putSystem(ctx, format.SystemSlotsKey, r, m.SlotsVersion())
	case growForget:
		_, err = b.o.Store.Delete(ctx, &api.DeleteRequest{
			Namespace: keyspace.SystemNamespaceName, Key: format.SystemFoundingKey(step.group),
			Condition: &api.Condition{VersionMatch: &step.version},
		})
	case growMove:
		err = b.putSystem(ctx, format.SystemSlotsKey, withMoves(m.SlotsRecord(), step.moves, b.o.Clock.Wall()), m.SlotsVersion())
	}
	if err != nil {
		b.o.Logger.Debug("the number of groups does not grow yet", "error", err)
		return
	}
	b.sayGrowth(&step)
}

func (b *Balancer) sayGrowth(step *growth) {
	switch step.kind {
	case growFound:
		b.o.Logger.Info("a group is to be founded", "group", step.group, "node", step.founding.Node, "replica", step.founding.Replica)
	case growAdmit:
		b.o.Logger.Info("a group is part of the cluster", "group", step.group)
	case growMove:
		for _, move := range step.moves {
			b.o.Logger.Info("slots are to move", "from", move.From, "to", move.To, "slots", move.Slots.Count())
		}
	default: // nothing that an operator would look for
	}
}

// withMoves adds moves to a record.
func withMoves(r format.SlotsRecord, moves []placement.SlotMove, now int64) format.SlotsRecord {
	for _, move := range moves {
		r.Moves = append(r.Moves, format.SlotMoveRecord{ID: r.NextMove, From: move.From, To: move.To, Slots: move.Slots, Since: now, Reason: "balance"})
		r.NextMove++
	}
	return r
}

// putSystem writes a record over the version that was read.
func (b *Balancer) putSystem(ctx context.Context, key string, record any, version uint64) error {
	_, err := b.o.Store.Put(ctx, systemItem(key, record, version))
	return err
}

func systemItem(key string, record any, version uint64) *api.PutRequest {
	return &api.PutRequest{
		Namespace: keyspace.SystemNamespaceName, Key: key, Value: format.EncodeSystem(record),
		ContentType: "application/json", Condition: &api.Condition{VersionMatch: &version},
	}
}

// found makes the first replica of a group that is to be founded here.
func (b *Balancer) found(ctx context.Context, m *router.Map) {
	hosted := b.o.Host.Groups()
	for g, f := range m.Founding {
		if f.Node != b.o.Node || m.Recorded[g].Version != 0 || slices.ContainsFunc(hosted, func(s host.GroupStatus) bool { return s.Group == g }) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, stepTimeout)
		err := b.o.Host.FoundGroup(ctx, host.GroupSeed{
			Group: g, Members: []format.Member{{Replica: f.Replica, Node: b.o.Node}}, Self: f.Replica,
		})
		cancel()
		if err != nil {
			b.o.Logger.Warn("a group is not founded", "group", g, "replica", f.Replica, "error", err)
			continue
		}
		b.o.Logger.Info("a group is founded", "group", g, "replica", f.Replica)
	}
}

// writeGroup writes a group's record; the first one of a founded group together
// with its founding, which must be unchanged and this replica's.
func (b *Balancer) writeGroup(ctx context.Context, g *host.GroupStatus, m *router.Map, record format.GroupRecord, version uint64) (uint64, error) {
	item := systemItem(format.SystemGroupKey(g.Group), record, version)
	f, founding := m.Founding[g.Group]
	if !founding || version != 0 {
		resp, err := b.o.Store.Put(ctx, item)
		return resp.GetVersion(), err
	}
	if f.Node != b.o.Node || f.Replica != g.Replica {
		return 0, errOtherFounding(g, f)
	}
	same := format.FoundingRecord{Node: f.Node, Replica: f.Replica, Since: f.Since}
	resp, err := b.o.Store.BatchPut(ctx, &api.BatchPutRequest{
		Namespace: keyspace.SystemNamespaceName, Atomic: true,
		Items: []*api.PutRequest{item, systemItem(format.SystemFoundingKey(g.Group), same, f.Version)},
	})
	if err != nil {
		return 0, err
	}
	return batchVersion(resp)
}

func errOtherFounding(g *host.GroupStatus, f router.Founding) error {
	return fault.New(fault.FailedPrecondition, "the group was given to another node to found", "group", g.Group, "replica", g.Replica,
		"founded_by", f.Node, "founded_as", f.Replica)
}

// batchVersion is the version of the first record of an atomic write.
func batchVersion(resp *api.BatchPutResponse) (version uint64, err error) {
	for i, r := range resp.Results {
		if failed := router.StatusError(r.Status); failed != nil && (err == nil || fault.CodeOf(err) == fault.BatchAborted) {
			err = failed
		}
		if i == 0 {
			version = r.GetPut().GetVersion()
		}
	}
	return version, err
}
