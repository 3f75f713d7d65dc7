package host

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// fitness says whether this node can finish what a leader begins.
//
// The loop does not wait for a sync (syncState), so a leader whose disk hangs
// still sends entries and heartbeats, and its followers stay with it. But raft
// applies here what is durable here, or lags for a moment (lag): nothing is answered
// any more, in any group, for as long as the disk likes. It is the same when the disk is full: nothing
// is evaluated without room in the log, and nothing applied while the deltas
// wait to be flushed. So a node is unfit when a sync has run for StallAfter, or
// when there has been no room for that long, and every tick tries to get rid of
// what it leads:
//
//   - The ordinary transfer (beginTransfer) is no way out: the entry that lowers
//     the ceiling has to be proposed, durable and applied here. So raft hands
//     over at once, which needs no disk on this side: the heir gets what it
//     misses of the log, then TimeoutNow, and campaigns without waiting for the
//     lease. It starts above the ceiling it inherits, as after a crash (DESIGN
//     6); what waits here has proposed nothing for so long that time has passed
//     its ceilings.
//   - Nothing is evaluated meanwhile, as in any transfer: what came and was not
//     proposed is told who leads, not that its outcome is unknown.
//   - Where the disk hangs and no follower took over within half an election
//     timeout, the leader becomes a follower of nobody and is silent; the others
//     elect.
//   - Where the voters that answer are no quorum without this node, it leads on:
//     nobody else could, and its writes go on when its disk does.
//
// Until it is fit again, it tells all peers at every tick, so that nobody makes
// it an heir, and refuses reads of what it follows, which would wait for entries
// to be applied; the router asks others. While its disk hangs it asks for no
// votes and follows no TimeoutNow either. A loop that itself waits for the disk
// needs none of this: it sends no heartbeats, and followers elect.
//
// Stepping down at once would be simpler. It costs an election timeout more
// without a leader, and followers ask for votes in any order.
type fitness struct {
	// noRoomSince is when room began to be missing, 0 while there is some.
	noRoomSince time.Duration
	// peers that said they are unfit, and when.
	peers map[keyspace.NodeID]time.Duration
}

// peerUnfitFor is how long a node counts as unfit after it said so: it says so
// at every tick.
const peerUnfitFor = 5 // ticks

// noticeFitness looks at the disk and at the room on it.
func (h *Host) noticeFitness(mono time.Duration) {
	f := &h.fitness
	switch {
	case !h.opt.Store.Full() && h.roomToPropose():
		f.noRoomSince = 0
	case f.noRoomSince == 0:
		f.noRoomSince = max(1, mono)
	}
	hung := h.syncs.age(mono)
	if hung > h.opt.StallAfter && !h.hanging.Load() && !h.opt.Bugs.Has(invariant.BugLeadStalled) {
		h.hanging.Store(true)
		h.opt.Logger.Warn("the disk of the raft log hangs", "sync_runs_for", hung)
		if hook := h.opt.Hooks.Stall; hook != nil {
			hook()
		}
	}
	h.setUnfit(h.hanging.Load() || f.noRoomSince != 0 && mono-f.noRoomSince > h.opt.StallAfter)
}

func (h *Host) setUnfit(unfit bool) {
	if h.unfit.Swap(unfit) != unfit {
		leading := 0
		for _, g := range h.order {
			if _, ok := g.core.Leading(); ok {
				leading++
			}
		}
		if unfit {
			h.opt.Logger.Warn("this node gives up its leaderships", "leading", leading,
				"disk_hangs", h.hanging.Load(), "memory_full", h.opt.Store.Full(), "log_full", !h.roomToPropose())
		} else {
			h.opt.Logger.Warn("this node may lead again")
		}
	}
	if unfit {
		h.announceUnfit()
	}
}

// hangEnded takes the end of a sync.
func (h *Host) hangEnded(took time.Duration) {
	if h.hanging.CompareAndSwap(true, false) {
		h.opt.Logger.Warn("the disk of the raft log answers again", "sync_took", took)
	}
}

// announceUnfit tells every node that has a replica of a group hosted here.
func (h *Host) announceUnfit() {
	told := map[keyspace.NodeID]bool{h.opt.Node: true, "": true}
	for _, g := range h.order {
		for _, m := range g.core.State().Members {
			if !told[m.Node] {
				told[m.Node] = true
				h.opt.Out.Send(m.Node, &api.GroupMessage{Body: &api.GroupMessage_Unfit{Unfit: true}})
			}
		}
	}
}

// peerUnfit notes what a peer said.
func (h *Host) peerUnfit(from keyspace.NodeID) {
	if h.fitness.peers == nil {
		h.fitness.peers = make(map[keyspace.NodeID]time.Duration)
	}
	h.fitness.peers[from] = h.opt.Clock.Mono()
}

// mayLead reports whether another member is fit, as far as it is known here.
func (h *Host) mayLead(g *group, id keyspace.ReplicaID) bool {
	at, said := h.fitness.peers[g.nodes[id]]
	if said && h.opt.Clock.Mono()-at <= peerUnfitFor*h.opt.TickInterval {
		return false
	}
	return !h.clockOff(g, id)
}

// escape moves a leadership away from an unfit node and reports whether it can
// move.
func (h *Host) escape(g *group, mono time.Duration) bool {
	if !g.quorum(h.answering(g)...) {
		return false
	}
	if h.hanging.Load() && h.syncs.age(mono) > h.opt.StallAfter+h.opt.electionTimeout()/2 {
		h.stepDown(g)
		return true
	}
	to := h.heir(g)
	if to != 0 && g.rn.BasicStatus().LeadTransferee == raft.None {
		g.rn.TransferLeader(uint64(to))
	}
	return to != 0
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
		if !ok || m.Learner || m.Witness() || m.Replica == g.replica || !p.RecentActive || !h.mayLead(g, m.Replica) {
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

func errUnfit(id keyspace.GroupID) error {
	return fault.New(fault.Unavailable, "the disk of this node does not answer or is full", "group", id)
}
