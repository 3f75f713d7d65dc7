//go:build unix

package cluster

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"kvstore/test/cluster/harness"
)

// The procedures of docs/operations.md, on one cluster: each ends as it says,
// and all keys are there.
func TestOperations(t *testing.T) {
	t.Parallel()
	// Whoever leads group 0 decides soon who is dead.
	c := harness.Start(t, harness.Options{Nodes: 1, Env: []string{"KVSTORE_CLUSTER_REPLACE_AFTER=3s"}})
	first := c.Nodes()[0]
	w := startPacedWriter(t, c, 4, 10*time.Millisecond)
	w.waitMore(500)
	quick := []string{"--cluster.replace_after", "3s"}
	members := map[string]*harness.Member{"m2": c.Join("m2", first.Peer, append(quick, "--node.leader_priority", "5")...)}
	for _, name := range []string{"m3", "m4", "m5"} {
		members[name] = c.Join(name, first.Peer, quick...)
	}
	waitSpread(t, c, first.Name, "m2", "m3", "m4", "m5")
	leadsAll(t, c, "m2")

	c.MustCtl("cluster", "set", "--replication-factor", "1", "--wait")
	copies(t, c, 1)
	c.MustCtl("cluster", "set", "--replication-factor", "3", "--wait")
	copies(t, c, 3)
	w.waitMore(200)

	t.Run("a dead node is replaced, and comes back", func(t *testing.T) {
		members["m4"].Kill()
		harness.Eventually(t, func() error { return holds(c, "m4", 0) })
		w.waitMore(200)
		members["m4"].Start()
		waitSpread(t, c, first.Name, "m2", "m3", "m4", "m5")
	})
	t.Run("a node moves to another address", func(t *testing.T) {
		members["m3"].Kill()
		members["m3"].Move()
		members["m3"].Start()
		harness.Eventually(t, func() error {
			if out := c.MustCtl("cluster", "members", "-o", "yaml"); !strings.Contains(out, "address: "+members["m3"].Peer) {
				return fmt.Errorf("m3 is at %s, members are\n%s", members["m3"].Peer, out)
			}
			return nil
		})
		waitSpread(t, c, first.Name, "m2", "m3", "m4", "m5")
	})
	t.Run("moves are cancelled, paused and go on", func(t *testing.T) {
		c.MustCtl("balance", "pause")
		c.MustCtl("node", "drain", "m5")
		w.waitMore(200)
		if err := holds(c, "m5", 0); err == nil {
			t.Error("m5 is empty while moves are paused")
		}
		c.MustCtl("balance", "resume")
		harness.Eventually(t, func() error { return holds(c, "m5", 0) })
		c.MustCtl("node", "drain", "m5", "--undo", "--wait")
		waitSpread(t, c, first.Name, "m2", "m3", "m4", "m5")
		c.MustCtl("balance", "cancel", "1")
		if out := c.MustCtl("cluster", "status"); !strings.Contains(out, "held") {
			t.Errorf("no group is held:\n%s", out)
		}
		c.MustCtl("balance", "release", "1")
	})
	t.Run("one node takes another's place", func(t *testing.T) {
		c.MustCtl("node", "replace", "m5", "--with", "m4", "--wait")
		c.MustCtl("node", "remove", "m5")
		members["m5"].Kill()
		members["m5"].Start()
		harness.Eventually(t, func() error {
			log := members["m5"].Log()
			if !strings.Contains(log, "this node was removed from the cluster") {
				return fmt.Errorf("m5 does not say that it was removed")
			}
			return nil
		})
	})
	t.Run("refusals say why", func(t *testing.T) {
		for _, r := range []struct {
			args []string
			want string
		}{
			{[]string{"node", "remove", "m2"}, "drain it first"},
			{[]string{"node", "remove", "m2", "--force"}, "is running"},
			{[]string{"node", "drain", "nobody"}, "no member of the cluster has this name"},
			{[]string{"node", "replace", "m2", "--with", "m2"}, "cannot replace itself"},
			{[]string{"cluster", "set", "--replication-factor", "2"}, "1, 3 or 5"},
			{[]string{"balance", "set", "--max-moves", "1000"}, "limit=64"},
			{[]string{"balance", "cancel", "77"}, "no such group"},
		} {
			if got := c.Ctl(r.args...); got.Code == 0 || !strings.Contains(got.ErrOut, r.want) {
				t.Errorf("%v: %v, want %q", r.args, got, r.want)
			}
		}
	})
	w.stop()
	verifyJournal(t, c, w)
	c.ExpectEqualDigests(3)
}

// waitSpread waits until these nodes belong to the cluster, each holds what it
// should, and nothing moves.
func waitSpread(t *testing.T, c *harness.Cluster, names ...string) {
	t.Helper()
	harness.Eventually(t, func() error {
		s, err := c.Shape()
		if err != nil {
			return err
		}
		var have []string
		for _, n := range s.Nodes {
			have = append(have, n.Name)
			if n.Replicas != n.Target || n.Replicas == 0 || n.SilentMS > 0 {
				return fmt.Errorf("not at rest: %+v", s)
			}
		}
		slices.Sort(names)
		if slices.Sort(have); !slices.Equal(have, names) || len(s.Moves)+len(s.SlotMoves) > 0 || len(s.Groups) < s.GroupsWanted {
			return fmt.Errorf("nodes %v, want %v, %d moves, %d moves of slots, %d groups of %d",
				have, names, len(s.Moves), len(s.SlotMoves), len(s.Groups), s.GroupsWanted)
		}
		return nil
	})
}

// leadsAll waits until a node leads every group it holds.
func leadsAll(t *testing.T, c *harness.Cluster, name string) {
	t.Helper()
	harness.Eventually(t, func() error {
		s, err := c.Shape()
		for _, n := range s.Nodes {
			if n.Name == name && (n.Leads < n.Replicas || n.Replicas == 0) {
				return fmt.Errorf("%s has the highest priority and leads %d of %d", name, n.Leads, n.Replicas)
			}
		}
		return err
	})
}

// copies expects every group, that of the metadata too, to have so many.
func copies(t *testing.T, c *harness.Cluster, want int) {
	t.Helper()
	var s harness.Shape
	harness.Eventually(t, func() (err error) { // a node that was silent for a while is replaced
		if s, err = c.Shape(); err == nil && len(s.Moves) > 0 {
			err = fmt.Errorf("a group moves: %+v", s)
		}
		return err
	})
	sum := 0
	for _, n := range s.Nodes {
		sum += n.Replicas
	}
	if groups := len(s.Groups) + 1; s.ReplicationFactor != want || sum != groups*want {
		t.Fatalf("%d copies of %d groups: %+v", want, groups, s)
	}
}

func holds(c *harness.Cluster, name string, want int) error {
	s, err := c.Shape()
	for _, n := range s.Nodes {
		if n.Name == name && n.Replicas+n.Leads != want {
			return fmt.Errorf("%s: %+v", name, n)
		}
	}
	return err
}
