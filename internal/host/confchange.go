package host

import (
	"context"
	"encoding/json"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/raftlog"
)

// confContext travels in a membership change, so that every replica learns
// where the members are from the group's own log.
type confContext struct {
	Replica keyspace.ReplicaID `json:"replica,omitempty"`
	Node    keyspace.NodeID    `json:"node,omitempty"`
	// Replaces: Replica takes the place of this one in the order of members.
	Replaces keyspace.ReplicaID `json:"replaces,omitempty"`
}

// confWaiter is the one membership change under way.
type confWaiter struct {
	done func(error)
	id   keyspace.ReplicaID
}

// ChangeMembers performs one step of a membership change on the leader and
// waits until it is applied. It returns the id of the replica concerned.
func (h *Host) ChangeMembers(ctx context.Context, id keyspace.GroupID, c MemberChange) (keyspace.ReplicaID, error) {
	type result struct {
		id  keyspace.ReplicaID
		err error
	}
	out := make(chan result, 1)
	h.ChangeMembersAsync(id, c, func(r keyspace.ReplicaID, err error) { out <- result{r, err} })
	select {
	case r := <-out:
		return r.id, r.err
	case <-ctx.Done():
		return 0, fault.Wrap(fault.UnknownOutcome, ctx.Err(), "the membership change did not finish in time", "group", id)
	case <-h.done:
		return 0, fault.New(fault.UnknownOutcome, "this node stopped during the membership change", "group", id)
	}
}

// ChangeMembersAsync is ChangeMembers with a callback on the loop.
func (h *Host) ChangeMembersAsync(id keyspace.GroupID, c MemberChange, done func(keyspace.ReplicaID, error)) {
	h.control(func() { h.proposeConf(id, c, done) })
}

func (h *Host) proposeConf(id keyspace.GroupID, c MemberChange, done func(keyspace.ReplicaID, error)) {
	g := h.groups[id]
	if g == nil || g.core == nil {
		done(0, errNotHosted(id))
		return
	}
	if !g.core.Serving(h.now(g)) {
		done(0, wrongLeader(id, g.published.Load()))
		return
	}
	if g.conf != nil {
		done(0, fault.New(fault.FailedPrecondition, "another membership change of the group is under way", "group", id))
		return
	}
	cc, target, err := confChange(g.core.State(), c, g.lost)
	if err != nil {
		done(0, err)
		return
	}
	if err := g.rn.ProposeConfChange(cc); err != nil {
		done(0, fault.Wrap(fault.Unavailable, err, "raft refused the membership change", "group", id))
		return
	}
	g.conf = &confWaiter{id: target, done: func(err error) { done(target, err) }}
}

// confChange translates a step into raft's terms.
func confChange(s *format.State, c MemberChange, lost map[keyspace.ReplicaID]bool) (*raftpb.ConfChangeV2, keyspace.ReplicaID, error) {
	find := func(id keyspace.ReplicaID) bool {
		return slices.ContainsFunc(s.Members, func(m format.Member) bool { return m.Replica == id })
	}
	single := func(t raftpb.ConfChangeType, id keyspace.ReplicaID) *raftpb.ConfChangeSingle {
		return &raftpb.ConfChangeSingle{Type: t.Enum(), NodeId: new(uint64(id))}
	}
	cc := &raftpb.ConfChangeV2{}
	var cx confContext
	switch {
	case c.AddLearner != "":
		if slices.ContainsFunc(s.Members, func(m format.Member) bool { return m.Node == c.AddLearner && !lost[m.Replica] }) {
			return nil, 0, fault.New(fault.FailedPrecondition, "the node already has a replica of the group", "node", c.AddLearner)
		}
		cx = confContext{Replica: s.NextID, Node: c.AddLearner}
		if c.Witness {
			cx.Replica = s.NextID.AsWitness()
		}
		cc.Changes = append(cc.Changes, single(raftpb.ConfChangeAddLearnerNode, cx.Replica))
	case c.Promote != 0 && find(c.Promote):
		cx = confContext{Replica: c.Promote, Replaces: c.Replace}
		cc.Changes = append(cc.Changes, single(raftpb.ConfChangeAddNode, c.Promote))
		if c.Replace != 0 {
			cc.Changes = append(cc.Changes, single(raftpb.ConfChangeRemoveNode, c.Replace))
		}
	case c.Remove != 0 && find(c.Remove):
		cx = confContext{Replica: c.Remove}
		cc.Changes = append(cc.Changes, single(raftpb.ConfChangeRemoveNode, c.Remove))
	default:
		return nil, 0, fault.New(fault.InvalidArgument, "the change names no member of the group")
	}
	if c.Replace != 0 && c.Replace == c.Promote || !leavesVoter(s, c) {
		return nil, 0, fault.New(fault.FailedPrecondition, "the change would leave the group without a voter that has data", "replica", cx.Replica)
	}
	b, err := json.Marshal(cx)
	cc.Context = b
	return cc, cx.Replica, err
}

