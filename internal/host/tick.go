package host

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// tick lets raft's time pass for all groups and does what is due by time.
func (h *Host) tick() {
	h.ticks++
	mono := h.opt.Clock.Mono()
	h.noticeFitness(mono)
	h.noticeClock(mono)
	for _, g := range h.order {
		g.noteActive(mono)
		g.core.Expire(mono)
		h.tickLeader(g, mono) // first: raft's tick may forget who answered
		g.rn.Tick()
		if h.leaderOf(g) != 0 {
			g.heard = h.opt.Clock.Wall()
		}
		h.campaignFirst(g)
		h.askWhenStray(g)
		h.releaseCommits(g, "")
		g.dirty, g.dropped = true, false
		h.publish(g)
		h.updateStatus(g)
	}
	h.tickSweeps(mono)
	h.askDamaged()
	h.flushTick(mono)
}

// campaignFirst lets the preferred replica of a group that has no leader ask
// for votes soon after a start, so that leaders are spread from the beginning.
// Pre-vote makes it harmless where a leader lives.
func (h *Host) campaignFirst(g *group) {
	const soon = 3 // ticks after the start of the host
	if h.ticks != soon || g.leader != 0 {
		return
	}
	if m, ok := g.preferred(); ok && m.Replica == g.replica {
		if err := g.rn.Campaign(); err != nil {
			h.opt.Logger.Debug("not campaigning", "group", g.id, "error", err)
		}
	}
}

// preferred returns the voter that should lead: that of the first node that
// Guide named, else the first one.
func (g *group) preferred() (first format.Member, ok bool) {
	for _, m := range g.core.State().Members {
		switch {
		case m.Learner || m.Witness():
		case len(g.guide) > 0 && m.Node == g.guide[0]:
			return m, true
		case !ok:
			first, ok = m, true
		}
	}
	return first, ok
}

// Guide names the nodes that should have a voter of a group, the one that
// should lead first; none means the present voters in their order. Leadership
// follows once that node has a voter that is alive and caught up; a leader that
// is not among them makes do with any of them. It is forgotten at a restart.
func (h *Host) Guide(id keyspace.GroupID, nodes []keyspace.NodeID) {
	h.control(func() {
		if g := h.groups[id]; g != nil {
			g.guide = nodes
		}
	})
}

// tickLeader advances closed revisions, ceilings and transfers.
func (h *Host) tickLeader(g *group, mono time.Duration) {
	if _, leading := g.core.Leading(); !leading {
		if h.unfit.Load() {
			g.reads.failAll(errUnfit(g.id))
		}
		return
	}
	now := h.now(g)
	if closed, ok := g.core.CloseIdle(now); ok {
		h.broadcastClosed(g, closed)
	}
	// An idle group raises its ceiling once per tenth of the history window, so
	// that its closed revision follows time (DESIGN 6).
	if mono-g.raisedAt > h.opt.Window/10 {
		g.raisedAt = mono
		g.core.RaiseCeiling(keyspace.RevisionAt(now.Physical + h.opt.electionTimeout().Milliseconds()))
	}
	h.thawLate(g, mono)
	g.acked.take(g.rn.BasicStatus().GetCommit(), mono, h.opt.electionTimeout())
	h.tickDuty(g, mono)
	if h.unfit.Load() {
		h.escape(g, mono)
		return
	}
	h.tickTransfer(g, mono)
}

func (h *Host) broadcastClosed(g *group, closed keyspace.Revision) {
	s := g.core.State()
	m := &api.GroupMessage{Group: uint32(g.id), Body: &api.GroupMessage_Closed{Closed: &api.ClosedUpdate{
		Term: uint64(s.Term), Index: uint64(s.Index), Closed: uint64(closed)}}}
	for _, member := range s.Members {
		if member.Replica != g.replica && !member.Witness() {
			h.opt.Out.Send(member.Node, m)
		}
	}
}

