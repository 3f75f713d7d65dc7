package placement

import (
	"slices"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Present is where a group is now.
type Present struct {
	Group keyspace.GroupID
	// Replicas are names of nodes; the first is the preferred leader. Names
	// that no node has are of dead nodes. None at all is a group to be placed.
	Replicas []string
	// Load is what one replica costs its node, relative to other groups', any
	// positive number; 0 means 1.
	Load float64
}

// Target is where a group should be.
type Target struct {
	Group keyspace.GroupID
	// Replicas are names of nodes: the preferred leader, then the others that
	// live, then the witness, then those on dead nodes, each by name. Where none
	// lives the witness is the last.
	Replicas []string
	// Missing counts the last of Replicas with data: members on dead nodes whose places
	// no usable node can take. They stay members, and nothing is done for them.
	Missing int
}

// Plan says where the groups of a running cluster should be, given where they
// are. A node is usable when it is neither draining nor dead.
//
// What it promises, the earlier before the later where they conflict:
//   - A group has min(factor, usable nodes) replicas on usable nodes, no two on
//     one. Where that is less than factor it goes on naming dead members, and it
//     keeps a draining one that it needs for a majority over these. Without a
//     usable node everything stays.
//   - A group's replicas are in as many zones as there are, and as few as
//     possible of them in one.
//   - Replicas are spread by load and weight: with groups of equal load, the sum
//     over nodes of replicas²/weight is the least possible, so nodes of equal
//     weight differ by at most one unless zones decide; with unequal loads no
//     single move of a replica brings more than half of an average group.
//   - A group with an even number of replicas, also on dead nodes, has one witness
//     if a node is one, in a zone without a replica if that can be, and else as
//     evenly as can be; a group with an odd number has none.
//   - Little is moved: what is even stays as it is, a new node gets its share
//     and nothing else moves, and what a lost node had is placed so that others
//     stay where they are, if that can be even.
//   - Of the members with the highest priority, leaders are spread as replicas
//     are, and stay where that is even.
//
// The result does not depend on the order of the arguments, and planning from
// it gives it again. Loads and capacities are rounded to integers, so that all
// machines decide alike.
//
// The steps (layout.settle): give every group its number of replicas, uncrowd
// zones, level the nodes, choose leaders and level these; again until nothing
// changes. All but the levelling is greedy.
//
// Levelling (type level) is why this is no consistent hashing with bounded
// load. That moves little when nodes come and go, but rings ignore zones and
// what a group's other replicas do, so both need repair, which moves more; its
// balance is a tolerance, not an optimum; and changing a weight or a load
// reshuffles. Starting from the present map and taking only steps that make it
// better moves nothing by itself, and ends in the optimum: the choices of one
// group are the bases of a matroid (fixed size, bounds per zone, one per node),
// and for sums of such choices a state that no exchange along a path of groups
// improves is the best there is.
//
// Two planners, or one with changing inputs. Plan has no memory, so what it must
// not do again and again is up to the caller:
//   - One node plans (the leader of the meta group), and one map at a time is
//     carried out. Each map is even, a mixture of two is not, and each planner
//     would mend what the other did.
//   - What was begun counts as done: a replica that is being copied is in the
//     present map, and the one it stands in for is not, until the move is ended
//     or cancelled. Then the rest is planned as before. With the members of the
//     moment Plan may choose other groups for the same end, and more is moved
//     than either plan needs; with both, it may drop the new one.
//   - Dead is a decision, not an observation: after minutes of silence, and taken
//     back as slowly. A node that dies and returns costs its replicas twice, and
//     one that was the last of its zone a replica of every group. Without room
//     for its replicas it costs nothing: the names stay.
//   - Draining is an order. Taking it back brings replicas back.
//   - Loads are averages over long times, and do not depend on who leads: else
//     they follow the replicas, which follow them. What changes what nodes hold
//     by less than half of an average group moves nothing, as long as loads
//     differ at all; but a load that swings by more moves replicas both ways.
//     Equal loads are best said as 0.
//   - Zones, weights, priorities and the factor come from the cluster's metadata,
//     never from what one node believes: a zone that is unknown for a while is a
//     zone of its own, for which groups move.
//   - The preferred leader is handed leadership when it has been alive and caught
//     up for a while. Whoever leads meanwhile is as good.
//   - Groups without a quorum, and with members that Plan replaces, cannot
//     change. The caller leaves them alone, and in the present map.
func Plan(nodes []Node, present []Present, factor int) ([]Target, error) {
	l, err := layOut(nodes, present, factor)
	if err != nil {
		return nil, err
	}
	for l.settle() {
	}
	l.placeWitnesses()
	return l.targets(), nil
}

// settle makes one round of improvements and reports whether there were any.
// Every round ends in a better state than it began with, so there is a last.
func (l *layout) settle() bool {
	if l.size == 0 {
		return false
	}
	for _, g := range l.groups {
		g.home, g.led = slices.Clone(g.members), g.leader
	}
	l.trim()
	l.fill()
	l.uncrowd()
	l.levelReplicas()
	l.comeHome()
	l.lead()
	return slices.ContainsFunc(l.groups, func(g *group) bool {
		return g.led != g.leader || !slices.Equal(g.members, g.home)
	})
}

func (l *layout) targets() []Target {
	out := make([]Target, len(l.groups))
	for i, g := range l.groups {
		out[i] = l.target(g)
	}
	return out
}

func (l *layout) target(g *group) Target {
	draining, dead := l.kept(g)
	live := slices.Clone(draining)
	for _, n := range g.members {
		live = append(live, l.nodes[n].Name)
	}
	slices.Sort(live)
	leader := g.first
	if g.leader >= 0 {
		leader = l.nodes[g.leader].Name
	}
	if len(live) > 0 {
		return Target{Group: g.id, Replicas: slices.Concat(leading(live, leader), l.votesFor(g), dead), Missing: len(dead)}
	}
	return Target{Group: g.id, Replicas: append(leading(dead, leader), l.votesFor(g)...), Missing: len(dead)}
}

// leading returns names with one of them, if it is there, at the front.
func leading(names []string, first string) []string {
	out := slices.Clone(names)
	if i := slices.Index(out, first); i > 0 {
		copy(out[1:], out[:i])
		out[0] = first
	}
	return out
}

// kept returns the members on unusable nodes that a group goes on naming. The
// dead ones fill up what usable nodes cannot, and of the draining ones those
// stay without which the living were no majority.
func (l *layout) kept(g *group) (draining, dead []string) {
	if l.size == 0 {
		return g.draining, g.dead
	}
	gone := min(len(g.dead), l.factor-l.size)
	for {
		stay := min(len(g.draining), max(0, gone+1-l.size))
		if l.size+stay+gone <= l.factor {
			return g.draining[:stay], g.dead[:gone]
		}
		gone--
	}
}

// Move is what has to change for a group to be where its target is.
type Move struct {
	Group keyspace.GroupID
	// Add and Remove are names of nodes, each by name.
	Add, Remove []string
	// Lead is the preferred leader when it is another than before, else empty.
	Lead string
}

// Moves compares two maps, group by group. Groups that stay are left out, as
// are those without a target.
func Moves(present []Present, targets []Target) []Move {
	was := make(map[keyspace.GroupID][]string, len(present))
	for _, p := range present {
		was[p.Group] = p.Replicas
	}
	var out []Move
	for _, t := range targets {
		m := Move{Group: t.Group, Add: without(t.Replicas, was[t.Group]), Remove: without(was[t.Group], t.Replicas)}
		if len(t.Replicas) > 0 && (len(was[t.Group]) == 0 || was[t.Group][0] != t.Replicas[0]) {
			m.Lead = t.Replicas[0]
		}
		if len(m.Add) > 0 || len(m.Remove) > 0 || m.Lead != "" {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Move) int { return int(a.Group) - int(b.Group) })
	return out
}

// without returns the names of a that b lacks, each once and by name.
func without(a, b []string) []string {
	var out []string
	for _, name := range a {
		if !slices.Contains(b, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func refuse(message string, kv ...any) error {
	return fault.New(fault.InvalidArgument, message, kv...)
}
