//go:build unix

package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/client/collections"
	"kvstore/test/cluster/harness"
)

// TestChaosQueue adds to a queue and takes from it while one node after the other
// is killed: every element is taken once, and those of one producer in their order.
func TestChaosQueue(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 4*harness.Patience)
	defer cancel()
	k := &queueCheck{taken: map[string]int{}, last: map[string]int{}}
	stop := make(chan struct{})
	var producers, consumers sync.WaitGroup
	for p := range 2 {
		q := openQueue(t, c)
		producers.Go(func() { k.produce(ctx, t, q, p, stop) })
	}
	drained, drain := context.WithCancel(ctx)
	for range 2 {
		q := openQueue(t, c)
		consumers.Go(func() { k.consume(drained, t, q) })
	}
	for range *chaos {
		for i := range c.Nodes() {
			c.Kill(i)
			c.Restart(i)
			c.WaitReady()
		}
	}
	close(stop)
	producers.Wait()
	q := openQueue(t, c)
	for {
		n, err := q.Count(ctx)
		if err == nil && n == 0 {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("%d elements are left, %v", n, err)
		}
		<-time.After(10 * time.Millisecond)
	}
	// Who took the last ones counts them once its answer is here.
	harness.Eventually(t, k.counted)
	drain()
	consumers.Wait()
	k.judge(t)
}

func openQueue(t *testing.T, c *harness.Cluster) *collections.Queue[string] {
	q, err := collections.NewQueue[string](c.Client(client.Config{}), "chaos")
	if err != nil {
		t.Fatal(err)
	}
	return q
}

type queueCheck struct {
	mu      sync.Mutex
	added   int
	taken   map[string]int
	last    map[string]int // by consumer and producer
	unknown int
}

// produce adds until stop is closed. What has no outcome in time may be there or
// not.
func (k *queueCheck) produce(ctx context.Context, t *testing.T, q *collections.Queue[string], p int, stop chan struct{}) {
	for n := 0; ; n++ {
		select {
		case <-stop:
			return
		default:
		}
		item := fmt.Sprintf("%d %d", p, n)
		var err error
		for err = q.Enqueue(ctx, item); errors.Is(err, client.ErrUnavailable) && ctx.Err() == nil; {
			err = q.Enqueue(ctx, item) // nothing was added
		}
		k.mu.Lock()
		switch {
		case err == nil:
			k.added++
		case errors.Is(err, client.ErrUnknownOutcome):
			k.unknown++
		default:
			t.Errorf("adding: %v", err)
		}
		k.mu.Unlock()
	}
}

func (k *queueCheck) consume(ctx context.Context, t *testing.T, q *collections.Queue[string]) {
	me := fmt.Sprintf("%p", q)
	for {
		item, err := q.Dequeue(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return
		case errors.Is(err, client.ErrUnavailable):
			continue
		case err != nil:
			t.Errorf("taking: %v", err)
			return
		}
		var p, n int
		if _, err := fmt.Sscan(item, &p, &n); err != nil {
			t.Error(err)
		}
		k.mu.Lock()
		k.taken[item]++
		of := fmt.Sprint(me, p)
		if last, ok := k.last[of]; ok && last >= n {
			t.Errorf("%q was taken after number %d of its producer", item, last)
		}
		k.last[of] = n
		k.mu.Unlock()
	}
}

// counted reports whether as many were taken as were added for certain.
func (k *queueCheck) counted() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.taken) < k.added {
		return fmt.Errorf("%d elements were taken, %d added and %d perhaps", len(k.taken), k.added, k.unknown)
	}
	return nil
}

func (k *queueCheck) judge(t *testing.T) {
	for item, n := range k.taken {
		if n != 1 {
			t.Errorf("%q was taken %d times", item, n)
		}
	}
	if n := len(k.taken); n < k.added || n > k.added+k.unknown || k.added == 0 {
		t.Errorf("%d elements were taken, %d added and %d perhaps", n, k.added, k.unknown)
	}
	t.Logf("%d elements, %d with an unknown outcome", k.added, k.unknown)
}
