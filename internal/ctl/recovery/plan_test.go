package recovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
)

// rep is a replica of a group of nodes n1.., whose ids are 1.. in that order.
func rep(group uint32, id, lastTerm, lastIndex uint64, voters int) *api.RecoverReplica {
	r := &api.RecoverReplica{Group: group, Replica: id, Role: "follower", Term: lastTerm, LastTerm: lastTerm, LastIndex: lastIndex,
		Commit: 5, Applied: 5, KeptRevision: 1000 << 16, NextReplica: uint64(voters) + 1}
	for v := range uint64(voters) {
		r.Voters = append(r.Voters, v+1)
		r.Members = append(r.Members, &api.ReplicaInfo{Replica: v + 1, NodeId: fmt.Sprint("n", v+1), Role: "voter"})
	}
	return r
}

func node(i int, replicas ...*api.RecoverReplica) *api.RecoverNode {
	n := &api.RecoverNode{NodeId: fmt.Sprint("n", i), NodeName: fmt.Sprint("name", i), ClusterId: "c", ClusterName: "test",
		ClockMs: int64(2000 + i), Groups: 1, Replicas: replicas}
	for k := range 5 {
		n.Known = append(n.Known, &api.NodeInfo{Id: fmt.Sprint("n", k+1), Name: fmt.Sprint("name", k+1)})
	}
	return n
}

