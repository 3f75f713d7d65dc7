package balancer

import (
	"cmp"
	"context"
	"slices"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/placement"
	"kvstore/internal/router"
)

// place decides where groups should be: the leader of the meta group plans the
// whole cluster anew in every round and writes the targets that changed. No
// plan is kept, so a new leader goes on where the last one was; what is under
// way is what the targets say. Preferred leaders cost nothing and change at
// once; of the groups whose replicas move, no more than Balance.MaxMoves are
// under way at a time (type room).
func (b *Balancer) place(ctx context.Context, m *router.Map) {
	if m.Groups == 0 || m.ReplicationFactor == 0 || m.Balance.Paused {
		return
	}
	nodes, known := b.placementNodes(m)
	b.keepDead(ctx, m)
	b.grow(ctx, m)
	present, ok := presentOf(m)
	if !ok || !known {
		return
	}
	targets, err := placement.Plan(nodes, handedOver(m, present), m.ReplicationFactor)
	if err != nil {
		b.o.Logger.Warn("no plan for the replicas", "error", err)
		return
	}
	targets = b.avoided(m, nodes, present, targets)
	room := roomIn(m)
	for _, c := range changes(m, nodes, present, targets) {
		if c.moves && (b.silentAmong(m, c) || !room.take(c)) {
			continue
		}
		if err := b.writeTarget(ctx, m, c); err != nil {
			b.o.Logger.Debug("target is not written", "group", c.group, "error", err)
			return // read again first
		}
		if c.moves {
			b.o.Logger.Info("a group moves", "group", c.group, "to", c.nodes, "reason", c.reason)
		}
	}
}

// room is how many more groups may begin to move. A move may never end: the node
// it goes to dies, or has no room, or its leader does not reach it. So what
// replaces nodes that are gone has room of its own, and a group that moves
// already takes none when its move is turned for such a reason.
type room struct {
	moving         []keyspace.GroupID
	others, urgent int
}

func roomIn(m *router.Map) room {
	r := room{moving: m.Moving()}
	r.others, r.urgent = m.Balance.MaxMoves-len(r.moving), m.Balance.MaxMoves
	for _, g := range r.moving {
		if reason := m.Targets[g].Reason; reason == reasonRemoved || reason == reasonSilent {
			r.urgent--
		}
	}
	return r
}

func (r *room) take(c change) bool {
	left := &r.others
	switch {
	case c.urgent && slices.Contains(r.moving, c.group):
		return true
	case c.urgent:
		left = &r.urgent
	}
	*left--
	return *left >= 0
}

// placementNodes describes the nodes to placement.Plan; nodes are known by
// their ids there. ok is false while the zone and weight of one are not known
// that may yet say them.
func (b *Balancer) placementNodes(m *router.Map) (nodes []placement.Node, ok bool) {
	for _, n := range m.Nodes {
		if n.Unrecorded && !m.Dead[n.ID] {
			return nil, false
		}
		nodes = append(nodes, placement.Node{
			Name: string(n.ID), Zone: n.Zone, Weight: n.Weight, Priority: n.Priority, Draining: n.Draining, Dead: m.Dead[n.ID], Witness: n.Witness,
		})
	}
	slices.SortFunc(nodes, func(x, y placement.Node) int { return cmp.Compare(x.Name, y.Name) })
	return nodes, true
}

// aliveAfter is for how long a dead node must be heard from before it counts
// again.
const aliveAfter = 5 * time.Second

// keepDead records which nodes have been silent for so long that they are
// replaced, and takes it back for those that are heard from again. Both are slow
// on purpose: replicas that go and come back are copied twice.
func (b *Balancer) keepDead(ctx context.Context, m *router.Map) {
	ctx, cancel := context.WithTimeout(router.WithIdentity(ctx, router.SystemIdentity), stepTimeout)
	defer cancel()
	now := b.o.Clock.Mono()
	for id := range m.Dead {
		if _, known := m.Nodes[id]; known && (b.o.Silent(id) > 0 || now-b.heardSince(id, now) < aliveAfter) {
			continue
		}
		if _, err := b.o.Store.Delete(ctx, &api.DeleteRequest{Namespace: keyspace.SystemNamespaceName, Key: format.SystemDeadKey(id)}); err == nil {
			b.o.Logger.Info("a dead node is alive", "node", id, "name", m.Nodes[id].Name)
		}
	}
	for id, n := range m.Nodes {
		silent := b.o.Silent(id)
		if silent > 0 {
			delete(b.heard, id)
		}
		if m.Dead[id] || b.o.ReplaceAfter == 0 || silent <= b.o.ReplaceAfter {
			continue
		}
		b.o.Logger.Warn("a node is dead; its replicas are placed elsewhere", "node", id, "name", n.Name, "silent_for", silent)
		_, err := b.o.Store.Put(ctx, &api.PutRequest{
			Namespace: keyspace.SystemNamespaceName, Key: format.SystemDeadKey(id),
			Value: format.EncodeSystem(format.DeadRecord{Since: b.o.Clock.Wall()}), ContentType: "application/json",
		})
		if err != nil {
			b.o.Logger.Debug("a dead node is not recorded", "node", id, "error", err)
		}
	}
}

