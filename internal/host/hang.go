package host

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/fault"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// A disk that hangs costs the node its leaderships.
//
// The loop does not wait for a sync (syncState), so a leader whose disk hangs
// still sends entries and heartbeats, and its followers stay with it. But raft
// applies here what is durable here: nothing is answered any more, in any group,
// for as long as the disk likes. So once a sync has run for StallAfter, every
// tick tries to get rid of what is led here:
//
//   - The ordinary transfer (beginTransfer) is no way out: the entry that lowers
//     the ceiling would have to be durable and applied here. So raft hands over
//     at once, which needs no disk on this side: the heir gets what it misses of
//     the log, then TimeoutNow, and campaigns without waiting for the lease. It
//     starts above the ceiling it inherits, as after a crash (DESIGN 6); the
//     groups that wait for the sync have proposed nothing since it began, so by
//     now time has passed their ceilings.
//   - Where no follower took over within half an election timeout, the leader
//     becomes a follower of nobody and is silent; the others elect.
//   - Nothing is evaluated meanwhile, as in any transfer: what came and was not
//     proposed is told who leads, not that its outcome is unknown.
//   - Where the voters that answer are no quorum without this node, it leads on:
//     nobody else could, and its writes go on when its disk does.
//
// Until the sync ends, the node asks for no votes, follows no TimeoutNow, and
// refuses reads of what it follows, which would wait for entries to be applied;
// the router asks others. It is no heir for others either: what it does not
// acknowledge keeps it from being caught up. A loop that itself waits for the
// disk needs none of this: it sends no heartbeats, and followers elect.
//
// Stepping down at once would be simpler. It costs an election timeout more
// without a leader, and followers ask for votes in any order.

// noticeHang looks at how long the running sync has taken.
func (h *Host) noticeHang(mono time.Duration) {
	hung := h.syncs.age(mono)
	if hung <= h.opt.StallAfter || h.hanging.Load() || h.opt.Bugs.Has(invariant.BugLeadStalled) {
		return
	}
	h.hanging.Store(true)
	leading := 0
	for _, g := range h.order {
		if _, ok := g.core.Leading(); ok {
			leading++
		}
	}
	if f := h.opt.Hooks.Stall; f != nil {
		f()
	}
	h.opt.Logger.Warn("the disk of the raft log hangs; this node gives up its leaderships", "sync_runs_for", hung, "leading", leading)
}

// hangEnded lets the node lead again.
func (h *Host) hangEnded(took time.Duration) {
	if h.hanging.CompareAndSwap(true, false) {
		h.paced()
		h.opt.Logger.Warn("the disk of the raft log answers again", "sync_took", took)
	}
}

// escape moves a leadership away from a disk that hangs and reports whether it
// can move.
func (h *Host) escape(g *group, mono time.Duration) bool {
	if !g.quorum(h.answering(g)...) {
		return false
	}
	if h.syncs.age(mono) > h.opt.StallAfter+h.opt.electionTimeout()/2 {
		h.stepDown(g)
		return true
	}
	if to := h.heir(g); to != 0 && g.rn.BasicStatus().LeadTransferee == raft.None {
		g.rn.TransferLeader(uint64(to))
	}
	return true
}

// answering returns the other members that raft heard of lately.
func (h *Host) answering(g *group) (ids []uint64) {
	for id, p := range g.rn.Status().Progress {
		if id != uint64(g.replica) && p.RecentActive {
			ids = append(ids, id)
		}
	}
	return ids
}

// heir is the voter that has most of the log, 0 for none that may lead.
func (h *Host) heir(g *group) (best keyspace.ReplicaID) {
	match, progress := uint64(0), g.rn.Status().Progress
	for _, m := range g.core.State().Members {
		p, ok := progress[uint64(m.Replica)]
		if !ok || m.Learner || m.Replica == g.replica || !p.RecentActive || h.clockOff(g, m.Replica) {
			continue
		}
		if best == 0 || p.Match > match {
			best, match = m.Replica, p.Match
		}
	}
	return best
}

// stepDown makes a leader a follower of nobody, in the same term. RawNode has no
// call for it, but raft's own check of its quorum does it: the first forgets who
// answered since the last one, the second finds nobody.
func (h *Host) stepDown(g *group) {
	for range 2 {
		h.stepRaft(g, &raftpb.Message{Type: raftpb.MsgCheckQuorum.Enum(), From: new(raft.LocalAppendThread)})
	}
}

// asksForVotes reports whether m is a candidate's.
func asksForVotes(m *raftpb.Message) bool {
	return m.GetType() == raftpb.MsgVote || m.GetType() == raftpb.MsgPreVote
}

// SyncRunning returns for how long the sync of the raft log that runs now has
// done so, 0 when none runs. Any goroutine may ask.
func (h *Host) SyncRunning() time.Duration { return h.syncs.age(h.opt.Clock.Mono()) }

func errHangs(id keyspace.GroupID) error {
	return fault.New(fault.Unavailable, "the disk of this node does not answer", "group", id)
}
