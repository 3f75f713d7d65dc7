package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
	"kvstore/internal/replica"
)

// bootstrapIndex and bootstrapTerm are the position at which every first
// member starts, as if all had received the same empty snapshot.
const (
	bootstrapIndex = 1
	bootstrapTerm  = 1
)

// Bootstrap creates the first replicas of a new cluster on this node, durably.
// All first members call it with the same seeds; it comes before Start.
func (h *Host) Bootstrap(seeds []GroupSeed) error {
	b := h.log.NewBatch()
	for _, seed := range seeds {
		if seed.Self == 0 {
			continue
		}
		h.plant(b, &seed)
	}
	if err := h.log.Commit(b, true); err != nil {
		return err
	}
	for _, info := range h.log.Groups() {
		if _, open := h.groups[info.Group]; open || info.Removed {
			continue
		}
		if err := h.openGroup(info); err != nil {
			return err
		}
	}
	h.shareDirectory()
	return nil
}

// plant adds the first replica of a seed's group to a write.
func (h *Host) plant(b *raftlog.Batch, seed *GroupSeed) {
	cs := &raftpb.ConfState{}
	next := keyspace.ReplicaID(1)
	for _, m := range seed.Members {
		cs.Voters = append(cs.Voters, uint64(m.Replica))
		next = max(next, m.Replica.Number()+1)
	}
	s := format.State{Group: seed.Group, Index: bootstrapIndex, Term: bootstrapTerm,
		Format: format.Version, Members: seed.Members, NextID: next}
	if seed.Group != keyspace.MetaGroup {
		s.Slots = &format.SlotState{Owned: seed.Slots}
	}
	b.Create(seed.Group, seed.Self, h.newCheckpoint(s, cs))
	b.HardState(seed.Group, &raftpb.HardState{Term: new(uint64(bootstrapTerm)), Commit: new(uint64(bootstrapIndex))})
}

// newCheckpoint describes a replica that starts with an empty instance.
func (h *Host) newCheckpoint(s format.State, cs *raftpb.ConfState) raftlog.Checkpoint {
	s.ConfState = mustMarshal(cs)
	return raftlog.Checkpoint{Instance: keyspace.InstanceID(h.nextInstance.Add(1)),
		State: format.AppendState(nil, &s), Index: s.Index, Term: s.Term, ConfState: cs}
}

func mustMarshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	invariant.Assert(err == nil, "marshalling %T: %v", m, err)
	return b
}

// openGroup starts a replica from its checkpoint. raft replays everything
// after it (DESIGN 5): the engine holds no applied index.
func (h *Host) openGroup(info raftlog.GroupInfo) error {
	if info.Damaged {
		h.quarantine(info)
		return nil
	}
	s, err := format.DecodeState(info.Checkpoint.State)
	if err != nil {
		return err
	}
	g := &group{id: info.Group, replica: info.Replica, storage: h.log.Storage(info.Group),
		nodes: make(map[keyspace.ReplicaID]keyspace.NodeID), saved: s.Index, savedRev: s.LastRev,
		instance: &instance{id: info.Checkpoint.Instance}}
	g.learnNodes(s.Members)
	h.opt.Store.Flushed(g.instance.id, s.LastRev)
	g.core, g.imported = replica.New(h.coreConfig(g), h.opt.Store, g.instance.id, s), importedBy(&s)
	g.storage.SetSnapshotFunc(func() (*raftpb.Snapshot, error) { return h.snapshotAt(g) })
	applied := uint64(s.Index)
	if h.opt.Bugs.Has(invariant.BugReplaySkipped) {
		applied = h.skipReplay(g, info)
	}
	g.rn, err = raft.NewRawNode(h.raftConfig(g, applied))
	if err != nil {
		return fmt.Errorf("starting raft: %w", err)
	}
	if info.HardState != nil {
		g.hard = hardState{info.HardState.GetTerm(), info.HardState.GetVote(), info.HardState.GetCommit()}
		g.kept = g.hard
		g.term = keyspace.Term(info.HardState.GetTerm())
		g.replayTo = keyspace.Index(info.HardState.GetCommit())
	}
	h.addGroup(g)
	return nil
}

// addGroup lets the loop run a replica.
func (h *Host) addGroup(g *group) {
	g.dirty = true
	h.groups[g.id] = g
	h.order = append(h.order, g)
	slices.SortFunc(h.order, func(a, b *group) int { return int(a.id) - int(b.id) })
	g.locks.add(g.core.State().Prepared)
	h.publish(g)
	h.updateStatus(g)
}

// quarantine keeps a replica whose log is damaged from running. It tells the
// group's leader, which replaces it (see memberLost).
func (h *Host) quarantine(info raftlog.GroupInfo) {
	g := &group{id: info.Group, replica: info.Replica, instance: &instance{id: info.Checkpoint.Instance},
		quarantined: "the raft log is damaged before its end"}
	if info.Replica == 0 {
		g.quarantined = "damage of the raft log hides which replica lived here; delete the data directory, the node is then rebuilt"
	}
	h.opt.Logger.Error("replica does not start", "group", g.id, "replica", g.replica, "reason", g.quarantined)
	h.groups[g.id] = g
}

