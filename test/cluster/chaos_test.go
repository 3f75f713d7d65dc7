//go:build unix

package cluster

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"kvstore/test/cluster/harness"
)

// TestChaosKill (issue 2): nodes are killed with -9 and started again while a
// separate process writes; every acknowledged write is there at the end, and
// all replicas are equal.
func TestChaosKill(t *testing.T) { chaosKill(t, harness.Options{}, max(3, *chaos), 5000**chaos) }

func chaosKill(t *testing.T, o harness.Options, rounds, writes int) {
	c := harness.Start(t, o)
	w := startWriter(t, c, 16)
	recoveries := newRecoveries(t, c)
	for round := range rounds {
		w.waitFor((round + 1) * writes / rounds)
		victim := pick(t, 3)
		recoveries.measure(victim)
		w.waitMore(100) // while the node is down
		c.Restart(victim)
		c.WaitReady(victim)
	}
	w.stop()
	recoveries.report()
	verifyJournal(t, c, w)
	c.ExpectEqualDigests(3)
}

// pick chooses one of n, and says which.
func pick(t *testing.T, n int) int {
	i := rand.IntN(n)
	t.Logf("node %d", i)
	return i
}

// TestChaosKillAll (issue 2): all nodes are killed at once under load.
func TestChaosKillAll(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	w := startWriter(t, c, 16)
	for range max(2, *chaos/2) {
		w.waitMore(1000)
		for i := range 3 {
			c.Kill(i)
		}
		took := harness.Timed(func() {
			for i := range 3 {
				c.Restart(i)
			}
			c.WaitReady()
		})
		t.Logf("all nodes ready %v after the start", took.Round(time.Millisecond))
		w.waitMore(100)
	}
	w.stop()
	verifyJournal(t, c, w)
	c.ExpectEqualDigests(3)
}

// TestChaosLostDisk (issue 2): a node comes back with an empty directory. It
// gets a new id and is rebuilt; the old id never takes part again, not even
// when the old directory is found again.
func TestChaosLostDisk(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	w := startWriter(t, c, 8)
	for round := range max(1, *chaos/4) {
		w.waitMore(1000)
		loseDisk(t, c, round%3)
		w.waitMore(100)
	}
	w.stop()
	verifyJournal(t, c, w)
	c.ExpectEqualDigests(3)
}

func loseDisk(t *testing.T, c *harness.Cluster, i int) {
	t.Helper()
	before := members(t, c)
	old := before.idOf(t, c, i)
	c.Kill(i)
	n := c.Nodes()[i]
	lost := n.DataDir + ".lost"
	if err := os.Rename(n.DataDir, lost); err != nil {
		t.Fatal(err)
	}
	c.Restart(i)
	took := harness.Timed(func() {
		c.WaitReady(i)
		expectReplaced(t, c, i, old)
		c.ExpectEqualDigests(3)
	})
	t.Logf("node %d is rebuilt %v after the start", i, took.Round(time.Millisecond))
	after := members(t, c)
	now := after.idOf(t, c, i)
	for group, replica := range after.replicas[now] {
		if was := before.highest[group]; replica <= was {
			t.Errorf("group %d: the new node has replica %d, the highest before was %d", group, replica, was)
		}
	}

	// The old disk turns up again: it must stay out.
	c.Kill(i)
	if err := os.Rename(n.DataDir, n.DataDir+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(lost, n.DataDir); err != nil {
		t.Fatal(err)
	}
	c.Restart(i)
	harness.Pass(t, 3*harness.Settle)
	if err := c.Ready(n); err == nil {
		t.Errorf("node %d serves as %s, which was replaced", i, old)
	} else {
		t.Logf("the old directory: %v", err)
	}
	if m := members(t, c, (i+1)%3, (i+2)%3); len(m.replicas[old]) > 0 {
		t.Errorf("the replaced node %s is a member again: %v", old, m.replicas[old])
	}
	c.KillIfRuns(i)
	if err := os.RemoveAll(n.DataDir); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(n.DataDir+".new", n.DataDir); err != nil {
		t.Fatal(err)
	}
	c.Restart(i)
	c.WaitReady(i)
	if got := members(t, c).idOf(t, c, i); got != now {
		t.Errorf("node %d is %s now, was %s", i, got, now)
	}
}

func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	all = slices.Sorted(slices.Values(all))
	return all[min(len(all)-1, int(float64(len(all))*p))]
}
