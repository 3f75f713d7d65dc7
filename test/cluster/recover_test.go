//go:build unix

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/internal/ctl/recovery"
	"kvstore/test/cluster/harness"
)

const recoveredKeys = 40

// destroy kills nodes for good; their data is gone, or moved to where the
// returned directories are.
func destroy(t *testing.T, c *harness.Cluster, nodes ...int) (moved map[int]string) {
	t.Helper()
	moved = map[int]string{}
	for _, i := range nodes {
		c.KillIfRuns(i)
		moved[i] = filepath.Join(t.TempDir(), "old")
		if err := os.Rename(c.Nodes()[i].DataDir, moved[i]); err != nil {
			t.Fatal(err)
		}
	}
	return moved
}

func putAll(t *testing.T, c *harness.Cluster, nodes ...int) *client.Client {
	t.Helper()
	var endpoints []string
	for _, i := range nodes {
		endpoints = append(endpoints, c.Nodes()[i].GRPC)
	}
	cl := c.Client(client.Config{Endpoints: endpoints, Gateway: true})
	for i := range recoveredKeys {
		retryUnavailable(t, func() error {
			_, err := cl.Put(t.Context(), fmt.Sprint("recover/", i), fmt.Append(nil, "value ", i))
			return err
		})
	}
	return cl
}

// planOf waits until the plan has no group of whose leader a survivor still
// thinks that it lives, and returns it.
func planOf(t *testing.T, c *harness.Cluster, i int) (p recovery.Plan) {
	t.Helper()
	harness.Eventually(t, func() error {
		p = recovery.Plan{}
		r := c.Ctl("cluster", "recover", "-e", c.Nodes()[i].GRPC, "--dry-run", "-o", "json")
		if r.Code != 0 {
			return fmt.Errorf("%v", r)
		}
		if err := json.Unmarshal([]byte(r.Out), &p); err != nil {
			return err
		}
		if p.Waiting || p.Count(recovery.Lost) == 0 {
			return fmt.Errorf("nothing is lost yet: %+v", p)
		}
		return nil
	})
	return p
}

func expectKeys(t *testing.T, c *harness.Cluster, nodes ...int) {
	t.Helper()
	for _, n := range nodes {
		cl := c.Client(client.Config{Endpoints: []string{c.Nodes()[n].GRPC}, Gateway: true})
		for i := range recoveredKeys {
			harness.Eventually(t, func() error {
				rec, err := cl.Get(t.Context(), fmt.Sprint("recover/", i))
				if errors.Is(err, client.ErrNotFound) {
					t.Fatalf("key %d is not found on node %d", i, n)
				}
				if err == nil && string(rec.Value) != fmt.Sprint("value ", i) {
					t.Fatalf("key %d is %q", i, rec.Value)
				}
				return err
			})
		}
	}
}

