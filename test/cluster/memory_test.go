//go:build unix

package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// listed is how many keys are listed; scripts/bench-list has more.
var listed = flag.Int("listed", 100_000, "how many keys TestMemory lists")

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
	keys := *listed
	if *chaos >= 10 {
		keys = 1_000_000
	}
	cl := c.Client(client.Config{Timeout: time.Minute})
	load(t, cl, keys, listItem)
	for name, list := range map[string]func(*testing.T, *harness.Cluster, int){
		"Scan": scanAll, "Scan, 10,000 keys a page, with values": scanLarge, "ListStream": streamAll, "kvctl list": ctlAll,
	} {
		before := rss(t, c)
		peak := watchRSS(t, c, func() { list(t, c, keys) })
		for i := range before {
			more := peak[i] - before[i]
			t.Logf("node %d: %d MB before, %d MB more while %d keys are listed by %s", i, before[i]>>20, more>>20, keys, name)
			if more > listLimit {
				t.Errorf("node %d grows by %d MB, at most %d", i, more>>20, listLimit>>20)
			}
		}
	}
}

func scanAll(t *testing.T, c *harness.Cluster, keys int) { scan(t, c, keys, client.KeysOnly()) }

func scanLarge(t *testing.T, c *harness.Cluster, keys int) {
	scan(t, c, keys, client.WithLimit(10_000))
}

func scan(t *testing.T, c *harness.Cluster, keys int, opt client.ListOption) {
	var o order
	for rec, err := range c.Client(client.Config{Timeout: time.Minute}).Scan(t.Context(), client.WithPrefix("list/"), opt) {
		if err != nil {
			t.Fatalf("after %d keys: %v", o.n, err)
		}
		o.next(t, rec.Key)
	}
	o.end(t, keys)
}

// order sees every key once, in order.
type order struct {
	last string
	n    int
}

func (o *order) next(t *testing.T, key string) {
	if key <= o.last {
		t.Fatalf("%q after %q", key, o.last)
	}
	o.last = key
	o.n++
}

func (o *order) end(t *testing.T, keys int) {
	if o.n != keys {
		t.Errorf("%d keys, want %d", o.n, keys)
	}
}

// streamAll takes all pages of one call, the first of them so slowly that the node
// could run ahead.
func streamAll(t *testing.T, c *harness.Cluster, keys int) {
	conn, err := grpc.NewClient(c.Nodes()[0].GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(32<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	stream, err := api.NewKVStoreClient(conn).ListStream(t.Context(), &api.ListRequest{Prefix: "list/", Limit: 10_000})
	if err != nil {
		t.Fatal(err)
	}
	<-time.After(500 * time.Millisecond)
	var o order
	for {
		page, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("after %d keys: %v", o.n, err)
		}
		for _, rec := range page.Records {
			o.next(t, rec.Key)
		}
	}
	o.end(t, keys)
}

func ctlAll(t *testing.T, c *harness.Cluster, keys int) {
	if n := strings.Count(c.MustCtl("list", "list/", "-o", "raw"), "\n"); n != keys {
		t.Errorf("%d keys, want %d", n, keys)
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
