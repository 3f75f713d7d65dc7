//go:build unix

package cluster

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

const (
	idleLimit = 400 << 20 // three dev nodes together
	listLimit = 64 << 20  // more while a list runs (ASKS B1)
)

// TestMemory: three idle nodes are small, and a long list does not make them
// grow.
func TestMemory(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	idle := total(rss(t, c))
	t.Logf("three idle nodes take %d MB", idle>>20)
	if idle > idleLimit {
		t.Errorf("three idle nodes take %d MB, at most %d", idle>>20, idleLimit>>20)
	}
	keys := 100_000
	if *chaos >= 10 {
		keys = 1_000_000
	}
	cl := c.Client(client.Config{Timeout: time.Minute})
	load(t, cl, keys, listItem)
	before := rss(t, c)
	peak := watchRSS(t, c, func() {
		n := 0
		last := ""
		for rec, err := range cl.Scan(t.Context(), client.WithPrefix("list/"), client.WithLimit(10_000)) {
			if err != nil {
				t.Fatalf("after %d keys: %v", n, err)
			}
			if rec.Key <= last {
				t.Fatalf("%q after %q", rec.Key, last)
			}
			last = rec.Key
			n++
		}
		if n != keys {
			t.Errorf("%d keys, want %d", n, keys)
		}
	})
	for i := range before {
		more := peak[i] - before[i]
		t.Logf("node %d: %d MB before, %d MB more while %d keys are listed", i, before[i]>>20, more>>20, keys)
		if more > listLimit {
			t.Errorf("node %d grows by %d MB, at most %d", i, more>>20, listLimit>>20)
		}
	}
}

func listItem(i int) client.PutItem {
	return client.PutItem{Key: fmt.Sprintf("list/%07d", i), Value: fmt.Appendf(nil, "value of %d", i)}
}

// load writes items 0 to keys-1.
func load(t *testing.T, cl *client.Client, keys int, item func(int) client.PutItem) {
	t.Helper()
	const batch = 1000
	var group sync.WaitGroup
	errs := make(chan error, keys/batch)
	next := make(chan int)
	for range 4 {
		group.Go(func() {
			for from := range next {
				errs <- loadBatch(t.Context(), cl, from, batch, item)
			}
		})
	}
	for from := 0; from < keys; from += batch {
		next <- from
	}
	close(next)
	group.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// loadBatch repeats writes of the same values until they are acknowledged.
func loadBatch(ctx context.Context, cl *client.Client, from, count int, item func(int) client.PutItem) (err error) {
	items := make([]client.PutItem, count)
	for i := range items {
		items[i] = item(from + i)
	}
	for range 10 {
		if _, err = cl.BatchPut(ctx, items); err == nil {
			return nil
		}
	}
	return err
}

// rss is the resident memory of every node; it skips the test where the system
// does not tell.
func rss(t *testing.T, c *harness.Cluster) []int64 {
	t.Helper()
	var all []int64
	for i := range c.Nodes() {
		b, ok := harness.RSS(c.PID(i))
		if !ok {
			t.Skip("this system does not tell the memory of processes in /proc")
		}
		all = append(all, b)
	}
	return all
}

func total(all []int64) (sum int64) {
	for _, b := range all {
		sum += b
	}
	return sum
}

// watchRSS returns the peak of every node while f runs.
func watchRSS(t *testing.T, c *harness.Cluster, f func()) []int64 {
	t.Helper()
	pids := make([]int, len(c.Nodes()))
	for i := range pids {
		pids[i] = c.PID(i)
	}
	peak := make([]int64, len(pids))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		for {
			for i, pid := range pids {
				if b, ok := harness.RSS(pid); ok {
					peak[i] = max(peak[i], b)
				}
			}
			select {
			case <-stop:
				return
			case <-look.C:
			}
		}
	}()
	defer func() { <-done }()
	defer close(stop)
	f()
	return peak
}
