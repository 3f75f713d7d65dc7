//go:build unix

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// entriesBehind is more than a leader keeps of its log for a follower, below a
// checkpoint that lies some megabytes back.
const entriesBehind = 14_000

// TestChaosBehind: a node that was away for longer than the log reaches back is
// given a snapshot of the group, and is killed while it receives it.
func TestChaosBehind(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	cl := c.Client(client.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 4*harness.Patience)
	defer cancel()
	value := []byte(strings.Repeat("some text of a record ", 200))
	write := func(n int) {
		t.Helper()
		key := fmt.Sprintf("{behind}/%d", n)
		if _, err := cl.Put(ctx, key, value); err != nil { // one entry each
			t.Fatal(err)
		}
	}
	for n := range 200 {
		write(n)
	}
	c.Kill(2)
	for n := range entriesBehind * max(1, *chaos/5) {
		write(n)
	}
	for range *chaos {
		c.Restart(2)
		harness.Pass(t, harness.Settle/5)
		c.Kill(2)
	}
	c.Restart(2)
	took := harness.Timed(func() {
		c.WaitReady()
		c.ExpectEqualDigests(3)
	})
	_, metrics, err := c.Do(http.MethodGet, "http://"+c.Nodes()[2].Metrics+"/metrics", nil, nil)
	if err != nil || !strings.Contains(metrics, `kvstore_snapshots_total{direction="received"}`) {
		t.Errorf("no snapshot was received: %v", err)
	}
	t.Logf("the node has caught up %v after the start", took)
}
