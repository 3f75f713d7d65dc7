// Package recovery plans and runs `kvctl cluster recover`: the nodes that are
// left go on without the quorums that are gone for good. Make is a pure
// function of what the nodes say of themselves; Run takes the steps.
package recovery

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	api "kvstore/api/kvstore/v1"
)

// State of a group.
type State string

const (
	// Live groups have a quorum, or a leader; they are left alone.
	Live State = "live"
	// Lost groups have no quorum but a replica.
	Lost State = "lost"
	// Gone groups have no replica: nothing of them is left.
	Gone State = "gone"
)

// adoptedIDs is how far above the ones before it the replica id of a recovered
// group is (package host).
const adoptedIDs = 1 << 10

// Plan is what a recovery would do. Times are Unix milliseconds.
type Plan struct {
	ClusterID   string `json:"cluster_id"`
	ClusterName string `json:"cluster_name"`
	// Epoch of the recovery; 0 when nothing is to be done.
	Epoch uint64 `json:"epoch,omitempty"`
	// Resumes: the recovery of this epoch was begun before.
	Resumes bool    `json:"resumes,omitempty"`
	Nodes   []Node  `json:"nodes"`
	Groups  []Group `json:"groups"`
	// Shapeless: no node knows how many groups there are.
	Shapeless bool `json:"shapeless,omitempty"`
	// Waiting: no quorum of some group answers, but its leader may live. A
	// survivor knows within an election timeout that it does not.
	Waiting bool  `json:"waiting,omitempty"`
	At      int64 `json:"at_ms"`

	clock     int64 // the latest of the survivors'
	survivors []string
}

// Node is a node of the cluster.
type Node struct {
	ID       string `json:"id"`
	Name     string `json:"name,omitempty"`
	Survives bool   `json:"survives"`
	// Reason why it does not.
	Reason string `json:"reason,omitempty"`
	epoch  uint64
}

// Group is a group and what becomes of it.
type Group struct {
	Group   uint32    `json:"group"`
	State   State     `json:"state"`
	Why     string    `json:"why,omitempty"`
	Members []Replica `json:"members,omitempty"`
	// Survivor becomes the only member of a lost group.
	Survivor *Replica `json:"survivor,omitempty"`
	// Discard are replicas that a recovery leaves behind.
	Discard []Replica `json:"discard,omitempty"`
	// LossNone: every write that was acknowledged is on the survivor. Otherwise
	// those after LossFrom may be lost.
	LossNone bool  `json:"loss_none,omitempty"`
	LossFrom int64 `json:"loss_from_ms,omitempty"`
	// LossFromRevision: all acknowledged up to it is on the survivor.
	LossFromRevision uint64 `json:"loss_from_revision,string,omitempty"`
	// Witness is what a witness that is left has acknowledged and the survivor does
	// not have; nil for nothing.
	Witness *Ahead `json:"witness,omitempty"`
	// LeaderHeard is when a survivor last knew a leader; 0 for not since it started.
	LeaderHeard int64 `json:"leader_heard_ms,omitempty"`
	// Beyond counts entries of the survivor that are not known to be committed.
	// They are kept.
	Beyond uint64 `json:"beyond,omitempty"`

	aboveReplica, aboveTerm uint64
}

// Ahead is how far a witness's log ends behind the survivor's: entries in between,
// at most, may have been acknowledged and are lost.
type Ahead struct {
	Node      string `json:"node"`
	LastTerm  uint64 `json:"last_term"`
	LastIndex uint64 `json:"last_index"`
	Entries   uint64 `json:"entries"`
}

// Replica is a member of a group, or what is left of one.
type Replica struct {
	Replica uint64 `json:"replica"`
	Node    string `json:"node"` // name, or id where that is not known
	NodeID  string `json:"node_id"`
	Learner bool   `json:"learner,omitempty"`
	Witness bool   `json:"witness,omitempty"` // a vote without data
	Answers bool   `json:"answers"`
}

// ToDo reports whether there is anything to do.
func (p *Plan) ToDo() bool { return p.Epoch != 0 }

// Count returns how many groups are in a state.
func (p *Plan) Count(s State) (n int) {
	for i := range p.Groups {
		if p.Groups[i].State == s {
			n++
		}
	}
	return n
}

// survivor is a node that answers, and what it says.
type survivor struct {
	*api.RecoverNode
	replicas map[uint32]*api.RecoverReplica
}

