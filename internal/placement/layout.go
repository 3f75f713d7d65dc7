package placement

import (
	"cmp"
	"math"
	"slices"

	"kvstore/internal/keyspace"
)

const (
	// averageLoad is the mean of all groups' loads after rounding.
	averageLoad = 1000
	// largestCapacity is the capacity of the node with the highest weight. Small
	// ratios of weights stay exact: it is the least multiple of 1 to 12.
	largestCapacity = 27_720
)

// layout is the state of one Plan. Nodes are known by their place in nodes.
type layout struct {
	factor int
	size   int    // replicas of a group on usable nodes: min(factor, len(nodes))
	nodes  []Node // the usable ones, by name
	zones  []int  // per node; nodes of unknown zones have one each
	caps   []int64
	groups []*group // by id
	heavy  []*group // by load, the highest first
	load   []int64  // per node, of all replicas there
	slack  int64
	// witnesses are the usable nodes without data, by name; votes is in how many
	// groups each votes.
	witnesses []Node
	votes     []int
	work      int // exchanges looked at, for tests
}

// group is one group's present and coming place.
type group struct {
	id      keyspace.GroupID
	load    int64
	members []int // sorted; usable nodes
	home    []int // members before the round
	leader  int   // of members; -1 until chosen
	led     int   // leader before the round
	fit     []int // members that may lead
	// What it names and cannot be used, by name.
	draining, dead []string
	first          string // the preferred leader of the present map
	// votes are witnesses of the present map that can be used, lost one that
	// cannot; witness is the one that is chosen, -1 for none.
	votes   []int
	lost    string
	witness int
}

func layOut(nodes []Node, present []Present, factor int) (*layout, error) {
	if factor < 1 || len(nodes) == 0 {
		return nil, refuse("a plan needs at least 1 node and a replication factor of 1", "nodes", len(nodes), "replication_factor", factor)
	}
	sorted, err := byName(nodes)
	if err != nil {
		return nil, err
	}
	l := &layout{factor: factor}
	state := make(map[string]place, len(sorted))
	for _, n := range sorted {
		p := place{usable: -1}
		switch {
		case !measure(n.Weight):
			return nil, refuse("a node's weight must be a positive number", "node", n.Name, "weight", n.Weight)
		case n.Witness:
			p = l.layWitness(n)
		case n.Dead:
		case n.Draining:
			p.draining = true
		default:
			p.usable = len(l.nodes)
			l.nodes = append(l.nodes, n)
		}
		state[n.Name] = p
	}
	l.size = min(factor, len(l.nodes))
	l.load = make([]int64, len(l.nodes))
	l.layNodes()
	return l, l.layGroups(present, state)
}

// place is what a node's name stands for.
type place struct {
	usable   int // index; -1 when it is not
	draining bool
	// witness: it has no data; vote is its index, -1 when it is not usable.
	witness bool
	vote    int
}

func measure(x float64) bool { return x >= 0 && !math.IsInf(x, 1) }

func orOne(x float64) float64 {
	if x == 0 {
		return 1
	}
	return x
}

func (l *layout) layNodes() {
	most := 0.0
	for _, n := range l.nodes {
		most = max(most, orOne(n.Weight))
	}
	ids := map[string]int{}
	for i, n := range l.nodes {
		l.caps = append(l.caps, max(1, int64(math.Round(orOne(n.Weight)/most*largestCapacity))))
		zone, known := ids[n.Zone]
		if n.Zone == "" || !known {
			zone = i
			ids[n.Zone] = i
		}
		l.zones = append(l.zones, zone)
	}
}

func (l *layout) layGroups(present []Present, state map[string]place) error {
	present = slices.Clone(present)
	slices.SortFunc(present, func(a, b Present) int { return cmp.Compare(a.Group, b.Group) })
	sum := 0.0
	for i, p := range present {
		if i > 0 && present[i-1].Group == p.Group {
			return refuse("a group is in the present map twice", "group", p.Group)
		}
		if !measure(p.Load) {
			return refuse("a group's load must be a positive number", "group", p.Group, "load", p.Load)
		}
		sum += orOne(p.Load) / float64(len(present))
	}
	for _, p := range present {
		g := &group{id: p.Group, leader: -1, witness: -1, load: max(1, int64(math.Round(orOne(p.Load)/sum*averageLoad)))}
		l.layReplicas(g, p.Replicas, state)
		l.groups = append(l.groups, g)
		if g.load != l.groups[0].load {
			l.slack = averageLoad / 2
		}
	}
	l.heavy = slices.Clone(l.groups)
	slices.SortStableFunc(l.heavy, func(a, b *group) int { return cmp.Compare(b.load, a.load) })
	return nil
}

// layReplicas sorts a group's replicas by what can be done with them.
func (l *layout) layReplicas(g *group, replicas []string, state map[string]place) {
	names := slices.Clone(replicas)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		p, known := state[name]
		switch {
		case known && p.witness:
			g.layVote(p, name)
		case known && p.usable >= 0:
			g.members = append(g.members, p.usable)
			l.load[p.usable] += g.load
		case known && p.draining:
			g.draining = append(g.draining, name)
		default:
			g.dead = append(g.dead, name)
		}
	}
	if len(replicas) > 0 {
		g.first = replicas[0]
		if p, known := state[g.first]; known {
			g.leader = p.usable
		}
	}
}
