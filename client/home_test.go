package client

import (
	"context"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/keyspace"
)

// Few reads go to one node, whoever leads; it is of the client's zone if it can be.
func TestFewReadsShareANode(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Read, cfg.Zone = readDefault, "zone-c" })
	for _, n := range f.nodes {
		key := f.keyLedBy(n, "k")
		mustPut(t, c, key, "v")
		f.served()
		wantValue(t, c, key, "v")
		if got := f.served(); [3]int64(got) != [3]int64{0, 0, 1} {
			t.Errorf("%s leads, served %v", n.name, got)
		}
	}
}

// More reads than the home takes go to leaders.
func TestManyReadsGoToLeaders(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Read, cfg.Zone = readDefault, "zone-c" })
	key := f.keyLedBy(f.nodes[0], "k")
	mustPut(t, c, key, "v")
	home := c.home.node.Load()
	home.outstanding.Add(homeCalls)
	f.served()
	wantValue(t, c, key, "v")
	if got := f.served(); [3]int64(got) != [3]int64{1, 0, 0} {
		t.Errorf("served %v while the home has much to do", got)
	}
	home.outstanding.Add(-homeCalls)
	wantValue(t, c, key, "v")
	if got := f.served(); [3]int64(got) != [3]int64{0, 0, 1} {
		t.Errorf("served %v when it is free again", got)
	}
}

// A home that fails is left for leaders, and after a while for another one.
func TestHomeIsLeft(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Read = Auto })
	home, key := c.home.node.Load(), ""
	for _, n := range f.nodes {
		if n.addr == home.addr {
			n.setFault(func(op *api.PipelineOp) opFault {
				if op.GetGet() == nil {
					return opFault{}
				}
				return opFault{status: statusOf(CodeUnavailable)}
			})
		} else {
			key = f.keyLedBy(n, "k")
		}
	}
	mustPut(t, c, key, "v")
	wantValue(t, c, key, "v")
	if now := c.home.node.Load(); now != nil {
		t.Fatalf("the home is still %s", now.addr)
	}
	c.tendHome(c.now())
	if now := c.home.node.Load(); now != nil {
		t.Fatalf("there is a home at once, %s", now.addr)
	}
	for range 20 {
		c.home.node.Store(nil)
		c.tendHome(c.now() + homeRest)
		if now := c.home.node.Load(); now == nil || now == home {
			t.Fatalf("the next home is %v, the one that failed %v", now, home)
		}
	}
}

// faultHome gives the home of c a fault for reads, and returns a key that another node
// leads.
func faultHome(t *testing.T, f *fakeCluster, c *Client, fault func(op *api.PipelineOp) opFault) (home *node, key string) {
	t.Helper()
	if home = c.home.node.Load(); home == nil {
		t.Fatal("no home")
	}
	for _, n := range f.nodes {
		if n.addr != home.addr {
			key = f.keyLedBy(n, "k")
			continue
		}
		n.setFault(func(op *api.PipelineOp) opFault {
			if op.GetGet() == nil && op.GetBatchGet() == nil {
				return opFault{}
			}
			return fault(op)
		})
	}
	mustPut(t, c, key, "v")
	return home, key
}

// Deadlines that pass before a read is seen to wait for long count, too.
func TestHomeIsLeftForDeadlines(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Read, cfg.ProbeAfter = Auto, time.Hour })
	home, key := faultHome(t, f, c, func(*api.PipelineOp) opFault { return opFault{mute: true} })
	for n := range homeStrikes {
		if c.home.node.Load() != home {
			t.Fatalf("the home is left after %d deadlines, want %d", n, homeStrikes)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := c.Get(ctx, key)
		cancel()
		wantError(t, err, ErrDeadlineExceeded)
	}
	wantValue(t, c, key, "v")
}

