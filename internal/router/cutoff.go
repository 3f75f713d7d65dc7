package router

import (
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// A node that is cut off. It may be cut off from the others while its callers
// are not: an operation would then wait here for nothing until its deadline,
// though it was not executed and another node could serve it. Members of a group
// exchange heartbeats all the time, so a node that heard nothing from any other
// member for a while says so at once: after a second to callers that can ask
// another node (Call.Elsewhere), after CutOffAfter to those that may not know
// one. Only what is certainly not executed is refused; a write that was proposed
// here ends when its outcome is known, or with unknown_outcome.

// cutOff reports whether nothing was heard of any other member of g for limit.
// Of a group that is not hosted here nothing need be heard: there the node is
// cut off when it is from all groups that it shares with others.
func (r *Router) cutOff(g keyspace.GroupID, limit time.Duration) bool {
	if r.o.Unheard == nil {
		return false
	}
	m := r.o.Directory.Map()
	if r.o.Host.Hosts(g) {
		shared, silent := r.unheard(m, g, limit)
		return shared && silent
	}
	sharesAny := false
	for other := range m.Members {
		if !r.o.Host.Hosts(other) {
			continue
		}
		shared, silent := r.unheard(m, other, limit)
		if shared && !silent {
			return false
		}
		sharesAny = sharesAny || shared
	}
	return sharesAny
}

// unheard reports whether a group has members on other nodes, and whether none
// of those was heard from for limit.
func (r *Router) unheard(m *Map, g keyspace.GroupID, limit time.Duration) (shared, silent bool) {
	for _, member := range m.Members[g] {
		if member.Node == r.o.Node {
			continue
		}
		shared = true
		if r.o.Unheard(member.Node) < limit {
			return true, false
		}
	}
	return shared, true
}

// patience is how long nothing must have been heard before a part is refused.
func (p *part) patience() time.Duration {
	if p.st.call.Elsewhere {
		return GiveBackAfter
	}
	return CutOffAfter
}

// errCutOff is the answer to what was not executed. Who can ask another node
// does so at once; others are told when to come back.
func errCutOff(cause error, g keyspace.GroupID, limit time.Duration, elsewhere bool) error {
	e := fault.Wrap(fault.Unavailable, cause, "this node is cut off from the group's other members; another node may serve it",
		"group", g, "heard_nothing_for_at_least", limit)
	if elsewhere {
		return e
	}
	return e.WithRetry(CutOffRetry)
}
