package meta

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// Seed is what a node knows before it has read any record: from its bootstrap,
// or from the answer to its join.
type Seed struct {
	Cluster format.ClusterRecord
	// Nodes known so far, this one included. Their records replace them.
	Nodes []format.NodeRecord
	// Members of the groups, when the node took part in the bootstrap.
	Members map[keyspace.GroupID][]format.MemberRecord
}

// entry is one record of the reserved namespace.
type entry struct {
	key      string
	value    []byte
	version  uint64
	revision uint64
}

// stored is a decoded record with the version that guards its next write.
type stored[T any] struct {
	record  T
	version uint64
}

// state is one decoded copy of all records.
type state struct {
	view       router.Map
	cluster    stored[format.ClusterRecord] // version 0 while it is not stored
	nodes      map[keyspace.NodeID]stored[format.NodeRecord]
	groups     map[keyspace.GroupID]stored[format.GroupRecord]
	namespaces map[string]stored[format.NamespaceRecord]
	sequence   stored[format.NamespaceSeqRecord]
	jobs       map[string]stored[format.JobRecord]
	targets    map[keyspace.GroupID]stored[format.TargetRecord]
	pending    map[string]stored[format.PendingRecord]
	dead       map[keyspace.NodeID]stored[format.DeadRecord]
	balance    stored[format.BalanceRecord]
	slots      stored[format.SlotsRecord] // version 0 while the founding layout holds
	founding   map[keyspace.GroupID]stored[format.FoundingRecord]
	// damaged records are skipped, so that one cannot take the cluster down.
	damaged []error
}

// build decodes entries over seed.
func build(seed Seed, entries []entry, validUntil time.Duration) *state {
	s := &state{
		nodes:      make(map[keyspace.NodeID]stored[format.NodeRecord]),
		groups:     make(map[keyspace.GroupID]stored[format.GroupRecord]),
		namespaces: make(map[string]stored[format.NamespaceRecord]),
		jobs:       make(map[string]stored[format.JobRecord]),
		targets:    make(map[keyspace.GroupID]stored[format.TargetRecord]),
		pending:    make(map[string]stored[format.PendingRecord]),
		dead:       make(map[keyspace.NodeID]stored[format.DeadRecord]),
		founding:   make(map[keyspace.GroupID]stored[format.FoundingRecord]),
	}
	s.cluster.record = seed.Cluster
	s.view.ValidUntil = validUntil
	for _, e := range entries {
		s.decode(e)
	}
	s.viewCluster()
	s.viewSlots()
	s.viewNodes(seed)
	s.viewMembers(seed)
	s.viewTargets()
	s.viewNamespaces()
	return s
}

func (s *state) decode(e entry) {
	var err error
	switch {
	case e.key == format.SystemClusterKey:
		err = decode(e, &s.cluster)
		s.view.Epoch = max(s.view.Epoch, e.revision)
	case e.key == format.SystemNamespaceSeqKey:
		err = decode(e, &s.sequence)
	case strings.HasPrefix(e.key, format.SystemNodePrefix):
		err = decodeInto(e, s.nodes, keyspace.NodeID(e.key[len(format.SystemNodePrefix):]))
	case strings.HasPrefix(e.key, format.SystemNamespacePrefix):
		err = decodeInto(e, s.namespaces, e.key[len(format.SystemNamespacePrefix):])
	case strings.HasPrefix(e.key, format.SystemJobPrefix):
		err = decodeInto(e, s.jobs, e.key[len(format.SystemJobPrefix):])
	case strings.HasPrefix(e.key, format.SystemPendingPrefix):
		err = decodeInto(e, s.pending, e.key[len(format.SystemPendingPrefix):])
	case strings.HasPrefix(e.key, format.SystemDeadPrefix):
		err = decodeInto(e, s.dead, keyspace.NodeID(e.key[len(format.SystemDeadPrefix):]))
	case e.key == format.SystemBalanceKey:
		err = decode(e, &s.balance)
	case e.key == format.SystemSlotsKey:
		err = s.decodeSlots(e)
	default:
		err = s.decodeGroup(e)
	}
	if err != nil {
		s.damaged = append(s.damaged, err)
	}
}

