package balancer

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// roundToEnd is a round whose steps ended.
func (b *Balancer) roundToEnd(ctx context.Context) {
	b.round(ctx)
	b.steps.running.Wait()
}

// manyGroups are groups that this node leads and whose voter b was replaced. A
// change of a stuck group never ends by itself.
type manyGroups struct {
	m       *router.Map
	stuck   map[keyspace.GroupID]bool
	mu      sync.Mutex
	members map[keyspace.GroupID][]format.Member
	running map[keyspace.GroupID]int
	tried   map[keyspace.GroupID]int
	most    int // changes that ran at the same time
	twice   bool
}

func newManyGroups(groups int, stuck ...keyspace.GroupID) *manyGroups {
	c := &manyGroups{m: topology(map[keyspace.NodeID]keyspace.NodeID{"b": "b2"}, "a", "b2", "c"),
		stuck: map[keyspace.GroupID]bool{}, members: map[keyspace.GroupID][]format.Member{},
		running: map[keyspace.GroupID]int{}, tried: map[keyspace.GroupID]int{}}
	for g := range keyspace.GroupID(groups) {
		c.members[g+1] = voters("a", "b", "c")
	}
	for _, g := range stuck {
		c.stuck[g] = true
	}
	return c
}

func (c *manyGroups) FoundGroup(context.Context, host.GroupSeed) error { return nil }

func (c *manyGroups) BatchPut(context.Context, *api.BatchPutRequest) (*api.BatchPutResponse, error) {
	return nil, fault.New(fault.Unavailable, "no group is founded here")
}

func (c *manyGroups) Groups() (all []host.GroupStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for g := range keyspace.GroupID(len(c.members)) {
		s := host.GroupStatus{Group: g + 1, Replica: 1, Role: "leader", Serving: true, Term: 2, Commit: 50,
			Members: append([]format.Member(nil), c.members[g+1]...), Progress: map[keyspace.ReplicaID]host.Progress{}}
		for _, m := range s.Members {
			s.Progress[m.Replica] = host.Progress{Match: 50, Active: true}
		}
		all = append(all, s)
	}
	return all
}

func (c *manyGroups) Guide(keyspace.GroupID, []keyspace.NodeID) {}

func (c *manyGroups) Map() *router.Map { return c.m }

func (c *manyGroups) Put(context.Context, *api.PutRequest) (*api.PutResponse, error) {
	return &api.PutResponse{}, nil
}

func (c *manyGroups) Delete(context.Context, *api.DeleteRequest) (*api.DeleteResponse, error) {
	return &api.DeleteResponse{}, nil
}

func (c *manyGroups) ChangeMembers(ctx context.Context, g keyspace.GroupID, change host.MemberChange) (keyspace.ReplicaID, error) {
	c.count(g, 1)
	defer c.count(g, -1)
	if c.stuck[g] {
		<-ctx.Done()
		return 0, fault.Wrap(fault.UnknownOutcome, ctx.Err(), "stuck")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	next := keyspace.ReplicaID(4)
	c.members[g] = perform(c.members[g], change, &next)
	return 4, nil
}

func (c *manyGroups) count(g keyspace.GroupID, by int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if by > 0 {
		c.tried[g]++
	}
	c.running[g] += by
	c.twice = c.twice || c.running[g] > 1
	n := 0
	for _, of := range c.running {
		n += of
	}
	c.most = max(c.most, n)
}

// moved counts the groups that are where they should be.
func (c *manyGroups) moved() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, members := range c.members {
		if members[1].Node == "c" && !members[2].Learner {
			n++
		}
	}
	return n
}

// run lets a balancer work for a while.
func (c *manyGroups) run(t *testing.T, d time.Duration) {
	t.Helper()
	b, err := New(Options{Host: c, Store: c, Directory: c, Rand: noRand{}, Clock: noClock{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-time.After(d)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
}

// A group whose change does not end delays no other.
func TestAStuckGroupDelaysNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newManyGroups(40, 1, 5)
		c.run(t, stepTimeout-time.Second)
		if got := c.moved(); got != 38 {
			t.Fatalf("%d groups moved while two are stuck", got)
		}
		if c.twice {
			t.Fatal("two steps of a group at a time")
		}
	})
}

// However many are stuck, no more than maxSteps run at a time, and all get
// their turn.
func TestStepsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck := make([]keyspace.GroupID, 3*maxSteps)
		for i := range stuck {
			stuck[i] = keyspace.GroupID(i + 1)
		}
		c := newManyGroups(len(stuck)+2, stuck...)
		c.run(t, 8*stepTimeout)
		if c.most != maxSteps || c.twice {
			t.Errorf("%d steps ran at a time, two of one group: %v", c.most, c.twice)
		}
		if got := c.moved(); got != 2 {
			t.Errorf("%d of 2 groups moved beside those that are stuck", got)
		}
		for g := range c.members {
			if c.tried[g] == 0 {
				t.Errorf("group %d was never tried", g)
			}
		}
	})
}
