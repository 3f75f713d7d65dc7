package client

import (
	"context"
	"slices"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
)

// aged is a client that looks at the topology only when something tells it to.
func (f *fakeCluster) aged() *Client {
	return f.client(func(cfg *Config) {
		cfg.RefreshInterval, cfg.RetryBase, cfg.RetryMax = time.Hour, 10*time.Second, 10*time.Second
	})
}

// A group that does not own a key makes the client look at the topology, and
// go on by the new one as soon as it is there: the backoff alone is longer than
// the operations may take. No operation happens twice.
func TestWrongGroupFollowsTheNewMap(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.aged()
	f.moveSlots(f.nodes...)
	moved, stayed := f.keysOf(true, 8), f.keysOf(false, 8)
	f.served()
	mustPut(t, c, moved[0], "v")
	if got := f.served(); got[0] != 1 || got[1] != 1 {
		t.Errorf("served %v, want one refusal and one write", got)
	}
	wantValue(t, c, moved[0], "v")
	if got := f.served(); got[0] != 0 || got[1] != 1 {
		t.Errorf("served %v after the new map", got)
	}
	if n := f.executions(moved[0]); n != 1 {
		t.Errorf("executed %d times", n)
	}
	mustPut(t, c, stayed[0], "v")
	if _, err := c.Delete(t.Context(), moved[0]); err != nil {
		t.Error(err)
	}
}

// Items of a batch that their group does not own are split anew.
func TestBatchFollowsTheNewMap(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.aged()
	f.moveSlots(f.nodes...)
	keys := slices.Concat(f.keysOf(true, 40), f.keysOf(false, 40))
	items := make([]PutItem, len(keys))
	for i, k := range keys {
		items[i] = PutItem{Key: k, Value: []byte("v of " + k)}
	}
	results, err := c.BatchPut(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		if results[i].Err != nil || f.executions(k) != 1 {
			t.Errorf("%s: %v, executed %d times", k, results[i].Err, f.executions(k))
		}
	}
	fresh := f.aged() // it has read the topology after the move
	stale := f.aged()
	stale.topo.Store(c.withoutMove())
	for _, c := range []*Client{fresh, stale} {
		got, err := c.BatchGet(t.Context(), keys)
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range keys {
			if string(got[i].Record.Value) != "v of "+k {
				t.Errorf("%s: %q", k, got[i].Record.Value)
			}
		}
	}
}

// withoutMove is the client's topology as it was before the slots moved.
func (c *Client) withoutMove() *topology {
	t := *c.topology()
	t.epoch, t.replaced, t.slots = t.epoch-1, make(chan struct{}), slices.Clone(t.slots)
	for slot := range t.slots {
		t.slots[slot] = t.groups[1]
		if g := groupOfSlot(slot); g > 1 {
			t.slots[slot] = c.topology().slots[slot]
		}
	}
	return &t
}

// Nodes learn of a move one after the other; the client asks until one knows.
func TestWrongGroupAsksUntilANodeKnows(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.aged()
	f.moveSlots()
	key := f.keysOf(true, 1)[0]
	asked := 0
	for _, n := range f.nodes {
		n.setRefuse(func(_ context.Context, method string) error {
			if method == api.KVStore_Topology_FullMethodName {
				f.mu.Lock()
				defer f.mu.Unlock()
				if asked++; asked == 4 {
					for _, n := range f.nodes {
						f.said[n] = true
					}
				}
			}
			return nil
		})
	}
	f.served()
	mustPut(t, c, key, "v")
	if got := f.served(); got[0] != 1 || got[1] != 1 {
		t.Errorf("served %v: the old way was gone again", got)
	}
	// One more node is asked beside each that is slow to answer.
	if asked < 4 || asked > 8 {
		t.Errorf("%d topologies", asked)
	}
}

// A map that never comes ends with the deadline and the reason.
func TestWrongGroupEnds(t *testing.T) {
	f := newFakeCluster(t, 2)
	c := f.client(func(cfg *Config) {
		cfg.RetryBase, cfg.RetryMax, cfg.Timeout = time.Millisecond, 5*time.Millisecond, 300*time.Millisecond
	})
	f.moveSlots()
	_, err := c.Put(t.Context(), f.keysOf(true, 1)[0], []byte("v"))
	wantError(t, err, ErrWrongGroup)
	if got := f.served(); got[0] > 20 {
		t.Errorf("served %v within 300 ms", got)
	}
	_, err = c.BatchPut(t.Context(), []PutItem{{Key: f.keysOf(true, 1)[0]}})
	if CodeOf(err) == "" {
		t.Error("the batch succeeded")
	}
}
