package router_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/env/system"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// mortal is the router of a node that dies at a step of a transaction. It is never
// closed, as nobody closes what is dead.
func (c *cluster) mortal(step string) *router.Router {
	c.t.Helper()
	r, err := router.New(router.Options{Node: "n9", Host: bare{}, Peers: c, Directory: directory{c}, Clock: system.Clock(), Rand: system.Rand()})
	if err != nil {
		c.t.Fatal(err)
	}
	r.OnStep(func(at string, _ keyspace.TxnID) bool { return at == step })
	return r
}

// DESIGN 9: wherever the coordinator dies, whoever meets the locks ends the
// transaction, whole or not at all; prepared everywhere at once, else when its
// coordinator had its time.
func TestCoordinatorDies(t *testing.T) {
	for step, want := range map[string]string{
		"prepare": "old", "half prepared": "old", "conclude": "new", "committed": "new", "answered": "new",
	} {
		t.Run(step, func(t *testing.T) {
			t.Parallel()
			c := newTxnCluster(t)
			a, b := c.key(1, 0), c.key(2, 0)
			c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(a, "old"), put(b, "old")}})
			c.settled()
			dead := c.mortal(step)
			went := make(chan struct{})
			dead.OnStep(func(at string, _ keyspace.TxnID) bool {
				if at == step {
					close(went)
				}
				return at == step
			})
			go func() {
				_, _ = dead.Transaction(context.Background(), &api.TransactionRequest{Then: []*api.TransactionOp{put(a, "new"), put(b, "new")}})
			}()
			<-went
			// Writers wait behind the locks and have the transaction ended.
			out := c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{get(a), get(b), put(a, "last"), put(b, "last")}})
			for i := range 2 {
				if got := string(out.Results[i].GetGet().GetValue()); got != want {
					t.Errorf("operation %d saw %q, want %q", i, got, want)
				}
			}
			c.settled()
			if c.read(c.here, a) != "last" || c.read(c.here, b) != "last" {
				t.Error("the next transaction was not executed")
			}
		})
	}
}

// A bank over groups: transfers from several nodes at once, some of whose
// coordinators die, while others add all accounts up. What was answered is what
// happened.
func TestBankOverGroups(t *testing.T) {
	const accounts, each, transfers = 6, 100, 40
	c := newTxnCluster(t)
	keys := make([]string, accounts)
	var first []*api.TransactionOp
	for i := range keys {
		keys[i] = c.key(keyspace.GroupID(i%clusterGroups+1), i)
		first = append(first, put(keys[i], strconv.Itoa(each)))
	}
	c.txn(c.here, &api.TransactionRequest{Then: first})
	c.settled()
	routers := []*router.Router{c.here, c.elsewhere("n2"), c.elsewhere("n3")}
	var wg sync.WaitGroup
	var stop atomic.Bool
	for n, r := range routers {
		wg.Go(func() {
			for i := range transfers {
				if err := c.transfer(r, keys[(i+n)%accounts], keys[(i*2+n+1)%accounts]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var sums sync.WaitGroup
	sums.Go(func() {
		for !stop.Load() {
			c.sum(routers[1], keys, accounts*each, put(c.key(1, 50), "x")) // under locks
			c.sum(c.here, keys, accounts*each)
		}
	})
	wg.Wait()
	stop.Store(true)
	sums.Wait()
	c.settled()
	c.sum(c.here, keys, accounts*each)
	t.Logf("%+v", c.here.TransactionStats())
}

func (c *cluster) sum(r *router.Router, keys []string, want int, more ...*api.TransactionOp) {
	var gets []*api.TransactionOp
	for _, k := range keys {
		gets = append(gets, get(k))
	}
	out, err := r.Transaction(within(c.t, 20*time.Second), &api.TransactionRequest{Then: append(gets, more...)})
	if fault.CodeOf(err) == fault.Unavailable && len(more) > 0 {
		return // met locks until its time was over
	}
	if err != nil {
		c.t.Errorf("adding up: %v", err)
		return
	}
	total := 0
	for _, res := range out.Results {
		n, _ := strconv.Atoi(string(res.GetGet().GetValue()))
		total += n
	}
	if total != want {
		c.t.Errorf("accounts add up to %d, want %d", total, want)
	}
}

// transfer moves one from an account to another, optimistically.
func (c *cluster) transfer(r *router.Router, from, to string) error {
	if from == to {
		return nil
	}
	ctx := within(c.t, 20*time.Second)
	for {
		seen, err := r.BatchGet(ctx, &api.BatchGetRequest{Keys: []string{from, to}})
		if err != nil {
			return err
		}
		x, y := seen.Results[0].Record, seen.Results[1].Record
		a, _ := strconv.Atoi(string(x.Value))
		b, _ := strconv.Atoi(string(y.Value))
		out, err := r.Transaction(ctx, &api.TransactionRequest{Checks: []*api.TransactionCheck{version(from, x.Version), version(to, y.Version)},
			Then: []*api.TransactionOp{put(from, strconv.Itoa(a-1)), put(to, strconv.Itoa(b+1))}})
		switch {
		case fault.CodeOf(err) == fault.Unavailable: // met locks until its time was over
		case err != nil:
			return fmt.Errorf("transfer: %w", err)
		case out.Succeeded:
			return nil
		}
	}
}
