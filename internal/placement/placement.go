// Package placement decides which nodes hold which groups: Bootstrap when a
// cluster is founded, Plan from then on. It is pure: the same input gives the
// same map on every node.
package placement

import (
	"sort"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// Node is a place for replicas. Bootstrap looks at Name and Zone only.
type Node struct {
	Name string
	// Zone is a failure domain; empty when unknown, which no other node shares.
	Zone string
	// Weight is the capacity relative to other nodes', any positive number; 0
	// means 1.
	Weight float64
	// Priority decides who leads: of a group's replicas, one of the highest.
	Priority int
	// Draining nodes take no replica and give up those they have.
	Draining bool
	// Dead nodes take no replica, and those they have are lost: others take
	// their places where there is room.
	Dead bool
	// Witness nodes hold no data: they vote in groups that have an even number of
	// replicas.
	Witness bool
}

// Replica is one copy of a group. Its id is its place among the group's sorted
// member names, from 1.
type Replica struct {
	ID   keyspace.ReplicaID
	Node string
}

// Assignment is where one group lives. The first replica is the preferred
// leader, the others follow in the order of their ids.
type Assignment struct {
	Group    keyspace.GroupID
	Replicas []Replica
}

// Bootstrap places groups 0 (the meta group) to groups on the first members of
// a cluster, with min(factor, len(nodes)) replicas each.
//
// Replicas: each group takes, one by one, the node that adds the least to its
// busiest zone, then the one with the fewest replicas, then the first by name.
// Leaders: each group takes its member that leads the fewest, and then chains
// of groups pass leadership on until no two nodes differ by more than one
// where the replicas allow it. Without zones they always do: every node holds
// ceil or floor of the average, so leaders can be split as evenly.
//
// Properties (tested): group 0 is on the first members by name when zones do
// not decide; replicas and leaders per node differ by at most one without
// zones; no zone holds more of a group than it must, so with three zones and
// three replicas none holds a quorum.
func Bootstrap(nodes []Node, groups, factor int) ([]Assignment, error) {
	sorted, err := check(nodes, groups, factor)
	if err != nil {
		return nil, err
	}
	p := &plan{nodes: sorted, load: make([]int, len(sorted)), leads: make([]int, len(sorted))}
	for range groups + 1 {
		p.place(min(factor, len(sorted)))
	}
	for p.improveLeaders() {
	}
	out := make([]Assignment, len(p.members))
	for g := range p.members {
		out[g] = p.assignment(g)
	}
	return out, nil
}

func check(nodes []Node, groups, factor int) ([]Node, error) {
	if len(nodes) == 0 || groups < 1 || factor < 1 {
		return nil, fault.New(fault.InvalidArgument, "placement needs at least 1 node, 1 group and a replication factor of 1",
			"nodes", len(nodes), "groups", groups, "replication_factor", factor)
	}
	return byName(nodes)
}

// byName sorts nodes and refuses two of one name.
func byName(nodes []Node) ([]Node, error) {
	sorted := append([]Node(nil), nodes...)
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].Name < sorted[j].Name })
	for i := 1; i < len(sorted); i++ {
		if sorted[i].Name == sorted[i-1].Name {
			return nil, fault.New(fault.InvalidArgument, "two nodes have the same name", "node", sorted[i].Name)
		}
	}
	return sorted, nil
}

// plan is the state of one Bootstrap; nodes are known by their place in the
// sorted list.
type plan struct {
	nodes   []Node
	load    []int   // replicas per node
	leads   []int   // leaderships per node
	members [][]int // per group, sorted
	leader  []int   // per group, a node
}

// place chooses the replicas of the next group and its leader.
func (p *plan) place(replicas int) {
	zones := map[string]int{}
	taken := make([]bool, len(p.nodes))
	var members []int
	for range replicas {
		best := -1
		for n := range p.nodes {
			if !taken[n] && (best < 0 || p.better(n, best, zones)) {
				best = n
			}
		}
		taken[best] = true
		zones[p.nodes[best].Zone]++
		p.load[best]++
		members = append(members, best)
	}
	sort.Ints(members)
	leader := members[0]
	for _, n := range members {
		if p.leads[n] < p.leads[leader] {
			leader = n
		}
	}
	p.leads[leader]++
	p.members, p.leader = append(p.members, members), append(p.leader, leader)
}

// better reports whether node a suits the group better than node b. An unknown
// zone is nobody's.
func (p *plan) better(a, b int, zones map[string]int) bool {
	if za, zb := p.crowd(a, zones), p.crowd(b, zones); za != zb {
		return za < zb
	}
	return p.load[a] < p.load[b]
}

func (p *plan) crowd(n int, zones map[string]int) int {
	if z := p.nodes[n].Zone; z != "" {
		return zones[z]
	}
	return 0
}

// improveLeaders moves one leadership, through a chain of groups, from a node
// to one that leads at least two fewer. It reports whether it could.
func (p *plan) improveLeaders() bool {
	order := make([]int, len(p.nodes))
	for n := range order {
		order[n] = n
	}
	sort.SliceStable(order, func(i, j int) bool { return p.leads[order[i]] > p.leads[order[j]] })
	for _, from := range order {
		if p.improveFrom(from) {
			return true
		}
	}
	return false
}

func (p *plan) improveFrom(from int) bool {
	const unseen = -1
	via := make([]int, len(p.nodes)) // the group through which a node was reached
	for n := range via {
		via[n] = unseen
	}
	queue := []int{from}
	for len(queue) > 0 {
		n := queue[0]
		queue = queue[1:]
		if p.leads[n] <= p.leads[from]-2 {
			p.shift(from, n, via)
			return true
		}
		for g, leader := range p.leader {
			if leader != n {
				continue
			}
			for _, next := range p.members[g] {
				if next != from && via[next] == unseen {
					via[next] = g
					queue = append(queue, next)
				}
			}
		}
	}
	return false
}

// shift hands leadership along the chain that reached to.
func (p *plan) shift(from, to int, via []int) {
	p.leads[from]--
	p.leads[to]++
	for n := to; n != from; {
		g := via[n]
		previous := p.leader[g]
		p.leader[g] = n
		n = previous
	}
}

func (p *plan) assignment(g int) Assignment {
	a := Assignment{Group: keyspace.GroupID(g)}
	for i, n := range p.members[g] {
		r := Replica{ID: keyspace.ReplicaID(i + 1), Node: p.nodes[n].Name}
		a.Replicas = append(a.Replicas, r)
		if n == p.leader[g] {
			copy(a.Replicas[1:], a.Replicas)
			a.Replicas[0] = r
		}
	}
	return a
}
