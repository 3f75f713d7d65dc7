package host

import (
	"time"

	"go.etcd.io/raft/v3"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// tick lets raft's time pass for all groups and does what is due by time.
func (h *Host) tick() {
	h.ticks++
	mono := h.opt.Clock.Mono()
	for _, g := range h.order {
		g.rn.Tick()
		if g.leader != 0 {
			g.heard = h.opt.Clock.Wall()
		}
		h.campaignFirst(g)
		g.core.Expire(mono)
		h.tickLeader(g, mono)
		h.releaseCommits(g, "")
		g.dirty, g.dropped = true, false
		h.publish(g)
		h.updateStatus(g)
	}
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
	for _, m := range g.core.State().Members {
		if m.Learner {
			continue
		}
		if m.Replica == g.replica {
			if err := g.rn.Campaign(); err != nil {
				h.opt.Logger.Debug("not campaigning", "group", g.id, "error", err)
			}
		}
		return // only the first voter is preferred
	}
}

// tickLeader advances closed revisions, ceilings and transfers.
func (h *Host) tickLeader(g *group, mono time.Duration) {
	if _, leading := g.core.Leading(); !leading {
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
	h.tickTransfer(g, mono)
}

func (h *Host) broadcastClosed(g *group, closed keyspace.Revision) {
	s := g.core.State()
	m := &api.GroupMessage{Group: uint32(g.id), Body: &api.GroupMessage_Closed{Closed: &api.ClosedUpdate{
		Term: uint64(s.Term), Index: uint64(s.Index), Closed: uint64(closed)}}}
	for _, member := range s.Members {
		if member.Replica != g.replica {
			h.opt.Out.Send(member.Node, m)
		}
	}
}

// tickTransfer moves leadership to the preferred replica when that one is
// alive and caught up, and gives up transfers that take too long.
func (h *Host) tickTransfer(g *group, mono time.Duration) {
	if g.transferring {
		if mono > g.transferAt {
			g.core.EndTransfer()
			g.transferring = false
			g.transferNext = mono + 5*h.opt.electionTimeout()
		}
		return
	}
	if mono < g.transferNext {
		return
	}
	g.transferNext = mono + h.opt.electionTimeout()
	if reason := h.unfit(g); reason != "" {
		if h.giveUp(g, mono) {
			h.opt.Logger.Warn("giving up leadership", "group", g.id, "reason", reason)
		}
		return
	}
	for _, m := range g.core.State().Members {
		if m.Learner {
			continue
		}
		if m.Replica != g.replica && h.caughtUp(g, m.Replica) && !h.clockOff(g, m.Replica) {
			h.beginTransfer(g, m.Replica, mono)
		}
		return // only the first voter is preferred
	}
}

// unfit says why this node should not lead, empty when it may: its memory for
// recent writes is full, or its clock is far from its peers'.
func (h *Host) unfit(g *group) string {
	switch {
	case h.opt.Store.Full():
		return "the memory for recent writes is full"
	case h.clockOff(g, g.replica):
		return "the node's clock is far from its peers'"
	}
	return ""
}

// giveUp transfers leadership to any member that is fit for it.
func (h *Host) giveUp(g *group, mono time.Duration) bool {
	for _, m := range g.core.State().Members {
		if !m.Learner && m.Replica != g.replica && h.caughtUp(g, m.Replica) && !h.clockOff(g, m.Replica) {
			return h.beginTransfer(g, m.Replica, mono)
		}
	}
	return false
}

// caughtUp reports whether a member is active and close to the leader's log.
func (h *Host) caughtUp(g *group, id keyspace.ReplicaID) bool {
	const close = 1024 // entries; a transfer waits for them
	st := g.rn.Status()
	p, ok := st.Progress[uint64(id)]
	return ok && p.RecentActive && p.State.String() == "StateReplicate" && p.Match+close >= st.GetCommit()
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
		if g.transferring {
			more = true
			continue
		}
		more = h.giveUp(g, mono) || more
	}
	return more
}
