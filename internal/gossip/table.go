package gossip

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"kvstore/internal/keyspace"
)

// State is what this node thinks of a member, by what it heard.
type State uint8

// The states of a member.
const (
	Alive   State = iota + 1
	Suspect       // it does not answer, and may still object
	Dead          // it did not object
	Left          // it said so
)

var stateNames = [...]string{"unknown", "alive", "suspect", "dead", "left"}

func (s State) String() string { return stateNames[s] }

func stateOf(s memberlist.NodeStateType) State {
	switch s {
	case memberlist.StateAlive:
		return Alive
	case memberlist.StateSuspect:
		return Suspect
	case memberlist.StateLeft:
		return Left
	case memberlist.StateDead:
	}
	return Dead
}

// Member is one member as this node sees it.
type Member struct {
	ID    keyspace.NodeID
	State State
	// Since is when this node saw that state, by Clock.Mono.
	Since time.Duration
	// Meta is what the member said last.
	Meta Meta
}

// table is what the last look saw, and members that memberlist has forgotten.
type table struct {
	mu  sync.Mutex
	all map[keyspace.NodeID]Member // guarded by mu
}

func (t *table) init() { t.all = map[keyspace.NodeID]Member{} }

// Members returns this node and everyone it heard of, by id. It is empty before
// Start.
func (g *Gossip) Members() []Member {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	out := make([]Member, 0, len(g.table.all))
	for _, m := range g.table.all {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// StateOf returns a member's state; 0, which prints as unknown, for one that
// was never heard of.
func (g *Gossip) StateOf(id keyspace.NodeID) State {
	g.table.mu.Lock()
	defer g.table.mu.Unlock()
	return g.table.all[id].State
}

// seen takes the list of a look that began at a moment of the places.
func (g *Gossip) seen(nodes []*memberlist.Node, moment uint64) {
	now, peers := g.o.Clock.Mono(), g.o.Peers()
	known := make(map[string]bool, len(nodes))
	var changed []change
	g.table.mu.Lock()
	for _, n := range nodes {
		known[n.Name] = true
		meta, _, err := decodeMeta(n.Meta)
		if err != nil { // it was judged when it came
			continue
		}
		next := Member{ID: keyspace.NodeID(n.Name), State: stateOf(n.State), Since: now, Meta: meta}
		changed = append(changed, g.table.put(next)...)
	}
	for id, m := range g.table.all {
		if known[string(id)] {
			continue
		}
		if m.State == Alive || m.State == Suspect { // memberlist forgets only who is gone
			m.State, m.Since = Dead, now
			changed = append(changed, g.table.put(m)...)
		}
		if _, booked := peers[id]; !booked && now-m.Since > forgetAfter || len(g.table.all) > 2*maxMembers {
			delete(g.table.all, id)
		} else {
			known[string(id)] = true
		}
	}
	g.table.mu.Unlock()
	g.judge.keep(names(nodes))
	g.wire.places.forget(moment, func(id string) bool { return known[id] })
	for _, c := range changed {
		g.tell(c)
	}
}

func names(nodes []*memberlist.Node) map[string]bool {
	out := make(map[string]bool, len(nodes))
	for _, n := range nodes {
		out[n.Name] = true
	}
	return out
}

// change is a member that is not as it was.
type change struct {
	Member
	was State
}

// put records m and returns it when it differs from before. mu must be held.
func (t *table) put(m Member) []change {
	old, there := t.all[m.ID]
	if there && old.State == m.State {
		m.Since = old.Since
	}
	t.all[m.ID] = m
	if old == m {
		return nil
	}
	return []change{{m, old.State}}
}

func (g *Gossip) tell(c change) {
	if c.State != c.was {
		g.o.Logger.Info("gossip: a member's state changed", "id", c.ID, "name", c.Meta.Name, "state", c.State.String(), "was", c.was.String())
	}
	g.o.OnChange(c.Member)
}

// Stats are this node's figures.
type Stats struct {
	// Members by the names of their states, this node included.
	Members map[string]int
	// Dropped since the start, by reason.
	Dropped map[string]int64
	// Keys is the number of keys in use, 0 without encryption; KeyReloads and
	// KeyFailures count changed key files that were taken and that could not be.
	Keys                    int
	KeyReloads, KeyFailures int64
}

// Stats returns this node's figures.
func (g *Gossip) Stats() Stats {
	s := Stats{Members: map[string]int{}, Dropped: g.drops.all()}
	for _, name := range stateNames[1:] {
		s.Members[name] = 0
	}
	for _, m := range g.Members() {
		s.Members[m.State.String()]++
	}
	if k := g.keys; k != nil {
		s.Keys, s.KeyReloads, s.KeyFailures = len(k.ring.GetKeys()), k.reloads.Load(), k.failures.Load()
	}
	return s
}