// leavesVoter reports whether somebody can vote, and has data, after a change;
// raft panics on every replica that applies one after which nobody votes.
func leavesVoter(s *format.State, c MemberChange) bool {
	return c.AddLearner != "" || slices.ContainsFunc(s.Members, func(m format.Member) bool {
		return !m.Witness() && (m.Replica == c.Promote || !m.Learner && m.Replica != c.Remove && m.Replica != c.Replace)
	})
}

// applyConfChange adopts a membership change. It is never rejected here.
func (h *Host) applyConfChange(g *group, e *raftpb.Entry) error {
	cc, err := decodeConf(e)
	if err != nil {
		return fault.Wrap(fault.Corruption, err, "undecodable membership change", "group", g.id, "index", e.GetIndex())
	}
	cs, err := h.adoptConf(g, cc)
	if err != nil {
		return err
	}
	var cx confContext
	if raw := cc.GetContext(); len(raw) > 0 {
		if err := json.Unmarshal(raw, &cx); err != nil {
			return fault.Wrap(fault.Corruption, err, "undecodable context of a membership change", "group", g.id)
		}
	}
	s := g.core.State()
	if cx.Node != "" {
		g.nodes[cx.Replica] = cx.Node
	}
	members := membersOf(s.Members, cs, cx, g.nodes)
	g.core.ApplyConf(keyspace.Index(e.GetIndex()), keyspace.Term(e.GetTerm()), members, cx.Replica.Number()+1, mustMarshal(cs))
	g.learnNodes(members)
	h.keepCommit(g, e.GetIndex())
	g.echo = 0
	if g.conf != nil && g.conf.id == cx.Replica {
		g.conf.done(nil)
		g.conf = nil
	}
	h.opt.Logger.Info("membership changed", "group", g.id, "members", members)
	return nil
}

// confReplaced meets an empty entry. raft opens a term with one, before any
// membership change can be proposed; a later one stands for a change that raft
// silently refused because it still counts an earlier one as pending.
func (h *Host) confReplaced(g *group, term keyspace.Term) {
	if own, leading := g.core.Leading(); g.conf == nil || !leading || own != term {
		return
	}
	g.conf.done(fault.New(fault.Unavailable, "raft still counts an earlier membership change as pending", "group", g.id))
	g.conf = nil
}

func decodeConf(e *raftpb.Entry) (*raftpb.ConfChangeV2, error) {
	if e.GetType() == raftpb.EntryConfChange {
		cc := &raftpb.ConfChange{}
		err := proto.Unmarshal(e.GetData(), cc)
		return cc.AsV2(), err
	}
	cc := &raftpb.ConfChangeV2{}
	return cc, proto.Unmarshal(e.GetData(), cc)
}

// membersOf derives the descriptor from raft's configuration. Members keep
// their order, in which the first voter is the preferred leader.
func membersOf(old []format.Member, cs *raftpb.ConfState, cx confContext, nodes map[keyspace.ReplicaID]keyspace.NodeID) []format.Member {
	order := make([]keyspace.ReplicaID, 0, len(old)+1)
	for _, m := range old {
		switch {
		case cx.Replaces != 0 && m.Replica == cx.Replaces:
			order = append(order, cx.Replica, m.Replica)
		case m.Replica != cx.Replica || cx.Replaces == 0:
			order = append(order, m.Replica)
		}
	}
	if cx.Replica != 0 && !slices.Contains(order, cx.Replica) {
		order = append(order, cx.Replica)
	}
	var members []format.Member
	for _, id := range order {
		voter := slices.Contains(cs.GetVoters(), uint64(id)) || slices.Contains(cs.GetVotersOutgoing(), uint64(id))
		learner := slices.Contains(cs.GetLearners(), uint64(id)) || slices.Contains(cs.GetLearnersNext(), uint64(id))
		if voter || learner {
			members = append(members, format.Member{Replica: id, Node: nodes[id], Learner: !voter})
		}
	}
	return members
}

