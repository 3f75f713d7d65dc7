package balancer

import (
	"slices"

	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// catchUpEntries is how far behind the commit a learner may be when it is
// promoted: it replicates live by then, and a quorum never waits for it long.
const catchUpEntries = 128

// Step is the next change of a group's members and its reason.
type Step struct {
	Change host.MemberChange
	Reason string
}

// Decide returns the next step for a group this node leads; ok is false when
// its members are as they should be, or a started step needs more time.
//
// What should be is the group's target; without one, the nodes that stand for
// its voters now. The order of the steps keeps a group at least as safe as it
// was: first leave what is of no use (learners elsewhere), then copy to one
// missing node at a time, then take it in and the one it stands for out in one
// joint change, and only when nobody is missing take out who is one too many.
// No step leaves fewer active voters than a quorum, and a leader does not take
// itself out: the target's first node takes over before (host.Guide).
func Decide(g *host.GroupStatus, m *router.Map) (step Step, ok bool) {
	d := newDecision(g, m)
	for _, try := range []func() (Step, bool){d.dropLearner, d.promote, d.addLearner, d.dropVoter} {
		if step, ok := try(); ok {
			return step, step.Change != host.MemberChange{}
		}
	}
	return Step{}, false
}

// decision is one look at a group.
type decision struct {
	g *host.GroupStatus
	m *router.Map
	// want are the nodes that should have a voter, in the target's order.
	want []keyspace.NodeID
	// leave are voters that should not stay, those that are of no use first.
	leave []format.Member
	// missing are wanted nodes without a voter.
	missing []keyspace.NodeID
}

func newDecision(g *host.GroupStatus, m *router.Map) *decision {
	d := &decision{g: g, m: m, want: wanted(g, m)}
	stays := make(map[keyspace.NodeID]bool, len(d.want))
	for _, member := range g.Members {
		switch {
		case member.Learner:
		case slices.Contains(d.want, member.Node) && !d.lost(member) && !stays[member.Node]:
			stays[member.Node] = true
		default:
			d.leave = append(d.leave, member)
		}
	}
	for _, node := range d.want {
		if !stays[node] {
			d.missing = append(d.missing, node)
		}
	}
	slices.SortStableFunc(d.leave, func(a, b format.Member) int { return d.use(a) - d.use(b) })
	return d
}

// wanted are the nodes that should have a voter of the group.
func wanted(g *host.GroupStatus, m *router.Map) []keyspace.NodeID {
	var nodes []keyspace.NodeID
	add := func(id keyspace.NodeID) {
		if id = m.Successor(id); !m.Removed[id] && !slices.Contains(nodes, id) {
			nodes = append(nodes, id)
		}
	}
	for _, id := range m.Targets[g.Group].Nodes {
		add(id)
	}
	if len(nodes) > 0 {
		return nodes
	}
	for _, member := range g.Members {
		if !member.Learner {
			add(member.Node)
		}
	}
	for _, member := range g.Members { // a learner may fill a place
		if member.Learner && len(nodes) < m.ReplicationFactor {
			add(member.Node)
		}
	}
	return nodes
}

func (d *decision) lost(m format.Member) bool { return slices.Contains(d.g.Lost, m.Replica) }

func (d *decision) active(m format.Member) bool { return d.g.Progress[m.Replica].Active && !d.lost(m) }

// use orders who leaves: members that do not answer first, then witnesses, this
// leader last.
func (d *decision) use(m format.Member) int {
	switch {
	case m.Replica == d.g.Replica:
		return 3
	case d.active(m) && !m.Witness():
		return 2
	case d.active(m):
		return 1
	}
	return 0
}

// dropLearner takes out a learner that has no place.
func (d *decision) dropLearner() (Step, bool) {
	for _, m := range d.g.Members {
		switch {
		case !m.Learner:
		case d.lost(m):
			return Step{host.MemberChange{Remove: m.Replica}, "learner's log is damaged"}, true
		case !slices.Contains(d.missing, m.Node):
			return Step{host.MemberChange{Remove: m.Replica}, "learner is not wanted where it is"}, true
		case d.m.GaveUpOn(d.g.Group, m.Node):
			return Step{host.MemberChange{Remove: m.Replica}, "learner did not catch up"}, true
		}
	}
	return Step{}, false
}

// promote takes in a learner that caught up. While there is one, nothing else
// begins.
func (d *decision) promote() (Step, bool) {
	waiting := false
	for _, m := range d.g.Members {
		if !m.Learner {
			continue
		}
		waiting = true
		if !caughtUp(d.g, m.Replica) {
			continue
		}
		change := host.MemberChange{Promote: m.Replica}
		if old, ok := d.replaceable(m.Node); ok && d.voters() >= len(d.want) {
			change.Replace = old.Replica
		}
		if d.keepsQuorum(change) {
			return Step{change, "learner caught up"}, true
		}
	}
	return Step{}, waiting
}

func (d *decision) voters() (n int) {
	for _, m := range d.g.Members {
		if !m.Learner {
			n++
		}
	}
	return n
}

// replaceable is the voter that a new one on node stands for: a damaged one of
// the same node, else the first that should leave. The leader itself stays
// until somebody else leads.
func (d *decision) replaceable(node keyspace.NodeID) (format.Member, bool) {
	for _, m := range d.leave {
		if m.Node == node {
			return m, true
		}
	}
	if len(d.leave) > 0 && d.leave[0].Replica != d.g.Replica {
		return d.leave[0], true
	}
	return format.Member{}, false
}

// addLearner begins to copy to one missing node.
func (d *decision) addLearner() (Step, bool) {
	known := func(id keyspace.NodeID) bool {
		_, ok := d.m.Nodes[id]
		return ok && !d.m.GaveUpOn(d.g.Group, id)
	}
	next := slices.IndexFunc(d.missing, known)
	if next < 0 {
		return Step{}, len(d.missing) > 0 // a node that is not known yet, or gets no copy for now, is waited for
	}
	reason := "group lacks a voter"
	if len(d.leave) > 0 {
		reason = "voter moves"
		if d.lost(d.leave[0]) {
			reason = "voter's log is damaged"
		} else if d.m.Successor(d.leave[0].Node) != d.leave[0].Node {
			reason = "voter's node was replaced"
		}
	}
	node := d.missing[next]
	return Step{host.MemberChange{AddLearner: node, Witness: d.m.Nodes[node].Witness}, reason}, true
}

// dropVoter takes out a voter that should not stay, once nobody is missing.
func (d *decision) dropVoter() (Step, bool) {
	for _, m := range d.leave {
		change := host.MemberChange{Remove: m.Replica}
		if m.Replica != d.g.Replica && d.keepsQuorum(change) {
			return Step{change, "voter is not wanted where it is"}, true
		}
	}
	return Step{}, false
}

// keepsQuorum reports whether the voters after a change have a quorum that
// answers now. Where the change takes out data that answers, a quorum of those
// that stay must have data: a witness in the place of a copy would leave what the
// other replicas have not acknowledged yet in one place.
func (d *decision) keepsQuorum(c host.MemberChange) bool {
	voters, active, data := 0, 0, 0
	takesData := false
	for _, m := range d.g.Members {
		answers := d.active(m) || m.Replica == d.g.Replica
		if m.Replica == c.Remove || m.Replica == c.Replace {
			takesData = takesData || answers && !m.Witness() && !m.Learner
			continue
		}
		if m.Learner && m.Replica != c.Promote {
			continue
		}
		voters++
		if answers {
			active++
		}
		if answers && !m.Witness() {
			data++
		}
	}
	return voters > 0 && active > voters/2 && (!takesData || data > voters/2)
}

func caughtUp(g *host.GroupStatus, r keyspace.ReplicaID) bool {
	p := g.Progress[r]
	return p.Active && p.Match > 0 && p.Match+catchUpEntries >= g.Commit
}
