package router

import (
	"context"
	"slices"
	"strings"
	"time"

	"kvstore/internal/keyspace"
)

// Directory is this node's copy of the cluster's metadata.
type Directory interface {
	// Map returns the newest copy, never nil. It is shared and must not be
	// changed.
	Map() *Map
	// Refresh returns once a linearizable read of the metadata that began
	// after the call is in Map.
	Refresh(ctx context.Context) error
}

// Map is one state of the cluster's metadata.
type Map struct {
	ClusterID   string
	ClusterName string
	// Epoch grows with every change of groups or members.
	Epoch uint64
	// Groups is the number of data groups; 0 until it is known.
	Groups int
	// ReplicationFactor is the number of voters a group should have.
	ReplicationFactor int
	// RecoveryEpoch counts the cluster's recoveries; 0 also while it is not known.
	RecoveryEpoch uint64
	// Members of each group, in order; the first voter is preferred as leader.
	Members map[keyspace.GroupID][]Member
	// Recorded is what guards the next write of a group's record.
	Recorded map[keyspace.GroupID]Recorded
	// Nodes that were neither replaced nor removed, by id.
	Nodes map[keyspace.NodeID]Node
	// Replaced maps nodes that came back empty to the node they are now.
	Replaced map[keyspace.NodeID]keyspace.NodeID
	// Removed nodes, by id; an id never returns.
	Removed map[keyspace.NodeID]bool
	// Dead nodes were silent for long; their replicas are placed elsewhere.
	Dead map[keyspace.NodeID]bool
	// Targets say where the voters of a group should be; a group without one
	// stays where it is.
	Targets map[keyspace.GroupID]Target
	// Balance is how replicas may be moved.
	Balance Balance
	// Namespaces by name, without the reserved ones.
	Namespaces map[string]Namespace
	// ValidUntil, on env.Clock.Mono, is when Namespaces must have been read
	// again: a namespace name is given to another id only after every copy
	// that still has the old one ran out.
	ValidUntil time.Duration
}

// Recorded is the term in which a group's record was written, and its version.
type Recorded struct {
	Term    keyspace.Term
	Version uint64
}

// Member is a replica of a group.
type Member struct {
	Replica keyspace.ReplicaID
	Node    keyspace.NodeID
	Learner bool
}

// Node is a member of the cluster and where it listens (host:port).
type Node struct {
	ID                       keyspace.NodeID
	Name                     string
	HTTP, GRPC, Peer, Gossip string
	Zone                     string
	// Weight is the capacity beside others, 0 means 1; groups prefer leaders of
	// a higher Priority; a Draining node gives up all it has.
	Weight   float64
	Priority int
	Draining bool
	// Unrecorded nodes are known from the founding or from a join only: what they
	// are beside their address is not known yet.
	Unrecorded bool
}

// Target is where a group's voters should be, the preferred leader first.
type Target struct {
	Nodes  []keyspace.NodeID
	Held   bool // an operator cancelled a move; only nodes that are gone are replaced
	Reason string
	Since  int64 // Unix milliseconds
	// Version of the record, for its next write.
	Version uint64
}

// Balance is how replicas may be moved.
type Balance struct {
	Paused   bool
	MaxMoves int
	CopyRate int64 // bytes per second and node
}

// Namespace is a name for a key space of its own.
type Namespace struct {
	ID       keyspace.NamespaceID
	Created  int64 // Unix milliseconds
	Deleting bool
}

// GroupOf returns the group that owns a slot, ok false before the number of
// groups is known.
func (m *Map) GroupOf(slot keyspace.SlotID) (g keyspace.GroupID, ok bool) {
	if m.Groups == 0 {
		return 0, false
	}
	return 1 + keyspace.GroupID(int(slot)*m.Groups/keyspace.SlotCount), true
}

// GroupOfKey returns the group of a key; SystemNamespace is never hashed.
func (m *Map) GroupOfKey(ns keyspace.NamespaceID, key string) (g keyspace.GroupID, ok bool) {
	if ns == keyspace.SystemNamespace {
		return keyspace.MetaGroup, true
	}
	return m.GroupOf(keyspace.SlotOf(ns, key))
}

// groupsOfPrefix returns the groups that may hold keys of a namespace with
// the given prefix: one when the prefix already holds the whole hash part.
func (m *Map) groupsOfPrefix(ns keyspace.NamespaceID, prefix string) (groups []keyspace.GroupID, ok bool) {
	if ns == keyspace.SystemNamespace {
		return []keyspace.GroupID{keyspace.MetaGroup}, true
	}
	if m.Groups == 0 {
		return nil, false
	}
	if open := strings.IndexByte(prefix, '{'); open >= 0 && strings.IndexByte(prefix[open+1:], '}') > 0 {
		g, ok := m.GroupOf(keyspace.SlotOf(ns, prefix))
		return []keyspace.GroupID{g}, ok
	}
	groups = make([]keyspace.GroupID, m.Groups)
	for i := range groups {
		groups[i] = keyspace.GroupID(i + 1)
	}
	return groups, true
}

// Successor returns the node that stands for id now: id itself unless it was
// replaced.
func (m *Map) Successor(id keyspace.NodeID) keyspace.NodeID {
	for range len(m.Replaced) {
		next, ok := m.Replaced[id]
		if !ok {
			break
		}
		id = next
	}
	return id
}

// HeldBy returns the groups that have a replica on a node, in order.
func (m *Map) HeldBy(id keyspace.NodeID) []keyspace.GroupID {
	var held []keyspace.GroupID
	for g, members := range m.Members {
		if slices.ContainsFunc(members, func(member Member) bool { return member.Node == id }) {
			held = append(held, g)
		}
	}
	slices.Sort(held)
	return held
}

// hosts returns the nodes that may host g: its voters, or every node while
// they are not known.
func (m *Map) hosts(g keyspace.GroupID) []keyspace.NodeID {
	members := m.Members[g]
	ids := make([]keyspace.NodeID, 0, max(len(members), len(m.Nodes)))
	for _, member := range members {
		if _, replaced := m.Replaced[member.Node]; !member.Learner && !replaced {
			ids = append(ids, member.Node)
		}
	}
	if len(ids) == 0 {
		for id := range m.Nodes {
			ids = append(ids, id)
		}
	}
	return ids
}
