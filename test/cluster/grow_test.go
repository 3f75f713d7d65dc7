//go:build unix

package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// TestChaosGrow: a cluster goes from one node to three, five, with -chaos also
// seven, and back to three under load, and at every size a node is killed by
// SIGKILL and started again. Histories are linearizable, placement is balanced at every size, and no
// key is away for longer than elections take (the figures are printed).
func TestChaosGrow(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Nodes: 1})
	first := c.Nodes()[0]
	r := startRegisters(t, c)
	away := watchAbsences(t, c)
	members := map[string]*harness.Member{}
	names := []string{first.Name}
	join := func(add ...string) {
		t.Helper()
		for _, name := range add {
			members[name] = c.Join(name, first.Peer)
		}
		names = append(names, add...)
		c.WaitBalanced(slices.Clone(names)...)
	}
	killOne := func() {
		t.Helper()
		name := leaderAmong(t, c, members)
		members[name].Kill()
		harness.Pass(t, 2*harness.Settle) // its groups elect others meanwhile
		members[name].Start()
		c.WaitBalanced(slices.Clone(names)...)
	}
	join("m2", "m3")
	killOne()
	join("m4", "m5")
	killOne()
	leave := []string{"m2", "m5"}
	if *chaos > 1 {
		join("m6", "m7")
		killOne()
		leave = append(leave, "m7", "m4")
	}
	for _, gone := range leave {
		c.MustCtl("node", "drain", gone, "--wait")
		c.MustCtl("node", "remove", gone)
		members[gone].Kill()
		names = slices.DeleteFunc(names, func(n string) bool { return n == gone })
	}
	c.WaitBalanced(slices.Clone(names)...)
	away.report()
	r.check()
	c.ExpectEqualDigests(3)
}

// leaderAmong draws a member that leads something.
func leaderAmong(t *testing.T, c *harness.Cluster, members map[string]*harness.Member) string {
	t.Helper()
	var leaders []string
	harness.Eventually(t, func() error {
		s, err := c.Shape()
		leaders = nil
		for _, n := range s.Nodes {
			if n.Leads > 0 && members[n.Name] != nil {
				leaders = append(leaders, n.Name)
			}
		}
		if err == nil && len(leaders) == 0 {
			err = fmt.Errorf("no member leads: %+v", s)
		}
		return err
	})
	name := leaders[pick(t, len(leaders))]
	t.Logf("killing %s of\n%s", name, c.MustCtl("status"))
	return name
}

// absences measures for how long keys could not be written.
type absences struct {
	t    *testing.T
	stop context.CancelFunc
	wg   sync.WaitGroup
	mu   sync.Mutex
	all  []time.Duration // from one acknowledged write of a key to the next
}

// watchedKeys are enough to meet every group.
const watchedKeys = 16

func watchAbsences(t *testing.T, c *harness.Cluster) *absences {
	ctx, stop := context.WithCancel(t.Context())
	g := &absences{t: t, stop: stop}
	cl := c.Client(client.Config{})
	for k := range watchedKeys {
		g.wg.Go(func() { g.watch(ctx, cl, fmt.Sprintf("gap/%d", k)) })
	}
	t.Cleanup(g.end)
	return g
}

func (g *absences) end() { g.stop(); g.wg.Wait() }

func (g *absences) watch(ctx context.Context, cl *client.Client, key string) {
	pace := time.NewTicker(20 * time.Millisecond)
	defer pace.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		if _, err := cl.Put(ctx, key, []byte("x")); err != nil {
			continue
		}
		g.mu.Lock()
		g.all = append(g.all, time.Since(last))
		g.mu.Unlock()
		last = time.Now()
	}
}

// report prints how long keys were away. A gap counts from a tenth of a second
// on: below, it is the pace and a busy machine.
func (g *absences) report() {
	g.t.Helper()
	g.end()
	slices.Sort(g.all)
	away := g.all[max(0, slices.IndexFunc(g.all, func(d time.Duration) bool { return d >= 100*time.Millisecond })):]
	g.t.Logf("%d writes of %d keys; %d times a key was away for 100 ms and more: p50 %v, p99 %v, most %v", len(g.all), watchedKeys,
		len(away), at(away, 0.5), at(away, 0.99), away[len(away)-1])
	if most := away[len(away)-1]; most > harness.Patience {
		g.t.Errorf("a key was away for %v", most)
	}
}

func at(sorted []time.Duration, q float64) time.Duration {
	return sorted[int(q*float64(len(sorted)-1))].Round(time.Millisecond)
}
