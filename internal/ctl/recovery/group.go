package recovery

import (
	"cmp"
	"fmt"
	"slices"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// view is what one survivor's replica says of its group.
type view struct {
	node string
	r    *api.RecoverReplica
}

func (v view) runs() bool { return v.r.GetQuarantined() == "" }

func (v view) id() keyspace.ReplicaID { return keyspace.ReplicaID(v.r.GetReplica()) }

// data reports whether the group can go on from the replica.
func (v view) data() bool { return v.runs() && !v.id().Witness() && v.r.GetApplied() > 0 }

// newer compares the ends of logs, as voters do.
func (v view) newer(o view) int {
	return cmp.Or(cmp.Compare(v.r.GetLastTerm(), o.r.GetLastTerm()), cmp.Compare(v.r.GetLastIndex(), o.r.GetLastIndex()))
}

// groups judges every group.
func (p *planner) groups() {
	var count uint32
	for _, s := range p.alive {
		count = max(count, s.GetGroups())
	}
	p.plan.Shapeless = count == 0
	ids := map[uint32]bool{0: true}
	for g := range count {
		ids[g+1] = true
	}
	for _, s := range p.alive {
		for g := range s.replicas {
			ids[g] = true
		}
	}
	for g := range ids {
		p.plan.Groups = append(p.plan.Groups, p.group(g))
	}
	slices.SortFunc(p.plan.Groups, func(a, b Group) int { return cmp.Compare(a.Group, b.Group) })
}

func (p *planner) group(id uint32) Group {
	var views []view
	for node, s := range p.alive {
		if r := s.replicas[id]; r != nil {
			views = append(views, view{node, r})
		}
	}
	slices.SortFunc(views, func(a, b view) int { return p.better(b, a) }) // the best one first
	g := Group{Group: id, State: Gone, Why: "no replica is left"}
	if len(views) == 0 {
		return g
	}
	best := views[0]
	g.Members = p.members(best, views)
	if why := p.live(best, views); why != "" {
		g.State, g.Why = Live, why
		g.Discard = p.leftBehind(best, views)
		return g
	}
	if !best.data() {
		why := "it was only just added"
		if best.id().Witness() {
			why = "a witness stores none"
		}
		g.Why = "no replica that is left has data: " + cmp.Or(best.r.GetQuarantined(), why)
		return g
	}
	p.lost(&g, best, views)
	return g
}

// better orders views: those that run and have data, then by the newest entry of
// their logs. The best of all has what any of them has that was ever committed,
// unless a witness's log is newer.
func (p *planner) better(a, b view) int {
	weight := func(v view) int {
		if v.data() {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(weight(a), weight(b)), a.newer(b), cmp.Compare(b.node, a.node))
}

// live says why a group is left alone, "" when it is lost: a quorum of the
// membership that any replica knows runs and would vote for the best one, or a
// leader was just heard of. A witness does not vote for who lacks what it has
// acknowledged.
func (p *planner) live(best view, views []view) string {
	running := map[uint64]bool{}
	for _, v := range views {
		if v.runs() && (!v.id().Witness() || best.data() && v.newer(best) <= 0) {
			running[v.r.GetReplica()] = true
		}
	}
	for _, v := range views {
		if v.runs() && quorum(v.r.GetVoters(), running) && (len(v.r.GetVotersOutgoing()) == 0 || quorum(v.r.GetVotersOutgoing(), running)) {
			return "a quorum answers"
		}
	}
	for _, v := range views {
		if v.runs() && v.r.GetLeaderReplica() != 0 {
			p.plan.Waiting = true
			return "no quorum answers, but it has a leader or had one a moment ago"
		}
	}
	return ""
}

func quorum(voters []uint64, running map[uint64]bool) bool {
	n := 0
	for _, id := range voters {
		if running[id] {
			n++
		}
	}
	return n > len(voters)/2
}

func (p *planner) members(best view, views []view) (out []Replica) {
	for _, m := range best.r.GetMembers() {
		answers := slices.ContainsFunc(views, func(v view) bool { return v.node == m.GetNodeId() && v.r.GetReplica() == m.GetReplica() && v.runs() })
		out = append(out, Replica{Replica: m.GetReplica(), Node: p.shown(m.GetNodeId()), NodeID: m.GetNodeId(),
			Learner: m.GetRole() == "learner", Witness: keyspace.ReplicaID(m.GetReplica()).Witness(), Answers: answers})
	}
	return out
}

func (p *planner) replica(v view) Replica {
	return Replica{Replica: v.r.GetReplica(), Node: p.shown(v.node), NodeID: v.node, Answers: v.runs(), Learner: v.r.GetRole() == "learner", Witness: v.id().Witness()}
}

// leftBehind are replicas of before the recovery of a group that lives again.
func (p *planner) leftBehind(best view, views []view) (out []Replica) {
	for _, v := range views {
		member := slices.ContainsFunc(best.r.GetMembers(), func(m *api.ReplicaInfo) bool { return m.GetReplica() == v.r.GetReplica() })
		if !member && v.r.GetReplica() != 0 && v.id().Number()+adoptedIDs <= best.id().Number() {
			out = append(out, p.replica(v))
		}
	}
	return out
}

// lost plans what becomes of a lost group.
func (p *planner) lost(g *Group, best view, views []view) {
	chosen := p.replica(best)
	g.State, g.Survivor = Lost, &chosen
	running := map[uint64]bool{}
	for _, v := range views {
		g.aboveReplica = max(g.aboveReplica, uint64(v.id().Number()), v.r.GetNextReplica())
		g.aboveTerm = max(g.aboveTerm, v.r.GetTerm(), v.r.GetLastTerm())
		g.LeaderHeard = max(g.LeaderHeard, v.r.GetLeaderHeardMs())
		running[v.r.GetReplica()] = v.runs()
		if v.node != best.node && v.r.GetReplica() != 0 {
			g.Discard = append(g.Discard, p.replica(v))
		}
		p.behind(g, best, v)
	}
	r := best.r
	alive, voters := 0, len(r.GetVoters())
	for _, id := range r.GetVoters() {
		if running[id] {
			alive++
		}
	}
	g.Why = fmt.Sprintf("%d of %d voters answer", alive, voters)
	if g.Witness != nil {
		g.Why += fmt.Sprintf(", and the witness on %s has acknowledged what nobody left has", g.Witness.Node)
	}
	// Where the lost voters alone are no quorum, every quorum had a survivor in
	// it, and the best of them has all that was ever acknowledged, unless a witness
	// has acknowledged more.
	g.LossNone = g.Witness == nil && !r.GetChanging() && len(r.GetVotersOutgoing()) == 0 && voters-alive <= voters/2
	g.LossFromRevision = r.GetKeptRevision()
	g.LossFrom = int64(r.GetKeptRevision() >> 16)
	g.Beyond = r.GetLastIndex() - min(r.GetLastIndex(), r.GetCommit())
}

// behind notes what a witness acknowledged that the survivor does not have. Where
// their last entries are of one term, all before them is the same.
func (p *planner) behind(g *Group, best, v view) {
	if !v.runs() || !v.id().Witness() || v.newer(best) <= 0 {
		return
	}
	from := best.r.GetLastIndex()
	if v.r.GetLastTerm() != best.r.GetLastTerm() {
		from = min(from, best.r.GetCommit())
	}
	if entries := v.r.GetLastIndex() - min(v.r.GetLastIndex(), from); g.Witness == nil || entries > g.Witness.Entries {
		g.Witness = &Ahead{Node: p.shown(v.node), LastTerm: v.r.GetLastTerm(), LastIndex: v.r.GetLastIndex(), Entries: entries}
	}
}
