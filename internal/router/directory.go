package router

import (
	"context"
	"slices"
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
	// Epoch grows with every change of groups, members or the owners of slots.
	Epoch uint64
	// Groups is the number of data groups, 1 to Groups; 0 until it is known. It
	// only grows.
	Groups int
	// Slots say which group owns which slots; nil is the layout that the cluster
	// was founded with, which follows from Groups.
	Slots *SlotMap
	// Founding are the data groups that are being founded, not among Groups yet.
	Founding map[keyspace.GroupID]Founding
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
	// Gone says of nodes that were removed or replaced what happened, as they
	// are told when they come back.
	Gone map[keyspace.NodeID]string
	// Dead nodes were silent for long; their replicas are placed elsewhere.
	Dead map[keyspace.NodeID]bool
	// Targets say where the voters of a group should be; a group without one
	// stays where it is.
	Targets map[keyspace.GroupID]Target
	// GivenUp are nodes that get no replica of a group for now, because a copy to
	// them did not come to an end.
	GivenUp map[keyspace.GroupID][]GivenUp
	// Balance is how replicas may be moved.
	Balance Balance
	// Namespaces by name, without the reserved ones.
	Namespaces map[string]Namespace
	// ValidUntil, on env.Clock.Mono, is when Namespaces must have been read
	// again: a namespace name is given to another id only after every copy
	// that still has the old one ran out.
	ValidUntil time.Duration
}

// NameOf is the name of a namespace of users.
func (m *Map) NameOf(id keyspace.NamespaceID) (name string, ok bool) {
	if id == keyspace.DefaultNamespace {
		return keyspace.DefaultNamespaceName, true
	}
	for name, ns := range m.Namespaces {
		if ns.ID == id {
			return name, true
		}
	}
	return "", false
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
	// DrainTo is the node that takes the place of a draining one; "" for any.
	DrainTo keyspace.NodeID
	// Witness nodes vote and hold no data.
	Witness bool
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

// GivenUp is a copy of a group that did not come to an end.
type GivenUp struct {
	Node   keyspace.NodeID
	Reason string
	// Since, and Until it may begin anew, are Unix milliseconds; Until is 0 when
	// that is once the node is heard from again.
	Since, Until int64
}

// GaveUpOn reports whether a node gets no replica of a group for now.
func (m *Map) GaveUpOn(g keyspace.GroupID, id keyspace.NodeID) bool {
	return slices.ContainsFunc(m.GivenUp[g], func(u GivenUp) bool { return u.Node == id })
}

// Balance is how replicas may be moved.
type Balance struct {
	Paused   bool
	MaxMoves int
	CopyRate int64 // bytes per second and node
	// Groups is how many data groups an operator wants at least; SplitOff keeps
	// their number from following that of nodes; HoldSlots: no move of slots is
	// planned. Version guards the record's next write.
	Groups    int
	SplitOff  bool
	HoldSlots bool
	Version   uint64
}

// Namespace is a name for a key space of its own.
type Namespace struct {
	ID       keyspace.NamespaceID
	Created  int64 // Unix milliseconds
	Deleting bool
}

// GroupOfKey returns the group of a key; SystemNamespace is never hashed.
func (m *Map) GroupOfKey(ns keyspace.NamespaceID, key string) (g keyspace.GroupID, ok bool) {
	if ns == keyspace.SystemNamespace {
		return keyspace.MetaGroup, true
	}
	return m.GroupOf(keyspace.SlotOf(ns, key))
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

// Witness reports whether the member votes without data.
func (m Member) Witness() bool { return m.Replica.Witness() }

// hosts returns the nodes that may host g: its voters with data, or every node
// that has any while they are not known.
func (m *Map) hosts(g keyspace.GroupID) []keyspace.NodeID {
	members := m.Members[g]
	ids := make([]keyspace.NodeID, 0, max(len(members), len(m.Nodes)))
	for _, member := range members {
		if _, replaced := m.Replaced[member.Node]; !member.Learner && !member.Witness() && !replaced {
			ids = append(ids, member.Node)
		}
	}
	if len(ids) == 0 {
		for id, n := range m.Nodes {
			if !n.Witness {
				ids = append(ids, id)
			}
		}
	}
	return ids
}