// planner holds what is known while a plan is made.
type planner struct {
	plan   *Plan
	alive  map[string]survivor // by node id
	names  map[string]string
	epoch  uint64   // highest of all
	listed []string // survivors of that recovery
}

// Make plans a recovery from what nodes say of themselves; answers may repeat
// nodes. An error means that they do not belong together.
func Make(answers []*api.RecoverNode, now time.Time) (*Plan, error) {
	p := &planner{plan: &Plan{At: now.UnixMilli()}, alive: map[string]survivor{}, names: map[string]string{}}
	reasons, err := p.take(answers)
	if err != nil {
		return nil, err
	}
	p.excludeOld(reasons)
	p.groups()
	p.nodes(reasons)
	p.decide()
	return p.plan, nil
}

// take sorts the answers; reasons are those of nodes that did not answer.
func (p *planner) take(answers []*api.RecoverNode) (reasons map[string]string, err error) {
	reasons = map[string]string{}
	for _, n := range answers {
		id := n.GetNodeId()
		p.name(id, n.GetNodeName())
		if n.GetError() != "" {
			reasons[id] = "does not answer: " + n.GetError()
			continue
		}
		if p.plan.ClusterID == "" {
			p.plan.ClusterID, p.plan.ClusterName = n.GetClusterId(), n.GetClusterName()
		}
		if n.GetClusterId() != p.plan.ClusterID {
			return nil, fmt.Errorf("%s belongs to the cluster %s (%s), others to %s (%s)", cmp.Or(n.GetNodeName(), id),
				n.GetClusterName(), n.GetClusterId(), p.plan.ClusterName, p.plan.ClusterID)
		}
		s := survivor{RecoverNode: n, replicas: map[uint32]*api.RecoverReplica{}}
		for _, r := range n.GetReplicas() {
			s.replicas[r.GetGroup()] = r
		}
		p.alive[id] = s
		for _, k := range n.GetKnown() {
			p.name(k.GetId(), k.GetName())
		}
	}
	return reasons, nil
}

func (p *planner) name(id, name string) {
	if p.names[id] == "" {
		p.names[id] = name
	}
}

func (p *planner) shown(id string) string { return cmp.Or(p.names[id], id) }

// excludeOld takes nodes of before the last recovery, other than its
// survivors, for lost: they are.
func (p *planner) excludeOld(reasons map[string]string) {
	for _, s := range p.alive {
		p.epoch = max(p.epoch, s.GetEpoch())
	}
	for _, s := range p.alive {
		if s.GetEpoch() == p.epoch && len(s.GetSurvivors()) > 0 {
			p.listed = s.GetSurvivors()
		}
	}
	for id, s := range p.alive {
		if s.GetEpoch() < p.epoch && !slices.Contains(p.listed, id) {
			reasons[id] = fmt.Sprintf("belongs to the cluster before its recovery at epoch %d", p.epoch)
			delete(p.alive, id)
		}
	}
}

// nodes lists all that are known.
func (p *planner) nodes(reasons map[string]string) {
	for _, g := range p.plan.Groups {
		for _, m := range g.Members {
			p.name(m.NodeID, "")
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.names)) {
		s, ok := p.alive[id]
		n := Node{ID: id, Name: p.names[id], Survives: ok, epoch: s.GetEpoch()}
		if !ok {
			if n.Reason = "does not answer"; reasons[id] != "" {
				n.Reason = reasons[id]
			}
		} else {
			p.plan.clock = max(p.plan.clock, s.GetClockMs())
		}
		p.plan.Nodes = append(p.plan.Nodes, n)
	}
	slices.SortStableFunc(p.plan.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
}

// decide says which recovery it is: none, the last one again when it was
// interrupted, or the next one.
func (p *planner) decide() {
	var recorded uint64
	unfinished, complete := false, true
	for _, s := range p.alive {
		recorded = max(recorded, s.GetRecordedEpoch())
		unfinished = unfinished || s.GetEpoch() < p.epoch
	}
	unfinished = unfinished || recorded < p.epoch
	for _, id := range p.listed {
		_, alive := p.alive[id]
		complete = complete && alive
	}
	switch {
	case !unfinished && p.plan.Count(Lost) == 0:
		return
	case unfinished && complete:
		p.plan.Epoch, p.plan.Resumes, p.plan.survivors = p.epoch, true, p.listed
	default:
		p.plan.Epoch = p.epoch + 1
		p.plan.survivors = slices.Sorted(maps.Keys(p.alive))
	}
}
