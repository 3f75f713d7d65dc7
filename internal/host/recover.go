package host

import (
	"context"
	"encoding/json"
	"maps"
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

// Recovery of a group whose quorum is gone for good (DESIGN 11).
//
// One surviving replica adopts the group. A new replica id takes over its log,
// and behind all that the log holds, committed or not, since any of it may have
// been acknowledged, come: an entry that raises the ceiling above every time
// the lost members may have stamped or read at, and a membership change after
// which the new id is the only member. All of it is durable, and committed, by
// one fsynced frame. Then the replica applies it like any other entries, now or
// after a restart; nothing is written to the engine before that frame, since
// what a crash left of an entry that never was committed could not be taken
// back. Messages for the old id are refused (groupFor), and the new id and term
// are far above those that the lost members may have given meanwhile.
const (
	// adoptedIDs and adoptedTerms are how far above the highest known ones the
	// id and the term of an adopted group start.
	adoptedIDs   = 1 << 10
	adoptedTerms = 1 << 10
)

// Adoption makes the replica here its group's only member.
type Adoption struct {
	Group keyspace.GroupID
	// Replica is the one that lives here now.
	Replica keyspace.ReplicaID
	// AboveReplica and AboveTerm are the highest that any survivor knows of.
	AboveReplica keyspace.ReplicaID
	AboveTerm    keyspace.Term
	// ClockMilli is the latest of the survivors' clocks, in Unix milliseconds.
	ClockMilli int64
}

// Adopt makes a surviving replica its group's only member and returns its new
// id; everything in its log is kept. Only for a group whose quorum is gone for
// good: what the others acknowledged and this one has not received is lost.
// Errors: FailedPrecondition when another replica lives here, or when a leader
// is known, since then there is a quorum; Overloaded on a full disk.
func (h *Host) Adopt(ctx context.Context, a Adoption) (keyspace.ReplicaID, error) {
	return onLoop(ctx, h, func() (keyspace.ReplicaID, error) { return h.adopt(a) })
}

// Discard removes a replica that a recovery left behind: the group goes on
// elsewhere, and the id never lives here again. It does nothing when the
// replica is gone already.
func (h *Host) Discard(ctx context.Context, id keyspace.GroupID, r keyspace.ReplicaID) error {
	_, err := onLoop(ctx, h, func() (struct{}, error) { return struct{}{}, h.discard(id, r) })
	return err
}

// StoreFact makes a small fact of the node durable in the log.
func (h *Host) StoreFact(ctx context.Context, key string, value []byte) error {
	_, err := onLoop(ctx, h, func() (struct{}, error) {
		return struct{}{}, h.writeNow(func(b *raftlog.Batch) { b.SetMeta(key, value) })
	})
	return err
}

// runsLoop is the key of RunsLoop.
type runsLoop struct{}

// RunsLoop says of a context that the caller itself runs the loop, as the
// simulation does: what has to happen on the loop happens at once.
func RunsLoop(ctx context.Context) context.Context { return context.WithValue(ctx, runsLoop{}, true) }

// onLoop runs f on the loop and waits for its answer.
func onLoop[T any](ctx context.Context, h *Host, f func() (T, error)) (T, error) {
	if ctx.Value(runsLoop{}) != nil {
		return f()
	}
	type answer struct {
		v   T
		err error
	}
	out := make(chan answer, 1)
	h.control(func() {
		v, err := f()
		out <- answer{v, err}
	})
	var none T
	select {
	case a := <-out:
		return a.v, a.err
	case <-ctx.Done():
		return none, fault.Wrap(fault.UnknownOutcome, ctx.Err(), "this node did not answer in time")
	case <-h.ctx.Done():
		return none, errStopped()
	}
}

// writeNow is commitNow for callers who can be told of a full disk; any other
// failure ends the host.
func (h *Host) writeNow(add func(*raftlog.Batch)) error {
	err := h.commitNow(add)
	if err != nil && h.log.Err() != nil {
		h.fail(err)
	}
	return err
}

func (h *Host) adopt(a Adoption) (keyspace.ReplicaID, error) {
	g := h.groups[a.Group]
	if g != nil && g.core != nil && g.replica >= a.Replica+adoptedIDs {
		return g.replica, nil // the answer to an earlier request was lost
	}
	if err := h.adoptable(g, a); err != nil {
		return 0, err
	}
	t, err := readTail(g)
	if err != nil {
		return 0, err
	}
	id := max(a.AboveReplica.Number(), t.next-1, g.replica, h.log.HighestRemoved(g.id)) + adoptedIDs
	term := max(a.AboveTerm, t.term, keyspace.Term(g.hard.term), keyspace.Term(g.rn.BasicStatus().GetTerm())) + adoptedTerms
	entries, err := h.adoptionEntries(g, &t, id, term, a.ClockMilli)
	if err != nil {
		return 0, err
	}
	hs := hardState{term: uint64(term), commit: entries[len(entries)-1].GetIndex()}
	err = h.writeNow(func(b *raftlog.Batch) {
		b.Adopt(g.id, id)
		b.Entries(g.id, entries)
		b.HardState(g.id, &raftpb.HardState{Term: &hs.term, Vote: &hs.vote, Commit: &hs.commit})
	})
	if err != nil {
		return 0, err
	}
	if err := h.succeed(g, id, hs); err != nil {
		h.fail(err)
		return 0, err
	}
	h.opt.Logger.Warn("group is adopted: this replica is its only member now", "group", g.id,
		"replica", g.replica, "as", id, "log_ends_at", t.last, "commit", hs.commit)
	return id, nil
}

func (h *Host) adoptable(g *group, a Adoption) error {
	switch {
	case g == nil || g.core == nil || g.replica != a.Replica:
		return fault.New(fault.FailedPrecondition, "the replica to be recovered does not run here", "group", a.Group, "replica", a.Replica)
	case g.replica.Witness():
		return fault.New(fault.FailedPrecondition, "a witness has no data that its group could go on from", "group", a.Group, "replica", a.Replica)
	case h.leaderOf(g) != 0:
		return fault.New(fault.FailedPrecondition, "the group has a leader, or had one within an election timeout",
			"group", a.Group, "leader", g.leader)
	case g.core.State().Index == 0:
		return fault.New(fault.FailedPrecondition, "the replica has no data yet", "group", a.Group, "replica", a.Replica)
	case h.stalled:
		return fault.New(fault.Overloaded, "the disk of the raft log is full", "group", a.Group)
	case g.incoming != nil:
		return fault.New(fault.Unavailable, "the replica is taking a snapshot", "group", a.Group)
	}
	return nil
}

// adoptionEntries are those that follow the tail: the ceiling, then the members.
// A joint membership can be left, and another one entered, only in turn.
func (h *Host) adoptionEntries(g *group, t *tail, id keyspace.ReplicaID, term keyspace.Term, clockMilli int64) ([]*raftpb.Entry, error) {
	cs, err := t.confState(g)
	if err != nil {
		return nil, err
	}
	var data [][]byte
	if len(cs.GetVotersOutgoing()) > 0 {
		data = append(data, mustMarshal(&raftpb.ConfChangeV2{}))
	}
	alone := &raftpb.ConfChangeV2{Transition: raftpb.ConfChangeTransition_ConfChangeTransitionJointExplicit.Enum()}
	add := func(kind raftpb.ConfChangeType, id uint64) {
		alone.Changes = append(alone.Changes, &raftpb.ConfChangeSingle{Type: kind.Enum(), NodeId: new(id)})
	}
	add(raftpb.ConfChangeAddNode, uint64(id))
	for _, old := range slices.Concat(cs.GetVoters(), cs.GetLearners(), cs.GetLearnersNext()) {
		add(raftpb.ConfChangeRemoveNode, old)
	}
	if alone.Context, err = json.Marshal(confContext{Replica: id, Node: h.opt.Node}); err != nil {
		return nil, err
	}
	data = append(data, mustMarshal(alone), mustMarshal(&raftpb.ConfChangeV2{}))

	clock := format.Entry{Type: format.EntryClock, Prev: t.chain, Stamp: t.lastRev, Closed: t.closed, Ceiling: h.adoptedCeiling(t, clockMilli)}
	index := uint64(t.last) + 1
	out := []*raftpb.Entry{{Term: new(uint64(term)), Index: new(index), Type: raftpb.EntryNormal.Enum(), Data: format.AppendEntry(nil, &clock)}}
	for _, d := range data {
		index++
		out = append(out, &raftpb.Entry{Term: new(uint64(term)), Index: new(index), Type: raftpb.EntryConfChangeV2.Enum(), Data: d})
	}
	return out, nil
}

// adoptedCeiling is above everything that the lost members may have stamped or
// served reads at: their ceilings, which ran at most an election timeout ahead
// of a clock, which may be MaxClockOffset from the true time, as ours may be.
// Twice an election timeout, since a clock may itself follow another group's
// ceiling. The new leader starts above it.
func (h *Host) adoptedCeiling(t *tail, clockMilli int64) keyspace.Revision {
	ahead := 2 * (h.opt.MaxClockOffset + h.opt.electionTimeout())
	highest := t.ceiling
	for _, g := range h.order {
		highest = max(highest, g.core.State().Ceiling)
	}
	return max(highest, keyspace.RevisionAt(max(clockMilli, h.opt.Clock.Wall())+ahead.Milliseconds())) + 1
}

// succeed puts the new replica in the place of the old one. It goes on from
// what is applied; the instance and its deltas stay.
func (h *Host) succeed(g *group, id keyspace.ReplicaID, hs hardState) error {
	h.dismiss(g)
	s := *g.core.State()
	n := &group{id: g.id, replica: id, storage: g.storage, nodes: maps.Clone(g.nodes), instance: g.instance,
		saved: g.saved, savedRev: g.savedRev, hard: hs, kept: hs, term: keyspace.Term(hs.term), replayTo: keyspace.Index(hs.commit)}
	n.core, n.imported = replica.New(h.coreConfig(n), h.opt.Store, n.instance.id, s), importedBy(&s)
	n.storage.SetSnapshotFunc(func() (*raftpb.Snapshot, error) { return h.snapshotAt(n) })
	cs := &raftpb.ConfState{}
	invariant.Assert(proto.Unmarshal(s.ConfState, cs) == nil, "group %d: own configuration does not decode", g.id)
	config := h.raftConfig(n, uint64(s.Index))
	config.Storage = appliedStorage{n.storage, cs}
	var err error
	if n.rn, err = raft.NewRawNode(config); err != nil {
		return err
	}
	h.addGroup(n)
	h.shareDirectory()
	return nil
}

// appliedStorage starts raft from the applied membership instead of the
// checkpoint's.
type appliedStorage struct {
	*raftlog.GroupStorage
	conf *raftpb.ConfState
}

func (s appliedStorage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	hs, _, err := s.GroupStorage.InitialState()
	return hs, s.conf, err
}

func (h *Host) discard(id keyspace.GroupID, r keyspace.ReplicaID) error {
	g := h.groups[id]
	switch {
	case g == nil || g.replica > r:
		return nil
	case g.replica != r:
		return fault.New(fault.FailedPrecondition, "another replica lives here", "group", id, "replica", g.replica, "want", r)
	case h.leaderOf(g) != 0:
		return fault.New(fault.FailedPrecondition, "the replica follows a leader; its group is not lost", "group", id, "replica", r)
	case h.stalled || g.incoming != nil:
		return fault.New(fault.Unavailable, "the replica is taking a snapshot, or the disk is full", "group", id)
	}
	if err := h.writeNow(func(b *raftlog.Batch) { b.Remove(id) }); err != nil {
		return err
	}
	h.retire(g)
	h.shareDirectory()
	h.opt.Logger.Warn("replica removed: its group was recovered on another node", "group", id, "replica", r)
	return nil
}