// createReplica adds an empty replica that a leader speaks to. Ids at or below
// one that was removed here are refused by the log.
func (h *Host) createReplica(id keyspace.GroupID, r keyspace.ReplicaID, from keyspace.NodeID) *group {
	if r == 0 || r.Witness() != h.opt.Witness || !h.log.MayCreate(id, r) {
		if h.log.Hidden() && h.groups[id] == nil && !h.hides.Swap(true) {
			h.opt.Logger.Error("damage of the raft log hides which replicas lived here, and this node takes no new ones; delete the data directory, the node is then rebuilt", "group", id)
		}
		return nil
	}
	if h.stalled {
		return nil // the leader asks again
	}
	cp := h.newCheckpoint(format.State{Group: id, Format: format.Version}, &raftpb.ConfState{})
	err := h.commitNow(func(b *raftlog.Batch) { b.Create(id, r, cp) })
	if fault.CodeOf(err) == fault.Overloaded {
		return nil
	}
	if err != nil {
		h.fail(err)
		return nil
	}
	if old := h.groups[id]; old != nil {
		h.retire(old)
	}
	var info raftlog.GroupInfo
	for _, i := range h.log.Groups() {
		if i.Group == id {
			info = i
		}
	}
	if err := h.openGroup(info); err != nil {
		h.fail(err)
		return nil
	}
	h.shareDirectory()
	h.opt.Logger.Info("replica created", "group", id, "replica", r, "asked_by", from)
	return h.groups[id]
}

// HidesReplicas reports whether this node refused a replica because damage of its
// log hides whether that one lived here before; it takes no other new ones either
// until its data directory is deleted (ADR 0005). Any goroutine may ask.
func (h *Host) HidesReplicas() bool { return h.hides.Load() }

// memberLost notes that a member's node cannot run it any more because its log
// is damaged. The balancer replaces it by a new replica on the same node.
func (h *Host) memberLost(g *group, from keyspace.NodeID, id keyspace.ReplicaID) {
	if g.nodes[id] != from || g.lost[id] {
		return
	}
	if g.lost == nil {
		g.lost = make(map[keyspace.ReplicaID]bool)
	}
	g.lost[id] = true
	h.opt.Logger.Warn("a member lost its log and must be replaced", "group", g.id, "replica", id, "node", from)
}

// keepCommit makes durable that a membership change is committed: a restart
// would otherwise begin with the members before it, of whom one that was taken
// out may be gone (see stray.go).
func (h *Host) keepCommit(g *group, index uint64) {
	if h.opt.Bugs.Has(invariant.BugRemovedVanishes) || h.opt.Bugs.Has(invariant.BugCommitForgotten) {
		return
	}
	g.kept.commit = max(g.kept.commit, index)
	h.batch.HardState(g.id, &raftpb.HardState{Term: &g.kept.term, Vote: &g.kept.vote, Commit: &g.kept.commit})
	h.inline = true
}

// giveUpReplica ends a replica that its group took out.
func (h *Host) giveUpReplica(g *group) {
	h.opt.Logger.Info("replica removed", "group", g.id, "replica", g.replica)
	h.retire(g)
	h.batch.Remove(g.id)
	h.inline = true
	h.shareDirectory()
}

// retire stops a replica and gives its data up.
func (h *Host) retire(g *group) {
	h.dismiss(g)
	h.retireInstance(g.instance)
}

// dismiss stops a replica; its data stays.
func (h *Host) dismiss(g *group) {
	if g.core != nil {
		g.core.StepDown(errNotHosted(g.id))
		g.reads.failAll(errNotHosted(g.id))
	}
	if g.conf != nil {
		g.conf.done(fault.New(fault.UnknownOutcome, "this replica ended during the membership change", "group", g.id))
		g.conf = nil
	}
	g.feed.end()
	g.locks.end()
	delete(h.groups, g.id)
	h.order = slices.DeleteFunc(h.order, func(o *group) bool { return o == g })
	own := func(t appendTask) bool { return t.g == g }
	h.appends = slices.DeleteFunc(h.appends, own)
	h.syncs.queue = slices.DeleteFunc(h.syncs.queue, own)
}
