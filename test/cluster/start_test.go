//go:build unix

package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// TestChaosBootstrap: first members that are killed in the middle of founding
// the cluster, again and again, found one cluster in the end.
func TestChaosBootstrap(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	for round := range *chaos {
		for i, n := range c.Nodes() {
			c.KillIfRuns(i)
			if err := os.RemoveAll(n.DataDir); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			c.Restart(i)
		}
		for range 6 {
			harness.Pass(t, time.Duration(rand.IntN(400))*time.Millisecond)
			victim := rand.IntN(3)
			c.KillIfRuns(victim)
			c.Restart(victim)
		}
		c.WaitReady()
		ids := map[string]bool{}
		for i := range 3 {
			ids[clusterID(t, c, i)] = true
		}
		if len(ids) != 1 {
			t.Fatalf("round %d: clusters %v", round, ids)
		}
		everyNodeAnswers(t, c, 3)
		c.ExpectEqualDigests(3)
	}
}

func clusterID(t *testing.T, c *harness.Cluster, i int) string {
	t.Helper()
	cl := c.Client(client.Config{Endpoints: []string{c.Nodes()[i].GRPC}, Gateway: true})
	defer func() { _ = cl.Close() }()
	s, err := cl.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.GetClusterId()
}

// TestNoQuorum: without a majority nothing is acknowledged and nothing hangs;
// the node says that it cannot serve, and serves again with one more.
func TestNoQuorum(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	c.MustCtl("put", "k", "before")
	c.Kill(1)
	c.Kill(2)
	left := c.Nodes()[0]
	harness.Eventually(t, func() error {
		if c.Ready(left) == nil {
			return fmt.Errorf("%s says that it is ready", left.Name)
		}
		return nil
	})
	if status, body, err := c.Get(left, "/healthz"); err != nil || status != http.StatusOK {
		t.Errorf("/healthz: %d %s, %v", status, body, err)
	}
	cl := c.Client(client.Config{Endpoints: []string{left.GRPC}, Gateway: true})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := cl.Put(ctx, "k", []byte("alone")); err == nil {
		t.Error("one of three nodes acknowledged a write")
	} else if took := harness.Timed(func() { _, err = cl.Get(ctx, "k") }); err == nil || took > 10*time.Second {
		t.Errorf("a linearizable read on one of three nodes: %v, after %v", err, took)
	}
	status, body, err := c.Get(left, "/api/v1/keys/k?timeout_ms=1000")
	if err != nil || status/100 != 5 || !strings.Contains(body, `"code":"`) {
		t.Errorf("GET without a quorum: %d %s, %v", status, body, err)
	}
	c.Restart(1)
	c.WaitReady(0, 1)
	if got := c.MustCtl("get", "k"); got != "before" && got != "alone" {
		t.Errorf("k is %q", got)
	}
	c.Restart(2)
	c.WaitReady()
	everyNodeAnswers(t, c, 3)
}

// TestStopByHand: a node that is asked to stop ends with 0, and loses nothing.
func TestStopByHand(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Nodes: 1})
	c.Kill(0)
	for i := range 3 {
		c.Restart(0)
		c.WaitReady(0)
		if i > 0 {
			if got := c.MustCtl("get", "n"); got != fmt.Sprint(i-1) {
				t.Errorf("n is %q, want %d", got, i-1)
			}
		}
		c.MustCtl("put", "n", fmt.Sprint(i))
		if code := c.StopNode(0, syscall.SIGTERM); code != 0 {
			t.Errorf("exit code %d after SIGTERM", code)
		}
	}
}