// decodeGroup takes what is kept by group: its members and its target.
func (s *state) decodeGroup(e entry) error {
	if g, ok := format.SystemGroupOf(e.key); ok {
		s.view.Epoch = max(s.view.Epoch, e.revision)
		return decodeInto(e, s.groups, g)
	}
	if g, ok := format.SystemTargetOf(e.key); ok {
		return decodeInto(e, s.targets, g)
	}
	if g, ok := format.SystemFoundingOf(e.key); ok {
		return decodeInto(e, s.founding, g)
	}
	return nil
}

// decodeSlots takes the slot map as a whole or not at all.
func (s *state) decodeSlots(e entry) error {
	s.view.Epoch = max(s.view.Epoch, e.revision)
	var v stored[format.SlotsRecord]
	if err := decode(e, &v); err != nil {
		return err
	}
	if err := v.record.Validate(); err != nil {
		return err
	}
	s.slots = v
	return nil
}

func decode[T any](e entry, to *stored[T]) error {
	record, err := format.DecodeSystem[T](e.key, e.value)
	if err == nil {
		*to = stored[T]{record: record, version: e.version}
	}
	return err
}

func decodeInto[K comparable, T any](e entry, to map[K]stored[T], key K) error {
	var v stored[T]
	if err := decode(e, &v); err != nil {
		return err
	}
	to[key] = v
	return nil
}

func (s *state) viewCluster() {
	c := s.cluster.record
	s.view.ClusterID, s.view.ClusterName, s.view.Groups = c.ID, c.Name, c.Groups
	s.view.ReplicationFactor = c.ReplicationFactor
	s.view.RecoveryEpoch = c.RecoveryEpoch
}

// viewSlots takes the slot map. It has every group the cluster came to have; the
// cluster's record those it was founded with.
func (s *state) viewSlots() {
	if s.slots.version != 0 {
		s.view.Slots = router.NewSlotMap(&s.slots.record, s.slots.version)
		s.view.Groups = len(s.slots.record.Owners)
	}
	s.view.Founding = make(map[keyspace.GroupID]router.Founding, len(s.founding))
	for g, f := range s.founding {
		s.view.Founding[g] = router.Founding{Node: f.record.Node, Replica: f.record.Replica, Since: f.record.Since, Version: f.version}
	}
}

// viewNodes takes the records, and of the seed what no record stands for.
func (s *state) viewNodes(seed Seed) {
	s.view.Nodes = make(map[keyspace.NodeID]router.Node)
	s.view.Replaced = make(map[keyspace.NodeID]keyspace.NodeID)
	s.view.Removed = make(map[keyspace.NodeID]bool)
	s.view.Gone = make(map[keyspace.NodeID]string)
	names := make(map[string]bool)
	for id, n := range s.nodes {
		names[n.record.Name] = true
		if n.record.ReplacedBy != "" {
			s.view.Replaced[id] = n.record.ReplacedBy
			s.view.Gone[id] = goneText(n.record)
			continue
		}
		if n.record.Removed != "" {
			s.view.Removed[id] = true
			s.view.Gone[id] = goneText(n.record)
			continue
		}
		s.view.Nodes[id] = node(n.record)
	}
	for _, n := range seed.Nodes {
		if _, ok := s.nodes[n.ID]; !ok && !names[n.Name] {
			unrecorded := node(n)
			unrecorded.Unrecorded = true
			s.view.Nodes[n.ID] = unrecorded
		}
	}
}

// goneText is what a node is told that does not belong to the cluster any more.
func goneText(n format.NodeRecord) string {
	const then = "; delete its data directory and start it again to join anew"
	if n.ReplacedBy != "" {
		return fmt.Sprintf("this node was replaced under its name %s by node %s, which came with an empty directory", n.Name, n.ReplacedBy) + then
	}
	when := ""
	if n.RemovedAt != 0 {
		when = " on " + time.UnixMilli(n.RemovedAt).UTC().Format(time.RFC3339)
	}
	return fmt.Sprintf("this node was removed from the cluster%s (%s)", when, n.Removed) + then
}

