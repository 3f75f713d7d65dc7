package balancer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

func topology(replaced map[keyspace.NodeID]keyspace.NodeID, nodes ...keyspace.NodeID) *router.Map {
	m := &router.Map{ReplicationFactor: 3, Nodes: make(map[keyspace.NodeID]router.Node), Replaced: replaced,
		Members: make(map[keyspace.GroupID][]router.Member)}
	for _, id := range nodes {
		m.Nodes[id] = router.Node{ID: id}
	}
	return m
}

// voters on nodes; w and x are witnesses.
func voters(nodes ...keyspace.NodeID) []format.Member {
	var out []format.Member
	for i, n := range nodes {
		id := keyspace.ReplicaID(i + 1)
		if n == "w" || n == "x" {
			id = id.AsWitness()
		}
		out = append(out, format.Member{Replica: id, Node: n})
	}
	return out
}

// allActive is the progress of voters that answer, and of one more replica.
func allActive(id keyspace.ReplicaID, p host.Progress) map[keyspace.ReplicaID]host.Progress {
	all := map[keyspace.ReplicaID]host.Progress{id: p}
	for r := keyspace.ReplicaID(1); r <= 4; r++ {
		all[r] = host.Progress{Match: 1000, Active: true}
	}
	return all
}

func TestDecide(t *testing.T) {
	bTwice := map[keyspace.NodeID]keyspace.NodeID{"b": "b2", "b2": "b3"}
	learner := func(node keyspace.NodeID) format.Member { return format.Member{Replica: 9, Node: node, Learner: true} }
	for _, c := range []struct {
		name    string
		members []format.Member
		m       *router.Map
		match   keyspace.Index
		active  bool
		want    host.MemberChange
	}{
		{"as it should be", voters("a", "b", "c"), topology(nil, "a", "b", "c"), 0, false, host.MemberChange{}},
		{"replaced twice", voters("a", "b", "c"), topology(bTwice, "a", "b3", "c"), 0, false, host.MemberChange{AddLearner: "b3"}},
		{"successor unknown", voters("a", "b", "c"), topology(bTwice, "a", "c"), 0, false, host.MemberChange{}},
		{"learner is behind", append(voters("a", "b", "c"), learner("b3")), topology(bTwice, "a", "b3", "c"), 500, true, host.MemberChange{}},
		{"learner is silent", append(voters("a", "b", "c"), learner("b3")), topology(bTwice, "a", "b3", "c"), 1000, false, host.MemberChange{}},
		{"learner caught up", append(voters("a", "b", "c"), learner("b3")), topology(bTwice, "a", "b3", "c"), 990, true, host.MemberChange{Promote: 9, Replace: 2}},
		{"learner's node was replaced too", append(voters("a", "b", "c"), learner("b2")), topology(bTwice, "a", "b3", "c"), 990, true, host.MemberChange{Remove: 9}},
		{"old learner remains", append(voters("a", "b3", "c"), learner("b2")), topology(bTwice, "a", "b3", "c"), 990, true, host.MemberChange{Remove: 9}},
		{"old voter beside its successor", voters("a", "b", "c", "b3"), topology(bTwice, "a", "b3", "c"), 0, false, host.MemberChange{Remove: 2}},
		{"group lacks a voter", append(voters("a", "c"), learner("d")), topology(nil, "a", "c", "d"), 1000, true, host.MemberChange{Promote: 9}},
		{"one learner too many", append(voters("a", "b", "c"), learner("d")), topology(nil, "a", "b", "c", "d"), 1000, true, host.MemberChange{Remove: 9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &host.GroupStatus{Group: 1, Replica: 1, Members: c.members, Commit: 1000,
				Progress: allActive(9, host.Progress{Match: c.match, Active: c.active})}
			step, ok := Decide(g, c.m)
			if step.Change != c.want || ok != (c.want != host.MemberChange{}) {
				t.Fatalf("%+v (%s), want %+v", step.Change, step.Reason, c.want)
			}
		})
	}
}

// fakeCluster is one group whose changes take effect at once; a learner
// catches up with the next look.
type fakeCluster struct {
	mu      sync.Mutex
	group   host.GroupStatus
	m       *router.Map
	changes []host.MemberChange
	records []string
	// guides are what Guide was told.
	guides []string
	fail   error
	// founded are the groups that FoundGroup made.
	founded []host.GroupSeed
	batches []*api.BatchPutRequest
}

func (c *fakeCluster) FoundGroup(_ context.Context, seed host.GroupSeed) error {
	c.founded = append(c.founded, seed)
	return nil
}

func (c *fakeCluster) BatchPut(_ context.Context, q *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	c.batches = append(c.batches, q)
	return &api.BatchPutResponse{Results: []*api.BatchPutResult{{Put: &api.PutResponse{Version: 1}}}}, c.fail
}

func (c *fakeCluster) Groups() []host.GroupStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.group
	g.Members = append([]format.Member(nil), g.Members...)
	g.Progress = make(map[keyspace.ReplicaID]host.Progress)
	for _, m := range g.Members {
		g.Progress[m.Replica] = host.Progress{Match: g.Commit, Active: true}
	}
	return []host.GroupStatus{g}
}

func (c *fakeCluster) ChangeMembers(_ context.Context, _ keyspace.GroupID, change host.MemberChange) (keyspace.ReplicaID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.changes = append(c.changes, change)
	if c.fail != nil {
		err := c.fail
		c.fail = nil
		return 0, err
	}
	var kept []format.Member
	for _, m := range c.group.Members {
		switch m.Replica {
		case change.Remove, change.Replace:
			continue
		case change.Promote:
			m.Learner = false
		}
		kept = append(kept, m)
	}
	if change.AddLearner != "" {
		kept = append(kept, format.Member{Replica: 4, Node: change.AddLearner, Learner: true})
	}
	c.group.Members = kept
	return 4, nil
}