// TestRecover (G6): two of three disks are gone. The survivor goes on with all
// that it has; the old nodes are refused, wiped ones join.
func TestRecover(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	putAll(t, c, 0)
	survivor := c.Nodes()[0].GRPC
	if out := c.MustCtl("cluster", "recover", "-e", survivor, "--yes"); !strings.Contains(out, "nothing is to be done") {
		t.Fatalf("a healthy cluster: %s", out)
	}
	connectedNodesAreNotLeftOut(t, c)
	c.ExpectEqualDigests(3) // the survivor has all that was acknowledged
	old := destroy(t, c, 1, 2)
	p := planOf(t, c, 0)
	if p.Epoch != 1 || p.Count(recovery.Lost) != len(p.Groups) || len(p.Nodes) != 3 {
		t.Fatalf("plan %+v", p)
	}
	for _, g := range p.Groups {
		if g.Survivor.Node != "n1" || g.LossNone || g.LossFrom > p.At || g.LeaderHeard == 0 {
			t.Fatalf("group %+v", g)
		}
	}
	// Without --yes nothing happens.
	// The context names all nodes, lost ones too: those that answer are asked.
	if r := c.Ctl("cluster", "recover"); r.Code != 0 || !strings.Contains(r.ErrOut, "does not answer") || !strings.Contains(r.Out, "is removed for good") {
		t.Fatalf("with the endpoints of the context: %v", r)
	}
	if r := c.Ctl("cluster", "recover", "-e", survivor); r.Code != 0 || !strings.Contains(r.ErrOut, "nothing was changed") || !strings.Contains(r.Out, "is removed for good") {
		t.Fatalf("dry run: %v", r)
	}
	if again := planOf(t, c, 0); again.Resumes || again.Groups[0].Survivor.Replica != p.Groups[0].Survivor.Replica {
		t.Fatalf("a dry run changed something: %+v", again)
	}
	c.MustCtl("cluster", "recover", "-e", survivor, "--yes")
	c.WaitReady(0)
	expectKeys(t, c, 0)
	c.ExpectEqualDigests(1)
	c.MustCtl("put", "-e", survivor, "after", "recovery")
	expectEpoch(t, c, 1)
	if out := c.MustCtl("cluster", "recover", "-e", survivor, "--yes"); !strings.Contains(out, "nothing is to be done") {
		t.Fatalf("after the recovery: %s", out)
	}
	c.Kill(0)
	c.Restart(0)
	c.WaitReady(0)
	expectKeys(t, c, 0)

	oldNodesAreRefused(t, c, old)
	wipedNodesJoin(t, c)
	expectKeys(t, c, 0, 1, 2)
	if got := strings.TrimSpace(c.MustCtl("get", "-e", c.Nodes()[1].GRPC, "after")); got != "recovery" {
		t.Errorf("after is %q", got)
	}
}

// expectEpoch: the survivor, its metadata and its metrics say the recovery's epoch.
func expectEpoch(t *testing.T, c *harness.Cluster, epoch int) {
	t.Helper()
	for _, command := range [][]string{{"status"}, {"cluster", "status"}} {
		out := c.MustCtl(append(command, "-e", c.Nodes()[0].GRPC, "-o", "yaml")...)
		if !strings.Contains(out, fmt.Sprint("recovery_epoch: ", epoch, "\n")) {
			t.Errorf("kvctl %v does not say epoch %d:\n%s", command, epoch, out)
		}
	}
	if page, err := c.Metrics(0); err != nil || !strings.Contains(page, fmt.Sprint("\nkvstore_recovery_epoch ", epoch, "\n")) {
		t.Errorf("metrics do not say epoch %d: %v", epoch, err)
	}
}

// connectedNodesAreNotLeftOut: a step that no plan contains is refused.
func connectedNodesAreNotLeftOut(t *testing.T, c *harness.Cluster) {
	t.Helper()
	cl := c.Client(client.Config{Endpoints: []string{c.Nodes()[0].GRPC}, Gateway: true})
	nodes, err := cl.RecoverPlan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range []*api.RecoverRequest{
		{Step: api.RecoverRequest_FENCE, Epoch: 1, Survivors: []string{nodes[0].GetNodeId()}},
		{Step: api.RecoverRequest_ADOPT, Epoch: 1, Replica: nodes[0].GetReplicas()[0].GetReplica()},
		{Step: api.RecoverRequest_DISCARD, Epoch: 0, Replica: nodes[0].GetReplicas()[0].GetReplica()},
	} {
		q.NodeId, q.ClusterId = nodes[0].GetNodeId(), nodes[0].GetClusterId()
		if _, err := cl.Recover(t.Context(), q); client.CodeOf(err) != client.CodeFailedPrecondition {
			t.Fatalf("%v of a healthy cluster: %v", q.GetStep(), err)
		}
	}
}

// oldNodesAreRefused puts the old data back, of both nodes at once: they are a
// quorum of the cluster before the recovery.
func oldNodesAreRefused(t *testing.T, c *harness.Cluster, old map[int]string) {
	t.Helper()
	for i, dir := range old {
		if err := os.Rename(dir, c.Nodes()[i].DataDir); err != nil {
			t.Fatal(err)
		}
		c.Restart(i)
	}
	for i := range old {
		if code, log := c.WaitEnded(i); code == 0 || !strings.Contains(log, "belongs to the cluster before its recovery at epoch 1; delete its data directory") {
			t.Errorf("old node %d ended with %d:\n%s", i, code, log)
		}
	}
	c.WaitReady(0)
}