// tickTransfer moves leadership away from a node with a bad clock, at once, or
// to the preferred replica when that one is alive and caught up, and gives up
// transfers that take too long.
func (h *Host) tickTransfer(g *group, mono time.Duration) {
	if g.transferring {
		if mono > g.transferAt {
			g.core.EndTransfer()
			g.transferring = false
			g.fleeNext = mono + h.opt.electionTimeout()
			g.transferNext = mono + 5*h.opt.electionTimeout()
		}
		return
	}
	if h.clockOff(g, g.replica) {
		if mono >= g.fleeNext && h.giveUp(g, mono) {
			h.opt.Logger.Warn("giving up leadership", "group", g.id, "reason", "the node's clock is far from its peers'")
		}
		return
	}
	if mono < g.transferNext {
		return
	}
	g.transferNext = mono + h.opt.electionTimeout()
	if m, ok := g.preferred(); !ok || m.Replica == g.replica || h.tryTransfer(g, m, mono) || slices.Contains(g.guide, h.opt.Node) {
		return
	}
	for _, m := range g.core.State().Members {
		if slices.Contains(g.guide, m.Node) && h.tryTransfer(g, m, mono) {
			return
		}
	}
}

// tryTransfer begins to hand leadership to a member that is fit for it.
func (h *Host) tryTransfer(g *group, m format.Member, mono time.Duration) bool {
	return !m.Learner && !m.Witness() && m.Replica != g.replica && h.caughtUp(g, m.Replica) && h.mayLead(g, m.Replica) && h.beginTransfer(g, m.Replica, mono)
}

// giveUp transfers leadership to any member that is fit for it.
func (h *Host) giveUp(g *group, mono time.Duration) bool {
	for _, m := range g.core.State().Members {
		if h.tryTransfer(g, m, mono) {
			return true
		}
	}
	return false
}

// commitSamples remember a leader's commit index of one to two election timeouts
// ago.
type commitSamples struct {
	older, newer uint64
	at           time.Duration
}

func (s *commitSamples) take(commit uint64, mono, every time.Duration) {
	if mono-s.at >= every {
		s.older, s.newer, s.at = s.newer, commit, mono
	}
}

// caughtUp reports whether a member is active, close to the leader's log, and
// acknowledges: one whose disk hangs answers heartbeats and has all entries in
// memory, but would not campaign.
func (h *Host) caughtUp(g *group, id keyspace.ReplicaID) bool {
	const close = 1024 // entries; a transfer waits for them
	st := g.rn.Status()
	p, ok := st.Progress[uint64(id)]
	return ok && h.active(g, id) && p.State.String() == "StateReplicate" && p.Match+close >= st.GetCommit() && p.Match >= g.acked.older
}

func (h *Host) beginTransfer(g *group, to keyspace.ReplicaID, mono time.Duration) bool {
	if !g.core.BeginTransfer(to) {
		return false
	}
	g.transferring = true
	g.transferAt = mono + 2*h.opt.electionTimeout()
	g.dirty = true
	return true
}

// continueTransfer asks raft to transfer once the lowered ceiling is applied.
func (h *Host) continueTransfer(g *group) {
	if !g.transferring {
		return
	}
	if to, ok := g.core.TransferReady(); ok && g.rn.BasicStatus().LeadTransferee == raft.None {
		g.rn.TransferLeader(uint64(to))
	}
}

// handOver gives leaderships to other replicas before a stop, for at most one
// election timeout.
func (h *Host) handOver() {
	left := make(chan bool, 1)
	deadline := time.NewTimer(h.opt.electionTimeout())
	defer deadline.Stop()
	poll := time.NewTicker(h.opt.TickInterval / 2)
	defer poll.Stop()
	for {
		h.control(func() {
			select {
			case left <- h.handOverAll():
			default:
			}
		})
		select {
		case more := <-left:
			if !more {
				return
			}
		case <-deadline.C:
			return
		case <-h.done:
			return
		}
		select {
		case <-poll.C:
		case <-h.done:
			return
		}
	}
}

// handOverAll starts transfers and reports whether any leadership that can
// move is still here.
func (h *Host) handOverAll() bool {
	more := false
	mono := h.opt.Clock.Mono()
	for _, g := range h.order {
		if _, leading := g.core.Leading(); !leading {
			continue
		}
		switch {
		case h.unfit.Load():
			more = h.escape(g, mono) || more
		case g.transferring:
			more = true
		default:
			more = h.giveUp(g, mono) || more
		}
	}
	return more
}