func (c *fakeCluster) Delete(context.Context, *api.DeleteRequest) (*api.DeleteResponse, error) {
	return &api.DeleteResponse{}, nil
}

func (c *fakeCluster) Guide(g keyspace.GroupID, nodes []keyspace.NodeID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.guides = append(c.guides, fmt.Sprint(g, " ", nodes))
}

func (c *fakeCluster) Put(ctx context.Context, q *api.PutRequest) (*api.PutResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if router.Identity(ctx) != router.SystemIdentity || q.Namespace != keyspace.SystemNamespaceName {
		return nil, fault.New(fault.PermissionDenied, "reserved")
	}
	r, err := format.DecodeSystem[format.GroupRecord](q.Key, q.Value)
	if err != nil {
		return nil, err
	}
	next := *c.m
	next.Members = map[keyspace.GroupID][]router.Member{}
	for _, m := range r.Members {
		next.Members[c.group.Group] = append(next.Members[c.group.Group], router.Member(m))
	}
	c.m = &next
	c.records = append(c.records, q.Key+fmt.Sprint(r.Members))
	return &api.PutResponse{}, nil
}

func (c *fakeCluster) Map() *router.Map {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m
}

type noRand struct{}

type noClock struct{ env.Clock }

func (noClock) Wall() int64 { return 1 }

func (noClock) Mono() time.Duration { return 0 }

func (noRand) Uint64() uint64 { return 0 }

func TestLoopReplacesAMemberAndKeepsTheRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{
			m: topology(map[keyspace.NodeID]keyspace.NodeID{"b": "b2"}, "a", "b2", "c"),
			group: host.GroupStatus{Group: 3, Replica: 1, Role: "leader", Serving: true, Term: 2, Commit: 50,
				Members: voters("a", "b", "c")},
			fail: fault.New(fault.Unavailable, "no quorum yet"),
		}
		b, err := New(Options{Host: c, Store: c, Directory: c, Rand: noRand{}, Clock: noClock{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(10 * time.Second)
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		want := []host.MemberChange{{AddLearner: "b2"}, {AddLearner: "b2"}, {Promote: 4, Replace: 2}}
		if fmt.Sprint(c.changes) != fmt.Sprint(want) {
			t.Fatalf("changes %+v", c.changes)
		}
		records := []string{
			"group/3[{1 a false} {2 b false} {3 c false}]",
			"group/3[{1 a false} {2 b false} {3 c false} {4 b2 true}]",
			"group/3[{1 a false} {3 c false} {4 b2 false}]",
		}
		if fmt.Sprint(c.records) != fmt.Sprint(records) {
			t.Fatalf("records %q", c.records)
		}
	})
}

func TestFollowersChangeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeCluster{
			m:     topology(map[keyspace.NodeID]keyspace.NodeID{"b": "b2"}, "a", "b2", "c"),
			group: host.GroupStatus{Group: 3, Role: "follower", Term: 2, Members: voters("a", "b", "c")},
		}
		b, err := New(Options{Host: c, Store: c, Directory: c, Rand: noRand{}, Clock: noClock{}})
		if err != nil {
			t.Fatal(err)
		}
		b.roundToEnd(t.Context())
		c.group.Role = "leader" // elected, but nothing of its own term is applied
		b.roundToEnd(t.Context())
		if len(c.changes)+len(c.records) != 0 {
			t.Fatalf("changes %v, records %v", c.changes, c.records)
		}
	})
}

// A voter whose log is damaged is replaced by a new replica on its own node,
// unless the node itself was replaced.
func TestDecideRebuildsDamagedReplicas(t *testing.T) {
	onB := format.Member{Replica: 9, Node: "b", Learner: true}
	grown := onB
	grown.Learner = false
	for _, c := range []struct {
		name    string
		members []format.Member
		lost    keyspace.ReplicaID
		m       *router.Map
		match   keyspace.Index
		want    host.MemberChange
	}{
		{"first step", voters("a", "b", "c"), 2, topology(nil, "a", "b", "c"), 0, host.MemberChange{AddLearner: "b"}},
		{"learner is behind", append(voters("a", "b", "c"), onB), 2, topology(nil, "a", "b", "c"), 10, host.MemberChange{}},
		{"learner caught up", append(voters("a", "b", "c"), onB), 2, topology(nil, "a", "b", "c"), 1000, host.MemberChange{Promote: 9, Replace: 2}},
		{"both vote", append(voters("a", "b", "c"), grown), 2, topology(nil, "a", "b", "c"), 1000, host.MemberChange{Remove: 2}},
		{"damaged learner", append(voters("a", "b", "c"), onB), 9, topology(nil, "a", "b", "c"), 0, host.MemberChange{Remove: 9}},
		{"its node was replaced", append(voters("a", "b", "c"), onB), 2,
			topology(map[keyspace.NodeID]keyspace.NodeID{"b": "b2"}, "a", "b2", "c"), 0, host.MemberChange{Remove: 9}},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := &host.GroupStatus{Group: 1, Replica: 1, Members: c.members, Commit: 1000, Lost: []keyspace.ReplicaID{c.lost},
				Progress: allActive(9, host.Progress{Match: c.match, Active: true})}
			step, ok := Decide(g, c.m)
			if step.Change != c.want || ok != (c.want != host.MemberChange{}) {
				t.Fatalf("decided %+v (%v), want %+v", step, ok, c.want)
			}
		})
	}
}