// A read that the home refuses for itself is done by the leader.
func TestRefusedAtHome(t *testing.T) {
	for _, code := range []Code{CodeOverloaded, CodeWrongLeader, CodeUnavailable, CodeUnknownOutcome} {
		f := newFakeCluster(t, 3)
		c := f.client(func(cfg *Config) { cfg.Read = Auto })
		home, key := faultHome(t, f, c, func(*api.PipelineOp) opFault { return opFault{status: statusOf(code)} })
		wantValue(t, c, key, "v")
		if c.home.node.Load() == home {
			t.Errorf("%s: it is still the home", code)
		}
	}
}

// What is wrong with a read says nothing about the node.
func TestErrorsOfReadsKeepTheHome(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Read = Auto })
	home := c.home.node.Load()
	for range 2 * homeStrikes {
		_, err := c.Get(t.Context(), "none")
		wantError(t, err, ErrNotFound)
	}
	if c.home.node.Load() != home {
		t.Error("the home was left for a key that is not there")
	}
}

// Items that the home refuses one by one go to leaders in the next round, also when
// there is one only.
func TestBatchRefusedAtHome(t *testing.T) {
	for _, keys := range []int{1, 3} {
		f := newFakeCluster(t, 3)
		c := f.client(func(cfg *Config) { cfg.Read = Auto })
		home, key := faultHome(t, f, c, func(*api.PipelineOp) opFault { return opFault{items: statusOf(CodeUnavailable)} })
		var all []string
		for range keys {
			all = append(all, key)
		}
		results, err := c.BatchGet(t.Context(), all)
		if err != nil || string(results[keys-1].Record.Value) != "v" {
			t.Errorf("%d keys: %v", keys, err)
		}
		if c.home.node.Load() == home {
			t.Errorf("%d keys: it is still the home", keys)
		}
	}
}

// Reads that wait at a silent home go on at leaders.
func TestReadsLeaveASilentHome(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Read = Auto })
	home, key := faultHome(t, f, c, func(*api.PipelineOp) opFault { return opFault{mute: true} })
	wantValue(t, c, key, "v")
	if c.home.node.Load() == home {
		t.Error("it is still the home")
	}
}

// A read that went to a leader since the home had much to do waits there, however
// long, and what leaders answer says nothing of the home.
func TestReadsAtLeadersStay(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Read, cfg.ProbeAfter = Auto, time.Hour })
	home := c.home.node.Load()
	leader := f.nodes[0]
	if leader.addr == home.addr {
		leader = f.nodes[1]
	}
	key := f.keyLedBy(leader, "k")
	mustPut(t, c, key, "v")
	home.outstanding.Add(homeCalls)
	c.home.strikes.Store(1)
	wantValue(t, c, key, "v")
	if n := c.home.strikes.Load(); n != 1 {
		t.Errorf("%d strikes after an answer of the leader, want 1", n)
	}
	sent := make(chan struct{}, 1)
	leader.setFault(func(*api.PipelineOp) opFault {
		sent <- struct{}{}
		return opFault{mute: true}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Get(ctx, key)
		ended <- err
	}()
	<-sent
	for _, n := range c.allNodes() {
		if n.conns[0].small.sweepHome(c.now() + 2*homePatience) {
			t.Errorf("a read is ended at %s", n.addr)
		}
	}
	cancel()
	wantError(t, <-ended, ErrCanceled)
}

// The node that was left is not chosen for having one replica more.
func TestLeftHomeComesLast(t *testing.T) {
	a, b := new(node), new(node)
	top := &topology{nodes: []*node{a, b}, groups: map[keyspace.GroupID]*group{}}
	for i := range 10 {
		g := &group{replicas: []*node{a, b}}
		if i == 0 {
			g.replicas = []*node{a}
		}
		top.groups[keyspace.GroupID(i+1)] = g
	}
	for range 20 {
		if top.chooseHome("", a) != b {
			t.Fatal("the node that was left is chosen again")
		}
		if top.chooseHome("", nil) != a {
			t.Fatal("the node with fewer replicas is chosen")
		}
	}
	top.nodes = []*node{a}
	if top.chooseHome("", a) != a {
		t.Error("no home where the one that was left is alone")
	}
}
