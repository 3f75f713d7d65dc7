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
// its members are as they should be or a started step needs more time.
func Decide(g *host.GroupStatus, m *router.Map) (step Step, ok bool) {
	for _, member := range g.Members {
		if m.Successor(member.Node) == member.Node {
			if slices.Contains(g.Lost, member.Replica) {
				return rebuild(g, member)
			}
			continue
		}
		if member.Learner {
			return Step{host.MemberChange{Remove: member.Replica}, "learner's node was replaced"}, true
		}
		return replace(g, m, member)
	}
	return settle(g, m)
}

// replace moves a voter to the node that stands for its old one now.
func replace(g *host.GroupStatus, m *router.Map, old format.Member) (Step, bool) {
	node := m.Successor(old.Node)
	if _, known := m.Nodes[node]; !known {
		return Step{}, false
	}
	next, ok := memberOn(g, node)
	switch {
	case !ok:
		return Step{host.MemberChange{AddLearner: node}, "voter's node was replaced"}, true
	case !next.Learner:
		return Step{host.MemberChange{Remove: old.Replica}, "replaced voter has a successor"}, true
	case caughtUp(g, next.Replica):
		return Step{host.MemberChange{Promote: next.Replica, Replace: old.Replica}, "learner caught up"}, true
	}
	return Step{}, false
}

// rebuild replaces a replica whose log is damaged by a new one on its node.
func rebuild(g *host.GroupStatus, lost format.Member) (Step, bool) {
	if lost.Learner {
		return Step{host.MemberChange{Remove: lost.Replica}, "learner's log is damaged"}, true
	}
	for _, next := range g.Members {
		switch {
		case next.Node != lost.Node || next.Replica <= lost.Replica:
		case !next.Learner:
			return Step{host.MemberChange{Remove: lost.Replica}, "damaged voter has a successor"}, true
		case caughtUp(g, next.Replica):
			return Step{host.MemberChange{Promote: next.Replica, Replace: lost.Replica}, "learner caught up"}, true
		default:
			return Step{}, false
		}
	}
	return Step{host.MemberChange{AddLearner: lost.Node}, "voter's log is damaged"}, true
}

// settle finishes a learner that stands in for nobody: it fills a missing
// voter's place, or it is one too many.
func settle(g *host.GroupStatus, m *router.Map) (Step, bool) {
	voters := 0
	for _, member := range g.Members {
		if !member.Learner {
			voters++
		}
	}
	if m.ReplicationFactor == 0 {
		return Step{}, false
	}
	for _, member := range g.Members {
		switch {
		case !member.Learner:
		case voters >= m.ReplicationFactor:
			return Step{host.MemberChange{Remove: member.Replica}, "group has all its voters"}, true
		case caughtUp(g, member.Replica):
			return Step{host.MemberChange{Promote: member.Replica}, "group lacks a voter"}, true
		}
	}
	return Step{}, false
}

func memberOn(g *host.GroupStatus, node keyspace.NodeID) (format.Member, bool) {
	for _, member := range g.Members {
		if member.Node == node {
			return member, true
		}
	}
	return format.Member{}, false
}

func caughtUp(g *host.GroupStatus, r keyspace.ReplicaID) bool {
	p := g.Progress[r]
	return p.Active && p.Match > 0 && p.Match+catchUpEntries >= g.Commit
}