func node(n format.NodeRecord) router.Node {
	return router.Node{ID: n.ID, Name: n.Name, HTTP: n.HTTP, GRPC: n.GRPC, Peer: n.Peer, Gossip: n.Gossip, Zone: n.Zone,
		Weight: n.Weight, Priority: n.Priority, Draining: n.State == format.NodeDraining, DrainTo: n.DrainTo,
		Witness: n.Role == format.RoleWitness}
}

func (s *state) viewMembers(seed Seed) {
	s.view.Members = make(map[keyspace.GroupID][]router.Member)
	for g, members := range seed.Members {
		s.view.Members[g] = groupMembers(members)
	}
	s.view.Recorded = make(map[keyspace.GroupID]router.Recorded, len(s.groups))
	s.view.GivenUp = make(map[keyspace.GroupID][]router.GivenUp)
	for g, r := range s.groups {
		s.view.Members[g] = groupMembers(r.record.Members)
		s.view.Recorded[g] = router.Recorded{Term: r.record.Term, Version: r.version}
		for _, u := range r.record.GivenUp {
			s.view.GivenUp[g] = append(s.view.GivenUp[g], router.GivenUp(u))
		}
	}
}

func (s *state) viewTargets() {
	s.view.Targets = make(map[keyspace.GroupID]router.Target, len(s.targets))
	for g, t := range s.targets {
		s.view.Targets[g] = router.Target{Nodes: t.record.Nodes, Held: t.record.Held, Reason: t.record.Reason, Since: t.record.Since, Version: t.version}
	}
	s.view.Dead = make(map[keyspace.NodeID]bool, len(s.dead))
	for id := range s.dead {
		s.view.Dead[id] = true
	}
	b := s.balance.record
	s.view.Balance = router.Balance{Paused: b.Paused, MaxMoves: b.MaxMoves, CopyRate: b.CopyRate,
		Groups: b.Groups, SplitOff: b.SplitOff, HoldSlots: b.HoldSlots, Version: s.balance.version}
	if b.MaxMoves == 0 {
		s.view.Balance.MaxMoves = format.DefaultMaxMoves
	}
	if b.CopyRate == 0 {
		s.view.Balance.CopyRate = format.DefaultCopyRate
	}
}

func groupMembers(records []format.MemberRecord) []router.Member {
	out := make([]router.Member, len(records))
	for i, m := range records {
		out[i] = router.Member(m)
	}
	return out
}

func (s *state) viewNamespaces() {
	s.view.Namespaces = make(map[string]router.Namespace)
	for name, n := range s.namespaces {
		s.view.Namespaces[name] = router.Namespace{
			ID: n.record.ID, Created: n.record.Created, Deleting: n.record.State == format.NamespaceDeleting,
		}
	}
}

// member returns the node of a name that belongs to the cluster.
func (s *state) member(name string) (stored[format.NodeRecord], bool) {
	n, ok := s.named(name)
	return n, ok && n.record.Removed == ""
}

// named returns the node that held a name last, also one that was removed.
func (s *state) named(name string) (stored[format.NodeRecord], bool) {
	for _, n := range s.nodes {
		if n.record.Name == name && n.record.ReplacedBy == "" {
			return n, true
		}
	}
	return stored[format.NodeRecord]{}, false
}

// jobsBy returns the jobs in a state, oldest first.
func (s *state) jobsBy(running bool) []format.JobRecord {
	var out []format.JobRecord
	for _, j := range s.jobs {
		if (j.record.State == format.JobRunning) == running {
			out = append(out, j.record)
		}
	}
	slices.SortFunc(out, func(a, b format.JobRecord) int {
		return cmp.Or(cmp.Compare(a.Started, b.Started), strings.Compare(a.ID, b.ID))
	})
	return out
}
