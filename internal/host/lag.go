package host

import (
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// lag lets a leader's own sync wait for one that is needed anyway.
//
// An entry is committed when a quorum has it on disk, and of three nodes the two
// followers are one: the leader's copy needs no sync of its own then. A node that
// leads some groups also follows in others, and the next entry of one of those
// brings a sync within a fraction of a millisecond; what this node proposed itself
// goes with it. With 64 clients that is one sync in three less.
//
// Its vote waits for the disk as ever, so what is committed meanwhile is on the disks
// of a quorum of others. raft takes the entries as kept at once, which lets the
// leader apply them as soon as they are committed; if this node stops before its
// sync, it gets them back from those who have them. What it applied of them is in
// memory only: before a delta is sealed, which begins its way to the disk, the log is
// synced.
//
// Only plain entries of several requests wait, on a node that was lately given
// entries by others, and for LagLimit at most. If the followers have not committed
// them by then, one of them is slow or down, and the leader's disk is what makes a
// quorum: nothing of the group lags for lagPause.
type lag struct {
	// since is when the first append began to wait though no sync ran, 0 for none.
	since time.Duration
	// asked is when a sync last began that others wait for.
	asked time.Duration
}

// lagPause is how long a group does without after a lag that was for nothing.
const lagPause = 100 * time.Millisecond

// mayLag reports whether an append of a leader can do without a sync of its own.
func (h *Host) mayLag(t *appendTask) bool {
	g := t.g
	if _, leading := g.core.Leading(); !leading || !t.wrote || t.promised || g.unsynced != g.lagging || g.batched < 2 {
		return false
	}
	now, asked := h.opt.Clock.Mono(), h.syncs.lag.asked
	if asked == 0 || now-asked > h.opt.LagLimit || now < g.promptUntil {
		return false
	}
	return plain(t.m) && g.othersSuffice()
}

// plain reports whether an append has nothing but entries of requests.
func plain(m *raftpb.Message) bool {
	entries := m.GetEntries()
	for _, e := range entries {
		if e.GetType() != raftpb.EntryNormal || len(e.GetData()) == 0 {
			return false
		}
	}
	return len(entries) > 0 && raft.IsEmptySnap(m.GetSnapshot())
}

// othersSuffice reports whether the other voters, all of which have data, are a
// quorum.
func (g *group) othersSuffice() bool {
	v := g.membership()
	if len(v.GetVotersOutgoing()) > 0 || len(v.GetVoters()) < 3 {
		return false
	}
	for _, id := range v.GetVoters() {
		if keyspace.ReplicaID(id).Witness() {
			return false
		}
	}
	return true
}

// letLag tells raft that it may apply an append's entries, which are not durable.
func (h *Host) letLag(t *appendTask) {
	t.lags, t.at = true, h.opt.Clock.Mono()
	t.g.lagging++
	rest := t.m.Responses[:0]
	for _, r := range t.m.GetResponses() {
		if r.GetType() == raftpb.MsgStorageAppendResp || h.opt.Bugs.Has(invariant.BugLagVotes) {
			h.stepRaft(t.g, r)
			continue
		}
		rest = append(rest, r)
	}
	t.m.Responses = rest
}

// lags reports whether no more than lagging appends wait for a sync, and may still. No
// sync runs.
func (h *Host) lags() bool {
	for i := range h.syncs.queue {
		if !h.syncs.queue[i].lags {
			return false
		}
	}
	if h.syncs.lag.since == 0 {
		h.syncs.lag.since = max(1, h.opt.Clock.Mono())
	}
	return h.lagLeft() > 0
}

// lagLeft is how long the first append that lags still may, 0 when none does.
func (h *Host) lagLeft() time.Duration {
	if h.syncs.lag.since == 0 {
		return 0
	}
	return max(0, h.syncs.lag.since+h.opt.LagLimit-h.opt.Clock.Mono())
}

// lagDue is how long the loop may sleep until an append that lags needs its sync, 0
// when none does, or a sync runs, or the next tick looks whether the disk is still full.
func (h *Host) lagDue() time.Duration {
	if h.syncs.lag.since == 0 || h.syncs.running || h.stalled {
		return 0
	}
	return max(time.Microsecond, h.lagLeft())
}

// noteSync notes what a sync that begins is for, and which lags were for nothing.
func (h *Host) noteSync() {
	now := max(1, h.opt.Clock.Mono())
	late := h.syncs.lag.since != 0 && h.lagLeft() == 0
	h.syncs.lag.since = 0
	for i := range h.syncs.queue {
		t := &h.syncs.queue[i]
		if _, leading := t.g.core.Leading(); !leading {
			h.syncs.lag.asked = now
		}
		if late && t.lags && now-t.at >= h.opt.LagLimit && t.m.GetEntries()[0].GetIndex() > t.g.rn.BasicStatus().GetCommit() {
			t.g.promptUntil = now + lagPause
		}
	}
}

// lagging reports whether anything lags.
func (h *Host) lagging() bool {
	return slices.ContainsFunc(h.order, func(g *group) bool { return g.lagging > 0 })
}

// settleLag makes what lags durable; it needs no room on the disk.
func (h *Host) settleLag() error {
	if !h.lagging() {
		return nil
	}
	return h.log.Commit(h.log.NewBatch(), true)
}
