package host

import (
	"fmt"
	"log/slog"

	"go.etcd.io/raft/v3/tracker"

	"kvstore/internal/keyspace"
)

// Groups describes the replicas hosted here, in order of groups.
func (h *Host) Groups() []GroupStatus {
	dir := *h.dir.Load()
	out := make([]GroupStatus, 0, len(dir))
	for id := keyspace.GroupID(0); len(out) < len(dir); id++ {
		if g, ok := dir[id]; ok {
			out = append(out, g.snapshotStatus())
		}
	}
	return out
}

func (g *group) snapshotStatus() GroupStatus {
	if g.quarantined != "" {
		return GroupStatus{Group: g.id, Replica: g.replica, Role: "quarantined", Quarantined: g.quarantined}
	}
	s := *g.status.Load()
	if d := g.digests.Load(); d != nil {
		s.Digest = (*d)[len(*d)-1]
	}
	return s
}

// updateStatus refreshes what Groups reports.
func (h *Host) updateStatus(g *group) {
	s := g.core.State()
	b := g.rn.BasicStatus()
	st := &GroupStatus{Group: g.id, Replica: g.replica, Instance: g.instance.id, Leader: h.leaderOf(g),
		LeaderNode: g.nodes[h.leaderOf(g)], Term: keyspace.Term(b.GetTerm()), Commit: keyspace.Index(b.GetCommit()), Applied: s.Index,
		Role: g.role(), Clock: g.core.Clock(), Ceiling: s.Ceiling, Closed: g.core.Closed(), ReadRev: s.LastRev,
		Floor: keyspace.Revision(h.floor.Load()), Members: s.Members, Slots: s.Slots, Prepared: s.Prepared, LowWater: s.LowWater, Swept: g.sweep.swept}
	if _, leading := g.core.Leading(); leading {
		for _, m := range s.Members {
			if g.lost[m.Replica] {
				st.Lost = append(st.Lost, m.Replica)
			}
		}
		st.Serving = g.core.Serving(h.now(g))
		st.Copies = g.duty.copies
		st.Backlog = g.sweep.backlog
		st.Progress = make(map[keyspace.ReplicaID]Progress, len(s.Members))
		for id, p := range g.rn.Status().Progress {
			r := keyspace.ReplicaID(id)
			st.Progress[r] = Progress{Match: keyspace.Index(p.Match), Active: r == g.replica || h.active(g, r),
				State: progressStates[p.State], Copy: g.copyProgress(r, h.opt.Clock.Mono())}
		}
	}
	g.status.Store(st)
}

// progressStates are the names of raft's states of a member.
var progressStates = map[tracker.StateType]string{
	tracker.StateProbe: "probe", tracker.StateReplicate: "replicate", tracker.StateSnapshot: "snapshot",
}

func (g *group) role() string {
	if g.removed() {
		return "removed"
	}
	for _, m := range g.core.State().Members {
		if m.Replica == g.replica && m.Learner {
			return "learner"
		}
	}
	if g.replica.Witness() {
		return "witness"
	}
	switch g.raftRole.String() {
	case "StateLeader":
		return "leader"
	case "StateFollower":
		return "follower"
	default:
		return "candidate"
	}
}

// Leader returns the node that leads a group, as far as this replica knows.
func (h *Host) Leader(id keyspace.GroupID) (node keyspace.NodeID, local, known bool) {
	g := (*h.dir.Load())[id]
	if g == nil || h.watched.blocked.Load() {
		return "", false, false
	}
	p := g.published.Load()
	if p == nil || p.leader == 0 || p.leaderNode == "" {
		return "", false, false
	}
	return p.leaderNode, p.leading, true
}

// Hosts reports whether this node has a running replica of the group.
func (h *Host) Hosts(id keyspace.GroupID) bool {
	g := h.lookup(id)
	return g != nil && g.published.Load() != nil
}

// raftLogger sends raft's log to slog; its notices are our debug level.
type raftLogger struct{ *slog.Logger }

func (l raftLogger) Debug(v ...any)              { l.Logger.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Debugf(f string, v ...any)   { l.Logger.Debug(fmt.Sprintf(f, v...)) }
func (l raftLogger) Info(v ...any)               { l.Logger.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Infof(f string, v ...any)    { l.Logger.Debug(fmt.Sprintf(f, v...)) }
func (l raftLogger) Warning(v ...any)            { l.Logger.Debug(fmt.Sprint(v...)) }
func (l raftLogger) Warningf(f string, v ...any) { l.Logger.Debug(fmt.Sprintf(f, v...)) }
func (l raftLogger) Error(v ...any)              { l.Warn(fmt.Sprint(v...)) }
func (l raftLogger) Errorf(f string, v ...any)   { l.Warn(fmt.Sprintf(f, v...)) }
func (l raftLogger) Fatal(v ...any)              { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
func (l raftLogger) Panic(v ...any)              { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
