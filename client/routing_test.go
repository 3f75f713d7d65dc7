package client

import (
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
)

// served counts the operations each node got since the last call.
func (f *fakeCluster) served() (n []int64) {
	for _, node := range f.nodes {
		n = append(n, node.ops.Swap(0))
	}
	return n
}

func TestWritesGoToLeaders(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Endpoints = cfg.Endpoints[2:] })
	for i, n := range f.nodes {
		key := f.keyLedBy(n, "k")
		mustPut(t, c, key, "v")
		wantValue(t, c, key, "v")
		if got := f.served(); got[i] != 2 || got[0]+got[1]+got[2] != 2 {
			t.Fatalf("%s leads, served %v", n.name, got)
		}
	}
}

// S3.4: reads spread over healthy nodes.
func TestReadsSpread(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Zone = "zone-b" })
	key := f.keyLedBy(f.nodes[0], "k")
	mustPut(t, c, key, "v")
	f.served()
	for range 60 {
		wantValue(t, c, key, "v", From(Any))
	}
	for i, n := range f.served() {
		if n < 5 {
			t.Errorf("any: node %d served %d of 60", i, n)
		}
	}
	for range 10 {
		wantValue(t, c, key, "v", From(Nearest))
	}
	if got := f.served(); got[1] != 10 {
		t.Errorf("nearest in zone-b: served %v", got)
	}
	for range 10 {
		wantValue(t, c, key, "v", WithMaxStaleness(time.Second), From(Nearest))
	}
	if got := f.served(); got[1] != 10 {
		t.Errorf("stale and nearest: served %v", got)
	}
}

// A node that is slow has more outstanding calls and gets fewer new ones.
func TestReadsAvoidTheLoadedReplica(t *testing.T) {
	f := newFakeCluster(t, 2)
	c := f.client(nil)
	key := f.keyLedBy(f.nodes[0], "k")
	mustPut(t, c, key, "v")
	hold, held := make(chan struct{}), make(chan struct{}, 1)
	f.nodes[0].setFault(func(*api.PipelineOp) opFault {
		held <- struct{}{}
		return opFault{hold: hold}
	})
	done := make(chan error, 1)
	go func() {
		_, err := c.Get(t.Context(), key)
		done <- err
	}()
	<-held
	f.served()
	for range 20 {
		wantValue(t, c, key, "v", From(Any))
	}
	if got := f.served(); got[1] != 20 {
		t.Errorf("served %v", got)
	}
	close(hold)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func wrongLeader(leader *fakeNode) func(*api.PipelineOp) opFault {
	return func(*api.PipelineOp) opFault {
		s := statusOf(CodeWrongLeader)
		if leader != nil {
			s.LeaderNode = "id-" + leader.name
		}
		return opFault{status: s}
	}
}

func TestWrongLeaderHintIsFollowed(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.RefreshInterval = time.Hour })
	key := f.keyLedBy(f.nodes[0], "k")
	f.nodes[0].setFault(wrongLeader(f.nodes[2]))
	f.move(f.nodes[0], f.nodes[2])
	mustPut(t, c, key, "1")
	mustPut(t, c, key, "2")
	if got := f.served(); got[0] != 1 || got[2] != 2 {
		t.Fatalf("served %v", got)
	}
	if n := f.executions(key); n != 2 {
		t.Fatalf("executed %d times", n)
	}
}

func TestWrongLeaderWithoutHintGoesElsewhere(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	key := f.keyLedBy(f.nodes[1], "k")
	f.nodes[1].setFault(wrongLeader(nil))
	mustPut(t, c, key, "v")
	if got := f.served(); got[1] == 0 || got[0]+got[2] == 0 {
		t.Fatalf("served %v", got)
	}
}

func TestTopologyIsRefreshed(t *testing.T) {
	f := newFakeCluster(t, 2)
	c := f.client(func(cfg *Config) { cfg.RefreshInterval = 5 * time.Millisecond })
	key := f.keyLedBy(f.nodes[0], "k")
	f.move(f.nodes[0], f.nodes[1])
	for f.served(); ; {
		mustPut(t, c, key, "v")
		if got := f.served(); got[1] == 1 {
			return
		}
	}
}

// A node that joins is used, one that leaves is closed.
func TestNodesJoinAndLeave(t *testing.T) {
	f := newFakeCluster(t, 2)
	c := f.client(func(cfg *Config) { cfg.RefreshInterval = 5 * time.Millisecond; cfg.Endpoints = cfg.Endpoints[:1] })
	leaving := f.nodes[1]
	joining := &fakeNode{cluster: f, name: "node-z"}
	joining.start("")
	t.Cleanup(joining.stop)
	key := f.keyLedBy(leaving, "k")
	mustPut(t, c, key, "v")
	f.mu.Lock()
	f.nodes[1] = joining
	f.mu.Unlock()
	for joining.ops.Load() == 0 {
		mustPut(t, c, key, "v")
	}
	for {
		c.mu.Lock()
		gone := len(c.nodes) == 2 && len(c.retired) == 0
		c.mu.Unlock()
		if gone {
			break
		}
		mustPut(t, c, key, "v")
	}
	leaving.srv.GracefulStop() // returns only when no stream is left
}

// S0.3: behind a balancer only the given endpoints are reachable.
func TestGatewayKeepsToItsEndpoints(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(func(cfg *Config) { cfg.Gateway = true; cfg.Endpoints = cfg.Endpoints[:1] })
	for _, n := range f.nodes {
		mustPut(t, c, f.keyLedBy(n, "k"), "v")
	}
	if got := f.served(); got[0] != 3 {
		t.Fatalf("served %v", got)
	}
}

func TestUnreachableAddressesFallBackToEndpoints(t *testing.T) {
	f := newFakeCluster(t, 2)
	c := f.client(func(cfg *Config) { cfg.Endpoints = cfg.Endpoints[:1] })
	f.nodes[1].stop()
	mustPut(t, c, f.keyLedBy(f.nodes[1], "k"), "v")
	wantValue(t, c, f.keyLedBy(f.nodes[1], "k"), "v", From(Any))
}

func TestConnectionsAreShared(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(func(cfg *Config) { cfg.ConnsPerNode = 3 })
	for range 9 {
		mustPut(t, c, "k", "v")
	}
	used := 0
	for _, nc := range c.seeds[0].conns {
		if nc.small.takenFrame > 0 {
			used++
		}
	}
	if used != 3 {
		t.Fatalf("%d of 3 connections used", used)
	}
}
