package recovery

import (
	"cmp"
	"fmt"
	"slices"

	api "kvstore/api/kvstore/v1"
)

// view is what one survivor's replica says of its group.
type view struct {
	node string
	r    *api.RecoverReplica
}

func (v view) runs() bool { return v.r.GetQuarantined() == "" }

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
	if why := p.live(views); why != "" {
		g.State, g.Why = Live, why
		g.Discard = p.leftBehind(best, views)
		return g
	}
	if !best.runs() || best.r.GetApplied() == 0 {
		g.Why = "no replica that is left has data: " + cmp.Or(best.r.GetQuarantined(), "it was only just added")
		return g
	}
	p.lost(&g, best, views)
	return g
}

// better orders views: those that run, then by the newest entry of their logs.
// The best of all has what any of them has that was ever committed.
func (p *planner) better(a, b view) int {
	weight := func(v view) int {
		if v.runs() && v.r.GetApplied() > 0 {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(weight(a), weight(b)), cmp.Compare(a.r.GetLastTerm(), b.r.GetLastTerm()),
		cmp.Compare(a.r.GetLastIndex(), b.r.GetLastIndex()), cmp.Compare(b.node, a.node))
}

// live says why a group is left alone, "" when it is lost: a quorum of the
// membership that any replica knows runs, or a leader was just heard of.
func (p *planner) live(views []view) string {
	running := map[uint64]bool{}
	for _, v := range views {
		if v.runs() {
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
			Learner: m.GetRole() == "learner", Answers: answers})
	}
	return out
}

func (p *planner) replica(v view) Replica {
	return Replica{Replica: v.r.GetReplica(), Node: p.shown(v.node), NodeID: v.node, Answers: v.runs(), Learner: v.r.GetRole() == "learner"}
}

// leftBehind are replicas of before the recovery of a group that lives again.
func (p *planner) leftBehind(best view, views []view) (out []Replica) {
	for _, v := range views {
		member := slices.ContainsFunc(best.r.GetMembers(), func(m *api.ReplicaInfo) bool { return m.GetReplica() == v.r.GetReplica() })
		if !member && v.r.GetReplica() != 0 && v.r.GetReplica()+adoptedIDs <= best.r.GetReplica() {
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
		g.aboveReplica = max(g.aboveReplica, v.r.GetReplica(), v.r.GetNextReplica())
		g.aboveTerm = max(g.aboveTerm, v.r.GetTerm(), v.r.GetLastTerm())
		g.LeaderHeard = max(g.LeaderHeard, v.r.GetLeaderHeardMs())
		running[v.r.GetReplica()] = v.runs()
		if v.node != best.node && v.r.GetReplica() != 0 {
			g.Discard = append(g.Discard, p.replica(v))
		}
	}
	r := best.r
	alive, voters := 0, len(r.GetVoters())
	for _, id := range r.GetVoters() {
		if running[id] {
			alive++
		}
	}
	g.Why = fmt.Sprintf("%d of %d voters answer", alive, voters)
	// Where the lost voters alone are no quorum, every quorum had a survivor in
	// it, and the best of them has all that was ever acknowledged.
	g.LossNone = !r.GetChanging() && len(r.GetVotersOutgoing()) == 0 && voters-alive <= voters/2
	g.LossFromRevision = r.GetKeptRevision()
	g.LossFrom = int64(r.GetKeptRevision() >> 16)
	g.Beyond = r.GetLastIndex() - min(r.GetLastIndex(), r.GetCommit())
}
