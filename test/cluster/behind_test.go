//go:build unix

package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// entriesBehind is more than a leader keeps of its log for a follower, below a
// checkpoint that lies some megabytes back.
const entriesBehind = 14_000

// TestChaosBehind: a node that was away catches up although it is killed while
// it does; from the log, and in long runs, where it was away for longer than
// the log reaches back, by a snapshot of the group.
func TestChaosBehind(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	snapshot := *chaos >= 10
	c.MustCtl("put", "{behind}/before", "value")
	c.Kill(2)
	if snapshot {
		putMany(t, c, entriesBehind, 1) // one entry each
	} else {
		putMany(t, c, 3000, 32)
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
	if err != nil || snapshot && !strings.Contains(metrics, `kvstore_snapshots_total{direction="received"}`) {
		t.Errorf("no snapshot was received: %v", err)
	}
	t.Logf("the node has caught up %v after the start", took)
}

// putMany writes keys of one group, each 4 KB.
func putMany(t *testing.T, c *harness.Cluster, writes, workers int) {
	t.Helper()
	cl := c.Client(client.Config{})
	ctx, cancel := context.WithTimeout(t.Context(), 8*harness.Patience)
	defer cancel()
	value := []byte(strings.Repeat("some text of a record ", 200))
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for n := w; n < writes; n += workers {
				key := fmt.Sprintf("{behind}/%d", n)
				for ctx.Err() == nil { // the same value again, whatever the outcome was
					if _, err := cl.Put(ctx, key, value); err == nil {
						break
					}
				}
			}
		})
	}
	group.Wait()
	if err := ctx.Err(); err != nil {
		t.Fatalf("%d writes: %v", writes, err)
	}
}