// heardSince is when a node that is heard from now was first seen so here.
func (b *Balancer) heardSince(id keyspace.NodeID, now time.Duration) time.Duration {
	since, ok := b.heard[id]
	if !ok {
		b.heard[id], since = now, now
	}
	return since
}

// silentAmong reports whether a change would place a replica on a node that is
// not heard from.
func (b *Balancer) silentAmong(m *router.Map, c change) bool {
	have := m.Wanted(c.group)
	return slices.ContainsFunc(c.nodes, func(id keyspace.NodeID) bool { return !slices.Contains(have, id) && b.o.Silent(id) > 0 })
}

// presentOf is where groups are meant to be now: their targets, else their
// voters. ok is false while that is not known of all. Nodes that were removed never
// return and stand for nothing, unless nobody else is left.
func presentOf(m *router.Map) (present []placement.Present, ok bool) {
	for g := range keyspace.GroupID(m.Groups + 1) {
		nodes := m.Planned(g)
		if len(nodes) == 0 {
			return nil, false
		}
		if left := m.Wanted(g); len(left) > 0 {
			nodes = left
		}
		p := placement.Present{Group: g}
		for _, id := range nodes {
			p.Replicas = append(p.Replicas, string(id))
		}
		present = append(present, p)
	}
	return present, true
}

// change is one target to write.
type change struct {
	group  keyspace.GroupID
	nodes  []keyspace.NodeID
	moves  bool // its replicas move, not only the preference
	urgent bool // a node of it is gone
	reason string
}

// changes are the targets that differ from what is, those that replace nodes
// that are gone first.
func changes(m *router.Map, nodes []placement.Node, present []placement.Present, targets []placement.Target) []change {
	state := make(map[string]placement.Node, len(nodes))
	for _, n := range nodes {
		state[n.Name] = n
	}
	now := make(map[keyspace.GroupID][]string, len(present))
	for _, p := range present {
		now[p.Group] = p.Replicas
	}
	var out []change
	for _, t := range targets {
		old := now[t.Group]
		if slices.Equal(old, t.Replicas) {
			continue
		}
		c := change{group: t.Group}
		for _, name := range t.Replicas {
			c.nodes = append(c.nodes, keyspace.NodeID(name))
			c.moves = c.moves || !slices.Contains(old, name)
		}
		c.moves = c.moves || len(old) != len(t.Replicas)
		if !c.moves && old[0] == t.Replicas[0] {
			continue // only the order of the others differs
		}
		c.reason, c.urgent = why(state, textsOf(m.Planned(t.Group)), t.Replicas)
		if c.reason == reasonDrained && replaces(m, old, t.Replicas) {
			c.reason = reasonReplaced
		}
		if m.Targets[t.Group].Held && !c.urgent {
			continue
		}
		if turned(m, t.Group, old, t.Replicas) {
			c.reason, c.urgent = reasonGivenUp, true
		}
		out = append(out, c)
	}
	slices.SortStableFunc(out, func(a, b change) int { return rank(a) - rank(b) })
	return out
}

func textsOf(ids []keyspace.NodeID) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

func rank(c change) int {
	if c.urgent {
		return 0
	}
	return 1
}

// Reasons that do not wait for others.
const (
	reasonRemoved = "node was removed"
	reasonSilent  = "node is silent"
	reasonGivenUp = "copy was given up"
)

// Reasons that an operator gave.
const (
	reasonDrained  = "node is drained"
	reasonReplaced = "node is replaced"
)

// why names the reason of a change: the state of the first node that leaves.
func why(nodes map[string]placement.Node, old, next []string) (reason string, urgent bool) {
	for _, name := range old {
		n, known := nodes[name]
		switch {
		case slices.Contains(next, name):
		case !known:
			return reasonRemoved, true
		case n.Dead:
			return reasonSilent, true
		case n.Draining:
			return reasonDrained, false
		}
	}
	if len(old) != len(next) {
		return "replication factor", false
	}
	return "balance", false
}

func (b *Balancer) writeTarget(ctx context.Context, m *router.Map, c change) error {
	old := m.Targets[c.group]
	record := format.TargetRecord{Nodes: c.nodes, Reason: c.reason, Since: b.o.Clock.Wall()}
	ctx, cancel := context.WithTimeout(router.WithIdentity(ctx, router.SystemIdentity), stepTimeout)
	defer cancel()
	_, err := b.o.Store.Put(ctx, &api.PutRequest{
		Namespace: keyspace.SystemNamespaceName, Key: format.SystemTargetKey(c.group),
		Value: format.EncodeSystem(record), ContentType: "application/json",
		Condition: &api.Condition{VersionMatch: &old.Version},
	})
	return err
}
