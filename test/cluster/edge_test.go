//go:build unix

package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cgroup"
	"kvstore/test/cluster/harness"
)

const (
	edgeKeys   = 400_000 // of 16 bytes, with values of edgeValue bytes: 100 MB
	edgeValue  = 256
	edgeSample = 1000

	edgeLargeKeys = 25_000
	edgeLarge     = 4000 // more than value_threshold

	edgeIdle    = 150 << 20
	edgeRestful = 3 * time.Second // without flush, merge or write: idle
)

// edgeMachine is the least that a node may have (S3.27).
var edgeMachine = cgroup.Limit{CPUs: 0.5, Period: 100 * time.Millisecond, Memory: 1 << 30}

// TestEdgeNode: a single node of profile edge on half a core with 1 GB holds
// 100 MB in less than 150 MB of memory when it is idle, before and after kill -9,
// and has all of them (S3.27, S1.1).
func TestEdgeNode(t *testing.T) {
	t.Parallel()
	confine := smallMachine(t)
	c := harness.Start(t, harness.Options{Nodes: 1, Profile: "edge"})
	confine(c.PID(0))
	rss(t, c) // or the test is skipped before it loads anything
	cl := c.Client(client.Config{Timeout: time.Minute})
	took := harness.Timed(func() { load(t, cl, edgeKeys, edgeItem) })
	t.Logf("loaded %d MB in %v", edgeKeys*(edgeValue+16)/1_000_000, took)
	expectIdleMemory(t, c, "after the load")

	c.Kill(0)
	c.Restart(0)
	confine(c.PID(0))
	took = harness.Timed(func() { c.WaitReady() })
	t.Logf("ready %v after the start", took)
	expectIdleMemory(t, c, "after kill -9")
	count, err := cl.Count(t.Context(), client.WithPrefix("edge/"))
	if err != nil || count != edgeKeys {
		t.Errorf("%d keys (%v), want %d", count, err, edgeKeys)
	}
	expectSample(t, cl, edgeKeys, edgeItem)
	expectIdleMemory(t, c, "after reads")
}

// TestEdgeNodeWithLargeValues: 100 MB of values that lie in mapped files, which
// writing and reading them brings into memory, leave it when the node is idle.
func TestEdgeNodeWithLargeValues(t *testing.T) {
	t.Parallel()
	confine := smallMachine(t)
	c := harness.Start(t, harness.Options{Nodes: 1, Profile: "edge"})
	confine(c.PID(0))
	cl := c.Client(client.Config{Timeout: time.Minute})
	load(t, cl, edgeLargeKeys, edgeLargeItem)
	expectSample(t, cl, edgeLargeKeys, edgeLargeItem)
	t.Logf("%d MB after the load", rss(t, c)[0]>>20)
	harness.Eventually(t, func() error {
		if got := rss(t, c)[0]; got > edgeIdle {
			return fmt.Errorf("the node takes %d MB, at most %d", got>>20, edgeIdle>>20)
		}
		return nil
	})
	expectIdleMemory(t, c, "with large values")
	expectSample(t, cl, edgeLargeKeys, edgeLargeItem) // from the disk
}

func edgeItem(i int) client.PutItem {
	return client.PutItem{Key: fmt.Sprintf("edge/%011d", i), Value: noise(i, edgeValue)}
}

func edgeLargeItem(i int) client.PutItem {
	return client.PutItem{Key: fmt.Sprintf("large/%05d", i), Value: noise(i, edgeLarge)}
}

// noise is always the same for i, and does not compress.
func noise(i, size int) []byte {
	value := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}).Read(value) // never fails
	return value
}

// smallMachine returns what puts a process onto a small machine. Where this user
// cannot make one, the test says so and goes on without: what it looks at is there
// all the same.
func smallMachine(t *testing.T) (confine func(pid int)) {
	t.Helper()
	group, err := smallGroup(t)
	if errors.Is(err, cgroup.ErrUnavailable) {
		t.Log("no limits:", err)
		return func(int) {}
	}
	if err != nil {
		t.Fatal(err)
	}
	return func(pid int) {
		t.Helper()
		if err := group.Add(pid); err != nil {
			t.Fatal(err)
		}
	}
}

func smallGroup(t *testing.T) (*cgroup.Group, error) {
	t.Helper()
	tree, err := cgroup.Open(cgroup.Mount)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { // after that of the node
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	return tree.Group(strings.ToLower(t.Name()), edgeMachine) // tests may run at the same time
}

// expectIdleMemory waits until the node is idle, and looks at its memory.
func expectIdleMemory(t *testing.T, c *harness.Cluster, when string) {
	t.Helper()
	var last string
	var since time.Time
	harness.Eventually(t, func() error {
		if now := workOf(t, c); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < edgeRestful {
			return fmt.Errorf("busy:\n%s", last)
		}
		return nil
	})
	got := rss(t, c)[0]
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.PID(0)))
	t.Logf("idle %s: %d MB (%s)", when, got>>20, parts(string(status)))
	if got > edgeIdle {
		t.Errorf("an idle node takes %d MB %s, at most %d", got>>20, when, edgeIdle>>20)
	}
}

// workOf is what changes while a node writes, flushes, merges or moves.
func workOf(t *testing.T, c *harness.Cluster) string {
	t.Helper()
	_, page, err := c.Do(http.MethodGet, "http://"+c.Nodes()[0].Metrics+"/metrics", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	var work strings.Builder
	for line := range strings.Lines(page) {
		for _, name := range []string{"kvstore_delta_bytes ", "kvstore_runs ", "kvstore_flush_duration_seconds_count ", "kvstore_merge_duration_seconds_count ", "kvstore_move_duration_seconds_count "} {
			if strings.HasPrefix(line, name) {
				work.WriteString(line)
			}
		}
	}
	return work.String()
}

// parts are the lines of a process's status that say what its memory is.
func parts(status string) string {
	var found []string
	for line := range strings.Lines(status) {
		if strings.HasPrefix(line, "Rss") || strings.HasPrefix(line, "VmHWM") {
			found = append(found, strings.Join(strings.Fields(line), " "))
		}
	}
	return strings.Join(found, ", ")
}

// expectSample compares some of the first count items, evenly spread.
func expectSample(t *testing.T, cl *client.Client, count int, item func(int) client.PutItem) {
	t.Helper()
	want := make([]client.PutItem, edgeSample)
	keys := make([]string, edgeSample)
	for i := range keys {
		want[i] = item(i * (count / edgeSample))
		keys[i] = want[i].Key
	}
	got, err := cl.BatchGet(t.Context(), keys)
	if err != nil {
		t.Fatal(err)
	}
	for i, g := range got {
		if g.Err != nil || !bytes.Equal(g.Record.Value, want[i].Value) {
			t.Errorf("%s: %v, or another value", keys[i], g.Err)
		}
	}
}