func wipedNodesJoin(t *testing.T, c *harness.Cluster) {
	t.Helper()
	for _, i := range []int{1, 2} {
		if err := os.RemoveAll(c.Nodes()[i].DataDir); err != nil {
			t.Fatal(err)
		}
		c.Restart(i)
	}
	c.WaitReady()
	cl := c.Client(client.Config{Endpoints: []string{c.Nodes()[0].GRPC}, Gateway: true})
	nodes, err := cl.Nodes(t.Context())
	if err != nil || len(nodes) != 3 {
		t.Errorf("nodes %v, %v", nodes, err)
	}
}

var errInterrupted = errors.New("interrupted")

// TestRecoverIsInterrupted: after any step, and with the node killed there, the
// same command finishes.
func TestRecoverIsInterrupted(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	putAll(t, c, 0)
	c.ExpectEqualDigests(3)
	destroy(t, c, 1, 2)
	planOf(t, c, 0)
	rounds := 0
	for ; interrupt(t, c); rounds++ {
		c.Kill(0)
		c.Restart(0)
		harness.Eventually(t, func() error {
			if r := c.Ctl("cluster", "recover", "-e", c.Nodes()[0].GRPC, "--dry-run"); r.Code != 0 {
				return fmt.Errorf("%v", r)
			}
			return nil
		})
	}
	if rounds < 2 {
		t.Fatalf("interrupted %d times", rounds)
	}
	c.WaitReady(0)
	expectKeys(t, c, 0)
	if out := c.MustCtl("cluster", "recover", "-e", c.Nodes()[0].GRPC, "--yes"); !strings.Contains(out, "nothing is to be done") {
		t.Fatalf("after the recovery: %s", out)
	}
}

// interrupt takes two steps of a recovery, and reports whether there were more.
func interrupt(t *testing.T, c *harness.Cluster) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	cl := c.Client(client.Config{Endpoints: []string{c.Nodes()[0].GRPC}, Gateway: true})
	answers, err := cl.RecoverPlan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	p, err := recovery.Make(answers, time.Now())
	if err != nil || p.Epoch > 1 {
		t.Fatalf("plan %+v, %v", p, err)
	}
	if !p.ToDo() {
		return false
	}
	steps := 0
	err = recovery.Run(ctx, p, func(ctx context.Context, q *api.RecoverRequest) (*api.RecoverResponse, error) {
		if steps++; steps > 2 {
			return nil, errInterrupted
		}
		return cl.Recover(ctx, q)
	}, func(line string) { t.Log(line) })
	if err != nil && !errors.Is(err, errInterrupted) {
		t.Fatal(err)
	}
	return err != nil
}

// TestRecoverSomeGroups: with two of five nodes gone, groups that have a quorum
// are left alone, and the others are recovered on the nodes that are left.
func TestRecoverSomeGroups(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Nodes: 5})
	putAll(t, c, 0)
	c.ExpectEqualDigests(3)
	destroy(t, c, 3, 4)
	p := planOf(t, c, 0)
	live, lost := p.Count(recovery.Live), p.Count(recovery.Lost)
	if live == 0 || lost == 0 || live+lost != len(p.Groups) {
		t.Fatalf("plan %+v", p)
	}
	c.MustCtl("cluster", "recover", "-e", c.Nodes()[1].GRPC, "--yes")
	c.WaitReady(0, 1, 2)
	expectKeys(t, c, 0, 1, 2)
	putAll(t, c, 2)
	if out := c.MustCtl("cluster", "recover", "-e", c.Nodes()[2].GRPC, "--yes"); !strings.Contains(out, "nothing is to be done") {
		t.Fatalf("after the recovery: %s", out)
	}
}