func mustMake(t *testing.T, nodes ...*api.RecoverNode) *Plan {
	t.Helper()
	p, err := Make(nodes, time.UnixMilli(3000))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The best of two survivors of five goes on: the newest entry decides, then
// the length of the log.
func TestTheNewestLogIsChosen(t *testing.T) {
	p := mustMake(t, node(4, rep(0, 4, 3, 10, 5), rep(1, 4, 4, 9, 5)), node(5, rep(0, 5, 3, 11, 5), rep(1, 5, 3, 50, 5)))
	if p.Epoch != 1 || p.Resumes || p.Count(Lost) != 2 || len(p.Nodes) != 5 || p.clock != 2005 {
		t.Fatalf("plan %+v", p)
	}
	for i, want := range []string{"n5", "n4"} {
		g := p.Groups[i]
		if g.Survivor.NodeID != want || len(g.Discard) != 1 || g.Discard[0].NodeID == want || g.LossNone || g.LossFrom != 1000 || g.aboveReplica != 6 {
			t.Fatalf("group %+v", g)
		}
	}
	if p.Groups[1].aboveTerm != 4 || p.Groups[1].Beyond != 4 {
		t.Fatalf("group %+v", p.Groups[1])
	}
}

// "None" is claimed only where every quorum had a survivor in it.
func TestLossIsProved(t *testing.T) {
	for voters, want := range map[int]bool{2: true, 3: false, 4: false, 5: false} {
		p := mustMake(t, node(1, rep(0, 1, 1, 9, voters)))
		if g := p.Groups[0]; g.State != Lost || g.LossNone != want {
			t.Errorf("one of %d voters: %+v", voters, g)
		}
	}
	p := mustMake(t, node(1, rep(0, 1, 1, 9, 4)), node(2, rep(0, 2, 1, 8, 4)))
	if g := p.Groups[0]; !g.LossNone || g.Survivor.NodeID != "n1" {
		t.Errorf("two of four: %+v", g)
	}
	changing := rep(0, 1, 1, 9, 2)
	changing.Changing = true
	if g := mustMake(t, node(1, changing)).Groups[0]; g.LossNone {
		t.Errorf("a membership change is in the log: %+v", g)
	}
}

// Of two copies and a witness one copy is gone for good. Where the witness
// acknowledged nothing that the other one lacks, the two are a quorum; else they
// answer and elect nobody: the group is lost, and how much at most is said.
func TestAWitnessBoundsTheLoss(t *testing.T) {
	const w = 1<<52 | 3
	replica := func(id, lastTerm, lastIndex uint64) *api.RecoverReplica {
		r := rep(0, id, lastTerm, lastIndex, 3)
		r.Voters[2], r.Members[2].Replica, r.Members[2].Role = w, w, "witness"
		if id == w {
			r.Role = "witness"
		}
		return r
	}
	for name, c := range map[string]struct {
		nodes   []*api.RecoverNode
		state   State
		none    bool
		entries uint64
	}{
		"the copy has all":                {[]*api.RecoverNode{node(2, replica(2, 4, 9)), node(3, replica(w, 4, 9))}, Live, false, 0},
		"the witness is behind on duty":   {[]*api.RecoverNode{node(2, replica(2, 4, 9)), node(3, replica(w, 2, 20))}, Live, false, 0},
		"the witness knows of more":       {[]*api.RecoverNode{node(2, replica(2, 4, 9)), node(3, replica(w, 4, 12))}, Lost, false, 3},
		"of a later term":                 {[]*api.RecoverNode{node(2, replica(2, 4, 9)), node(3, replica(w, 6, 12))}, Lost, false, 7}, // after the commit at 5
		"the witness is gone, too":        {[]*api.RecoverNode{node(2, replica(2, 4, 9))}, Lost, false, 0},
		"nothing but the witness is left": {[]*api.RecoverNode{node(3, replica(w, 4, 9))}, Gone, false, 0},
	} {
		p := mustMake(t, c.nodes...)
		g := p.Groups[0]
		if g.State != c.state || g.LossNone != c.none {
			t.Errorf("%s: %+v", name, g)
		}
		var entries uint64
		if g.Witness != nil {
			entries = g.Witness.Entries
		}
		if entries != c.entries {
			t.Errorf("%s: at most %d entries are lost, want %d", name, entries, c.entries)
		}
		if c.state == Lost && (g.Survivor.NodeID != "n2" || g.aboveReplica != 4 || len(g.Discard) != len(c.nodes)-1) {
			t.Errorf("%s: %+v", name, g)
		}
	}
}

func TestGroupsThatLiveAreLeftAlone(t *testing.T) {
	led := rep(1, 1, 1, 9, 3)
	led.LeaderReplica = 3
	damaged := rep(0, 2, 1, 9, 3)
	damaged.Quarantined = "damaged"
	joint := rep(0, 1, 1, 9, 3)
	joint.VotersOutgoing = []uint64{1, 4, 5}
	for name, c := range map[string]struct {
		nodes []*api.RecoverNode
		want  State
		group int
	}{
		"two of three":              {[]*api.RecoverNode{node(1, rep(0, 1, 1, 9, 3)), node(2, rep(0, 2, 1, 9, 3))}, Live, 0},
		"one of three":              {[]*api.RecoverNode{node(1, rep(0, 1, 1, 9, 3)), node(2)}, Lost, 0},
		"the other one is damaged":  {[]*api.RecoverNode{node(1, rep(0, 1, 1, 9, 3)), node(2, damaged)}, Lost, 0},
		"half of a joint quorum":    {[]*api.RecoverNode{node(1, joint), node(2, rep(0, 2, 0, 9, 0))}, Lost, 0},
		"a leader was just heard":   {[]*api.RecoverNode{node(1, led)}, Live, 1},
		"no replica is left":        {[]*api.RecoverNode{node(1, rep(0, 1, 1, 9, 3))}, Gone, 1},
		"only a damaged one is":     {[]*api.RecoverNode{node(2, damaged)}, Gone, 0},
		"its node is another's now": {[]*api.RecoverNode{node(1, rep(0, 1, 1, 9, 3)), node(2, rep(0, 9, 0, 9, 0))}, Lost, 0},
	} {
		p := mustMake(t, c.nodes...)
		if g := p.Groups[c.group]; g.State != c.want {
			t.Errorf("%s: %+v", name, g)
		}
		if p.Waiting != (name == "a leader was just heard") {
			t.Errorf("%s: waiting %v", name, p.Waiting)
		}
	}
	healthy := []*api.RecoverNode{node(1, rep(0, 1, 1, 9, 3), rep(1, 1, 1, 9, 3)), node(2, rep(0, 2, 1, 9, 3), rep(1, 2, 1, 9, 3))}
	if p := mustMake(t, healthy...); p.ToDo() || p.Epoch != 0 {
		t.Fatalf("a healthy cluster: %+v", p)
	}
}

func TestAnswersOfOthersAreRefused(t *testing.T) {
	other := node(2, rep(0, 2, 1, 9, 3))
	other.ClusterId = "x"
	if _, err := Make([]*api.RecoverNode{node(1), other}, time.Now()); err == nil || !strings.Contains(err.Error(), "belongs to the cluster") {
		t.Fatal(err)
	}
}

// world is a model of the nodes that take part: what they do is what package
// host and package node do.
type world struct {
	nodes []*api.RecoverNode
}

func (w *world) find(id string) *api.RecoverNode {
	return w.nodes[slices.IndexFunc(w.nodes, func(n *api.RecoverNode) bool { return n.GetNodeId() == id })]
}

func (w *world) step(_ context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error) {
	n := w.find(q.GetNodeId())
	if q.GetStep() != api.RecoverRequest_FENCE && n.Epoch != q.GetEpoch() {
		return nil, errors.New("not fenced")
	}
	at := slices.IndexFunc(n.Replicas, func(r *api.RecoverReplica) bool {
		return r.GetGroup() == q.GetGroup() && r.GetReplica() == q.GetReplica()
	})
	switch q.GetStep() {
	case api.RecoverRequest_FENCE:
		n.Epoch, n.Survivors = q.GetEpoch(), q.GetSurvivors()
	case api.RecoverRequest_ADOPT:
		for _, other := range w.nodes {
			if slices.Contains(n.Survivors, other.GetNodeId()) && other.Epoch != q.GetEpoch() {
				return nil, errors.New("a survivor is not fenced")
			}
		}
		r := n.Replicas[at]
		r.Replica = max(q.GetAboveReplica(), r.GetReplica()) + adoptedIDs
		r.LastTerm, r.LastIndex, r.Voters = q.GetAboveTerm()+adoptedIDs, r.LastIndex+3, []uint64{r.Replica}
		r.Members = []*api.ReplicaInfo{{Replica: r.Replica, NodeId: n.GetNodeId(), Role: "voter"}}
	case api.RecoverRequest_DISCARD:
		n.Replicas = slices.Delete(n.Replicas, at, at+1)
	case api.RecoverRequest_RECORD:
		for _, n := range w.nodes {
			n.RecordedEpoch = q.GetEpoch()
		}
	default:
	}
	return &api.RecoverResponse{}, nil
}

// Interrupted after any number of steps, again and again, it ends in the same
// state, and then there is nothing left to do.
func TestAnInterruptedRunIsFinished(t *testing.T) {
	for steps := 1; steps < 12; steps++ {
		w := &world{nodes: []*api.RecoverNode{
			node(3, rep(0, 3, 2, 9, 5), rep(1, 3, 2, 9, 5)), node(5, rep(0, 5, 2, 11, 5), rep(1, 5, 2, 8, 5))}}
		runs := 0
		for {
			p := mustMake(t, w.nodes...)
			if !p.ToDo() {
				break
			}
			if p.Epoch != 1 || p.Resumes != (runs > 0) {
				t.Fatalf("every %d steps, run %d: %+v", steps, runs, p)
			}
			left := steps
			_ = Run(t.Context(), p, func(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error) {
				if left--; left < 0 {
					return nil, errors.New("interrupted")
				}
				return w.step(ctx, q)
			}, func(string) {})
			if runs++; runs > 12 {
				t.Fatalf("every %d steps: it does not end: %+v", steps, p)
			}
		}
		if len(w.find("n3").Replicas) != 1 || len(w.find("n5").Replicas) != 1 || w.find("n5").Replicas[0].Group != 0 || w.find("n3").Replicas[0].Group != 1 {
			t.Fatalf("every %d steps: %v", steps, w.nodes)
		}
	}
}

// A survivor that is lost before the recovery is finished begins the next one;
// what the earlier one did stays.
func TestASurvivorIsLostMeanwhile(t *testing.T) {
	w := &world{nodes: []*api.RecoverNode{
		node(3, rep(0, 3, 2, 9, 5), rep(1, 3, 2, 9, 5)), node(5, rep(0, 5, 2, 11, 5), rep(1, 5, 2, 8, 5))}}
	left := 3 // both are fenced, the meta group is adopted by n5
	_ = Run(t.Context(), mustMake(t, w.nodes...), func(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error) {
		if left--; left < 0 {
			return nil, errors.New("interrupted")
		}
		return w.step(ctx, q)
	}, func(string) {})
	w.nodes = w.nodes[1:]
	p := mustMake(t, w.nodes...)
	if p.Epoch != 2 || p.Resumes || p.Groups[0].State != Live || p.Groups[1].Survivor.NodeID != "n5" {
		t.Fatalf("plan %+v", p)
	}
	if err := Run(t.Context(), p, w.step, func(string) {}); err != nil {
		t.Fatal(err)
	}
	if p = mustMake(t, w.nodes...); p.ToDo() {
		t.Fatalf("plan %+v", p)
	}
}

// Nodes of before the last recovery are lost, whatever they say.
func TestOldNodesDoNotCount(t *testing.T) {
	after := node(1, rep(0, 1029, 1030, 20, 0))
	after.Epoch, after.RecordedEpoch, after.Survivors = 1, 1, []string{"n1"}
	after.Replicas[0].Voters = []uint64{1029}
	after.Groups = 0
	p := mustMake(t, after, node(2, rep(0, 2, 3, 9, 3)), node(3, rep(0, 3, 3, 9, 3)))
	if p.ToDo() || p.Nodes[1].Survives || !strings.Contains(p.Nodes[1].Reason, "before its recovery at epoch 1") {
		t.Fatalf("plan %+v", p)
	}
}
