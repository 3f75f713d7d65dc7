//go:build unix

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// TestChaosCoordinator (issue 5): the node that commits transactions over several
// groups is killed with -9 at any moment, between prepare and commit too. Every
// transaction that was under way happened whole or not at all, and its locks go by
// themselves: a write to each of its keys succeeds. The time for that is printed
// beside the time until keys without a lock can be written again, which elections
// take.
func TestChaosCoordinator(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	tags := findTags(t, c)
	var locked, unlocked []time.Duration
	unfinished := 0
	for round := range max(2, *chaos) {
		victim := pick(t, 3)
		k := &coordinatorKill{t: t, c: c, tags: tags, round: round, victim: victim}
		k.run()
		c.Restart(victim)
		c.WaitReady(victim)
		locked, unlocked, unfinished = append(locked, k.locked...), append(unlocked, k.unlocked...), unfinished+k.unfinished
	}
	t.Logf("%d transactions were under way; their keys could be written p50 %v, at most %v after the kill; other keys p50 %v, at most %v",
		unfinished, round(percentile(locked, 0.5)), round(percentile(locked, 1)), round(percentile(unlocked, 0.5)), round(percentile(unlocked, 1)))
	if unfinished == 0 {
		t.Error("no transaction was under way at any kill")
	}
	c.ExpectEqualDigests(3)
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// coordinatorKill is one kill under a stream of transactions.
type coordinatorKill struct {
	t      *testing.T
	c      *harness.Cluster
	tags   [][]string
	round  int
	victim int

	done   atomic.Int64
	killed time.Time

	mu               sync.Mutex
	locked, unlocked []time.Duration
	unfinished       int
}

// coordinatorWorkers each have a transaction under way, on keys of their own.
const coordinatorWorkers = 8

func (k *coordinatorKill) run() {
	k.t.Helper()
	// A client that knows one node has all its transactions coordinated there.
	gateway := k.c.Client(client.Config{Endpoints: []string{k.c.Nodes()[k.victim].GRPC}, Gateway: true, Timeout: 5 * time.Second})
	var others []string
	for i, n := range k.c.Nodes() {
		if i != k.victim {
			others = append(others, n.GRPC)
		}
	}
	prober := k.c.Client(client.Config{Endpoints: others, Timeout: harness.Patience})
	ctx, stop := context.WithCancel(k.t.Context())
	defer stop()
	var workers sync.WaitGroup
	last := make([]coordinated, coordinatorWorkers)
	for i := range last {
		workers.Go(func() { last[i] = k.commit(ctx, gateway, i) })
	}
	harness.Eventually(k.t, func() error {
		if n := k.done.Load(); n < 20*coordinatorWorkers {
			return fmt.Errorf("%d transactions", n)
		}
		return nil
	})
	harness.Pass(k.t, time.Duration(rand.Int64N(int64(20*time.Millisecond))))
	k.killed = time.Now()
	k.c.Kill(k.victim)
	stop()
	workers.Wait()
	_ = gateway.Close()
	var probes sync.WaitGroup
	for i, co := range last {
		probes.Go(func() { k.probe(prober, i, co) })
	}
	for _, tags := range k.tags {
		probes.Go(func() {
			if _, took := k.put(prober, fmt.Sprintf("coordinator/%d/other/%s", k.round, tags[0])); took > 0 {
				k.mu.Lock()
				k.unlocked = append(k.unlocked, took)
				k.mu.Unlock()
			}
		})
	}
	probes.Wait()
}

// coordinated is what a worker knows when its node is gone.
type coordinated struct {
	acknowledged uint64
	unknown      bool // one more was under way
}

func (k *coordinatorKill) key(worker, group int) string {
	return fmt.Sprintf("coordinator/%d/%d/%s", k.round, worker, k.tags[group][0])
}

// commit writes a key of each group at once, again and again, until that fails.
func (k *coordinatorKill) commit(ctx context.Context, cl *client.Client, worker int) (co coordinated) {
	for ctx.Err() == nil {
		txn := cl.Txn(ctx)
		for g := range k.tags {
			txn.Then(client.OpPut(k.key(worker, g), fmt.Append(nil, co.acknowledged)))
		}
		_, err := txn.Commit()
		switch {
		case err == nil:
			co.acknowledged++
			k.done.Add(1)
			continue
		case errors.Is(err, client.ErrUnknownOutcome):
			co.unknown = true
			return co
		case errors.Is(err, client.ErrUnavailable), errors.Is(err, client.ErrDeadlineExceeded), errors.Is(err, client.ErrOverloaded), errors.Is(err, client.ErrCanceled):
			// It did not happen, for an election or because the node is gone.
		default:
			k.t.Errorf("a transaction: %v", err)
			return co
		}
	}
	return co
}

// probe writes each key of a worker. A key's version counts its writes, so it tells
// whether the last transaction is among them: in all groups or in none.
func (k *coordinatorKill) probe(cl *client.Client, worker int, co coordinated) {
	happened := map[uint64]int{}
	for g := range k.tags {
		version, took := k.put(cl, k.key(worker, g))
		if took == 0 {
			return
		}
		happened[version-co.acknowledged-1]++
		k.mu.Lock()
		k.locked = append(k.locked, took)
		k.mu.Unlock()
	}
	if co.unknown {
		k.mu.Lock()
		k.unfinished++
		k.mu.Unlock()
	}
	if n := len(k.tags); happened[0] != n && (!co.unknown || happened[1] != n) {
		k.t.Errorf("after %d acknowledged transactions, one more under way: %t, so many groups have so many more: %v", co.acknowledged, co.unknown, happened)
	}
}

// put returns the new version of a key and the time since the kill, 0 when the write
// itself has no known outcome.
func (k *coordinatorKill) put(cl *client.Client, key string) (version uint64, took time.Duration) {
	ctx, cancel := context.WithTimeout(k.t.Context(), harness.Patience)
	defer cancel()
	res, err := cl.Put(ctx, key, []byte("after"))
	switch {
	case errors.Is(err, client.ErrUnknownOutcome):
		return 0, 0
	case err != nil:
		k.t.Errorf("%s cannot be written %v after the kill: %v", key, round(time.Since(k.killed)), err)
		return 0, 0
	}
	return res.Version, time.Since(k.killed)
}
