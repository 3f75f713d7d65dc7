package host

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// clocks reads the clocks of groups that n leads.
func (c *cluster) clocks(n *node, groups []keyspace.GroupID, atLeast keyspace.Revision) (at []ScanPoint, latest keyspace.Revision) {
	c.t.Helper()
	var readings []ClockReading
	c.call("the clocks", func() { readings = n.host.Clocks(context.Background(), groups, atLeast) })
	for _, r := range readings {
		if r.Err != nil {
			c.t.Fatal(r.Err)
		}
		latest = max(latest, r.Clock)
		at = append(at, ScanPoint{Group: r.Group, Index: r.Index})
	}
	return at, latest
}

// together reads all pages of several groups.
func (c *cluster) together(n *node, at []ScanPoint, r ScanRequest) (keys []string) {
	c.t.Helper()
	for {
		page, err := n.host.ScanTogether(context.Background(), at, r, func(key []byte, rec *format.Record) {
			if string(rec.Value) != "of "+string(key) {
				c.t.Fatalf("key %q has value %q", key, rec.Value)
			}
			keys = append(keys, string(key))
		})
		if err != nil {
			c.t.Fatal(err)
		}
		if !page.More {
			return keys
		}
		if r.Reverse {
			r.End = page.Next
		} else {
			r.Start = page.Next
		}
	}
}

// A follower serves a revision that is not closed on it once it has applied
// what the leader's reading names, and not before; pages of several groups are
// merged in order.
func TestFollowersServeReadings(t *testing.T) {
	groups := []keyspace.GroupID{testGroup, 2, 3, 4, 5}
	c := newCluster(t, 3, 3, func(c *cluster) { c.more, c.store.SealBytes = groups[1:], 4000 })
	leader, follower := c.nodes[0], c.nodes[1]
	c.pump("the first node leads all", func() bool {
		return !slices.ContainsFunc(groups, func(id keyspace.GroupID) bool {
			g := leader.host.groups[id]
			_, leading := g.core.Leading()
			return !leading || !g.core.Serving(leader.host.now(g))
		})
	})
	c.drop = func(_, to *node, _ *api.GroupMessage) bool { return to == follower }
	put := func(i int) string {
		key := fmt.Sprintf("%03d%s", i*7919%1000, strings.Repeat("\x00", i%2))
		c.pump("the leader has room", func() bool { return !leader.host.opt.Store.Full() })
		answered := false
		r := &replica.Request{Group: groups[i%len(groups)], Ops: []replica.Op{testOp(key, "of "+key)}, Done: func(*replica.Request) { answered = true }}
		leader.host.Submit(context.Background(), r)
		c.pump("the write is answered", func() bool { return answered })
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return key
	}
	var want []string
	for i := range 200 {
		want = append(want, put(i))
	}
	sort.Strings(want)
	_, rev := c.clocks(leader, groups, 0)
	at, _ := c.clocks(leader, groups, rev)
	put(999)

	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if follower.host.Readable(ended, at[0], rev) {
		t.Fatal("a follower that lags is readable")
	}
	_, err := follower.host.ScanTogether(context.Background(), at, ScanRequest{Namespace: keyspace.DefaultNamespace, Revision: rev}, nil)
	if err == nil {
		t.Fatal("a follower that lags was scanned")
	}
	c.drop = nil
	for _, p := range at {
		var readable bool
		c.call("the follower catches up", func() { readable = follower.host.Readable(context.Background(), p, rev) })
		if !readable {
			t.Fatalf("group %d is not readable", p.Group)
		}
	}
	rng := rand.New(rand.NewPCG(1, 1))
	for range 40 {
		r := ScanRequest{Namespace: keyspace.DefaultNamespace, Revision: rev, Reverse: rng.IntN(2) == 0, Limit: 1 + rng.IntN(60)}
		expected := slices.Clone(want)
		if r.Reverse {
			slices.Reverse(expected)
		}
		if got := c.together(follower, at, r); !slices.Equal(got, expected) {
			t.Fatalf("%+v:\n got %q\nwant %q", r, got, expected)
		}
	}
}

// Many keys of a group are read with few allocations, and as Get reads them.
func TestGetEach(t *testing.T) {
	c := newCluster(t, 1, 1)
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprint("key", i))
		c.write(testOp(keys[i], "of "+keys[i]))
	}
	keys = append(keys, "missing")
	n := c.nodes[0]
	p := c.readPoint(n)
	seen := 0
	each := func(i int, rec *format.Record, err error) bool {
		if i < 100 && (err != nil || string(rec.Value) != "of "+keys[i]) || i == 100 && fault.CodeOf(err) != fault.NotFound {
			t.Fatalf("key %d: %v", i, err)
		}
		seen++
		return true
	}
	key := func(i int) string { return keys[i] }
	get := func(n *node, count int) error {
		return n.host.GetEach(context.Background(), p, keyspace.DefaultNamespace, count, key, false, each)
	}
	if err := get(n, len(keys)); err != nil || seen != len(keys) {
		t.Fatalf("%d keys, error %v", seen, err)
	}
	allocations := testing.AllocsPerRun(20, func() {
		if err := get(n, 100); err != nil {
			t.Fatal(err)
		}
	})
	if allocations > 10 {
		t.Fatalf("%v allocations for 100 keys", allocations)
	}
}