// skipReplay is BugReplaySkipped: trusting the engine with what was applied.
func (h *Host) skipReplay(g *group, info raftlog.GroupInfo) uint64 {
	commit := info.HardState.GetCommit()
	s := g.core.State()
	for s.Index < keyspace.Index(commit) {
		ents, err := g.storage.Entries(uint64(s.Index)+1, uint64(s.Index)+2, 1<<20)
		if err != nil || len(ents) == 0 || ents[0].GetType() != raftpb.EntryNormal {
			return uint64(s.Index)
		}
		var e format.Entry
		if data := ents[0].GetData(); len(data) > 0 && format.DecodeEntry(data, &e) == nil {
			s.Chain, s.LastRev = format.ChainHash(s.Chain, data), max(s.LastRev, e.Stamp)
			s.Ceiling, s.Closed = e.Ceiling, e.Closed
		}
		s.Index, s.Term = s.Index+1, keyspace.Term(ents[0].GetTerm())
	}
	return uint64(s.Index)
}

func (h *Host) coreConfig(g *group) replica.Config {
	return replica.Config{Group: g.id, Replica: g.replica, ElectionTimeout: h.opt.electionTimeout(),
		MaxEntryBytes: h.opt.MaxEntryBytes, MaxEntryOps: h.opt.MaxEntryOps, ChunkBytes: h.opt.ChunkBytes,
		MaxQueueOps: h.opt.MaxQueueOps, MaxQueueBytes: h.opt.MaxQueueBytes, MaxFreeze: h.opt.MaxFreeze, Bugs: h.opt.Bugs,
		Blocked: func(p *format.Prepared) {
			if f := h.opt.Hooks.Blocked; f != nil {
				f(g.id, p)
			}
		}}
}

// raftConfig holds the settings of DESIGN 7.
func (h *Host) raftConfig(g *group, applied uint64) *raft.Config {
	return &raft.Config{
		ID: uint64(g.replica), ElectionTick: h.opt.ElectionTicks, HeartbeatTick: 1,
		Storage: h.raftStorage(g), Applied: applied, AsyncStorageWrites: true,
		MaxSizePerMsg: 1 << 20, MaxCommittedSizePerReady: 8 << 20,
		MaxUncommittedEntriesSize: h.opt.MaxUncommittedBytes,
		MaxInflightMsgs:           256, MaxInflightBytes: h.opt.MaxInflightBytes,
		CheckQuorum: true, PreVote: true, ReadOnlyOption: raft.ReadOnlySafe,
		Logger:                    raftLogger{h.opt.Logger.With("group", g.id, "replica", g.replica)},
		DisableProposalForwarding: true, StepDownOnRemoval: true,
	}
}

// scanInstances finds the highest instance ever used here.
func (h *Host) scanInstances() error {
	ids, err := h.opt.Store.Instances(context.Background())
	if err != nil {
		return fmt.Errorf("listing instances: %w", err)
	}
	top := keyspace.InstanceID(0)
	for _, id := range ids {
		top = max(top, id)
	}
	for _, id := range h.opt.Store.HistoryInstances() {
		top = max(top, id)
	}
	for _, info := range h.log.Groups() {
		top = max(top, info.Checkpoint.Instance)
	}
	return h.reserveInstances(top)
}

// instancesMeta is the highest instance that may have been used; instancesPerLife of
// them are set aside at each start.
const (
	instancesMeta    = "instances"
	instancesPerLife = 1 << 20
)

// reserveInstances sets the instances of this life aside, above top and those of
// earlier lives, in the log before one is used: what is left of an instance may be
// deletions only, which nobody lists, and which would hide what a later one has.
func (h *Host) reserveInstances(top keyspace.InstanceID) error {
	if b, ok := h.log.Meta(instancesMeta); ok && len(b) == 8 {
		top = max(top, keyspace.InstanceID(binary.BigEndian.Uint64(b)))
	}
	h.nextInstance.Store(uint64(top))
	h.inherited = top
	b := h.log.NewBatch()
	b.SetMeta(instancesMeta, binary.BigEndian.AppendUint64(nil, uint64(top)+instancesPerLife))
	err := h.log.Commit(b, true)
	if fault.CodeOf(err) == fault.Overloaded {
		h.opt.Logger.Warn("instances are not set aside", "error", err)
		return nil
	}
	return err
}

// deleteOrphans removes instances of earlier lives that no replica owns: snapshots
// that were not finished and replaced lives. One that is received already is of
// this life.
func (h *Host) deleteOrphans() {
	ids, err := h.opt.Store.Instances(context.Background())
	if err != nil {
		h.opt.Logger.Error("orphans stay", "error", err)
		return
	}
	owned := make(map[keyspace.InstanceID]bool)
	for _, g := range h.groups {
		owned[g.instance.id] = true
	}
	for _, id := range ids {
		if id <= h.inherited && !owned[id] {
			h.deleteInstance(&instance{id: id})
		}
	}
}

// errNotHosted answers for a group that has no replica here.
func errNotHosted(id keyspace.GroupID) error {
	return fault.New(fault.WrongLeader, "this node has no replica of the group", "group", id)
}
