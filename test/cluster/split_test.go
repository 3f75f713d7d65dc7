//go:build unix

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"kvstore/client"
	"kvstore/internal/dev"
	"kvstore/test/cluster/harness"
)

const (
	splitKeys  = 2000
	splitBytes = 1024
)

// TestSplit: two nodes join three, and the groups become five without an
// operator: slots move to the new groups under load, while the leader of a
// receiver and that of a sender are killed by SIGKILL. Histories are linearizable
// over the moves, lists meanwhile return every key once, and at the end slots and
// leaders are spread and the replicas of every group are equal.
func TestSplit(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Nodes: 3})
	cl := c.Client(client.Config{})
	putSplitKeys(t, cl)
	// Slow copies, so that there is a middle to be killed in.
	c.MustCtl("balance", "set", "--copy-rate", "100KB")
	r := startRegisters(t, c)
	lists := watchLists(t, cl)
	members := map[string]*harness.Member{}
	names := []string{}
	for _, n := range c.Nodes() {
		names = append(names, n.Name)
	}
	for _, name := range []string{"m4", "m5"} {
		members[name] = c.Join(name, c.Nodes()[0].Peer)
		names = append(names, name)
	}
	move := waitCopying(t, c)
	killLeader(t, c, members, move.To)
	if move, ok := copying(t, c); ok {
		killLeader(t, c, members, move.From)
	}
	harness.Eventually(t, func() error { // the metadata may have been on both of those killed
		if r := c.Ctl("balance", "set", "--copy-rate", "64MB"); r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		return nil
	})
	c.WaitBalanced(slices.Clone(names)...)
	lists.end()
	r.check()
	checkSplitKeys(t, cl)
	c.ExpectEqualDigests(3)
	t.Logf("%d lists while slots moved\n%s", lists.count.Load(), c.MustCtl("slots"))
}

func splitKey(i int) string { return fmt.Sprintf("split/%06d", i) }

func splitValue(i int) []byte { return fmt.Appendf(nil, "%0*d", splitBytes, i) }

func putSplitKeys(t *testing.T, cl *client.Client) {
	t.Helper()
	for first := 0; first < splitKeys; first += 500 {
		var items []client.PutItem
		for i := first; i < first+500; i++ {
			items = append(items, client.PutItem{Key: splitKey(i), Value: splitValue(i)})
		}
		results, err := cl.BatchPut(t.Context(), items)
		if err != nil {
			t.Fatal(err)
		}
		for i, res := range results {
			if res.Err != nil {
				t.Fatalf("key %d: %v", first+i, res.Err)
			}
		}
	}
}

func checkSplitKeys(t *testing.T, cl *client.Client) {
	t.Helper()
	for i := range splitKeys {
		rec, err := cl.Get(t.Context(), splitKey(i))
		if err != nil || string(rec.Value) != string(splitValue(i)) {
			t.Fatalf("key %d: %d bytes, %v", i, len(rec.Value), err)
		}
	}
}

// lists reads all keys over and over.
type lists struct {
	stop  context.CancelFunc
	wg    sync.WaitGroup
	count atomic.Int64
}

func watchLists(t *testing.T, cl *client.Client) *lists {
	ctx, stop := context.WithCancel(t.Context())
	l := &lists{stop: stop}
	l.wg.Go(func() {
		for ctx.Err() == nil {
			if err := listOnce(ctx, cl); err == nil {
				l.count.Add(1)
			} else if errors.Is(err, errBadList) {
				t.Error(err)
				return
			}
		}
	})
	t.Cleanup(l.end)
	return l
}

func (l *lists) end() { l.stop(); l.wg.Wait() }

var errBadList = errors.New("a list is wrong")

// listOnce fails with errBadList when a list ends well and has not every key
// once; a list that does not end is tried again.
func listOnce(ctx context.Context, cl *client.Client) error {
	next, before := 0, uint64(0)
	for rec, err := range cl.Scan(ctx, client.WithPrefix("split/"), client.KeysOnly()) {
		if err != nil {
			return err
		}
		if rec.Key != splitKey(next) {
			return fmt.Errorf("%w: key %q (revision %d, version %d) instead of %q, the one before was of revision %d", errBadList, rec.Key, rec.Revision, rec.Version, splitKey(next), before)
		}
		before = rec.Revision
		next++
	}
	if next != splitKeys {
		return fmt.Errorf("%w: %d keys, want %d", errBadList, next, splitKeys)
	}
	return nil
}

// slotsShape is what `kvctl slots -o json` says.
type slotsShape struct {
	Groups []slotsGroup `json:"groups"`
	Moves  []slotMove   `json:"moves"`
}

type slotsGroup struct {
	Group uint32 `json:"group"`
	Count int    `json:"count"`
}

type slotMove struct {
	From   uint32 `json:"from"`
	To     uint32 `json:"to"`
	Step   string `json:"step"`
	Copied uint64 `json:"copied_bytes"`
}

func slotsOf(c *harness.Cluster) (s slotsShape, err error) {
	r := c.Ctl("slots", "-o", "json")
	if r.Code != 0 {
		return s, fmt.Errorf("kvctl slots: %v", r)
	}
	return s, json.Unmarshal([]byte(r.Out), &s)
}

// copying is a move of which something is copied, if there is one.
func copying(t *testing.T, c *harness.Cluster) (slotMove, bool) {
	t.Helper()
	s, err := slotsOf(c)
	if err != nil {
		return slotMove{}, false
	}
	at := slices.IndexFunc(s.Moves, func(m slotMove) bool { return m.Copied > 0 })
	if at < 0 {
		return slotMove{}, false
	}
	return s.Moves[at], true
}

func waitCopying(t *testing.T, c *harness.Cluster) (move slotMove) {
	t.Helper()
	harness.Eventually(t, func() error {
		var ok bool
		if move, ok = copying(t, c); !ok {
			return errors.New("no slots are copied yet")
		}
		return nil
	})
	return move
}

// killLeader kills the node that leads a group, and starts it again after others
// were elected.
func killLeader(t *testing.T, c *harness.Cluster, members map[string]*harness.Member, group uint32) {
	t.Helper()
	name := leaderOf(t, c, group)
	t.Logf("killing %s, which leads group %d", name, group)
	if m := members[name]; m != nil {
		m.Kill()
		harness.Pass(t, 2*harness.Settle)
		m.Start()
		return
	}
	i := slices.IndexFunc(c.Nodes(), func(n dev.Node) bool { return n.Name == name })
	c.Kill(i)
	harness.Pass(t, 2*harness.Settle)
	c.Restart(i)
}

func leaderOf(t *testing.T, c *harness.Cluster, group uint32) (name string) {
	t.Helper()
	harness.Eventually(t, func() error {
		r := c.Ctl("status", "-o", "json")
		var s struct {
			Groups []struct {
				Group  uint32 `json:"group"`
				Leader string `json:"leader"`
			} `json:"groups"`
		}
		if err := json.Unmarshal([]byte(r.Out), &s); err != nil {
			return fmt.Errorf("kvctl status: %v: %w", r, err)
		}
		for _, g := range s.Groups {
			if g.Group == group {
				name = g.Leader
			}
		}
		if name == "" {
			return fmt.Errorf("group %d has no leader", group)
		}
		return nil
	})
	return name
}
