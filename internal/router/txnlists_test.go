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
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/router"
)

// listed is what a list of all keys found.
func (c *cluster) listed(r *router.Router, level api.Consistency) map[string]string {
	c.t.Helper()
	out, err := r.List(within(c.t, 20*time.Second), &api.ListRequest{Prefix: "k", Consistency: level})
	if err != nil {
		c.t.Errorf("list: %v", err)
		return nil
	}
	if out.Consistency != level {
		c.t.Errorf("the list says %v, asked was %v", out.Consistency, level)
	}
	found := make(map[string]string)
	for _, rec := range out.Records {
		found[rec.Key] = string(rec.Value)
	}
	return found
}

// together is what is found of keys that are read together.
func (c *cluster) together(r *router.Router, keys []string) map[string]string {
	c.t.Helper()
	reads := make([]router.KeyRead, len(keys))
	for i, key := range keys {
		reads[i] = router.KeyRead{Namespace: keyspace.DefaultNamespace, Key: key}
	}
	recs, _, err := r.ReadTogether(within(c.t, 20*time.Second), reads)
	if err != nil {
		c.t.Errorf("read together: %v", err)
		return nil
	}
	found := make(map[string]string)
	for i, rec := range recs {
		if rec != nil {
			found[keys[i]] = string(rec.Value)
		}
	}
	return found
}

// bank are accounts over all groups, between which several move money, each of whom
// counts what it did in two groups more.
type bank struct {
	*cluster
	accounts []string
	marks    [][2]string
	done     []atomic.Int64 // by who moves: how many were acknowledged
}

const startBalance = 100

func newBank(c *cluster, accounts, movers int) *bank {
	b := &bank{cluster: c, done: make([]atomic.Int64, movers)}
	var first []*api.TransactionOp
	for i := range accounts {
		b.accounts = append(b.accounts, c.key(keyspace.GroupID(i%clusterGroups+1), i))
		first = append(first, put(b.accounts[i], strconv.Itoa(startBalance)))
	}
	for n := range movers {
		b.marks = append(b.marks, [2]string{c.key(1, 40+n), c.key(3, 40+n)})
	}
	c.txn(c.here, &api.TransactionRequest{Then: first})
	c.settled()
	return b
}

// move moves one from an account to another.
func (b *bank) move(r *router.Router, mover, from, to int) error {
	ctx := within(b.t, 20*time.Second)
	mark := strconv.FormatInt(b.done[mover].Load()+1, 10)
	for {
		seen, err := r.BatchGet(ctx, &api.BatchGetRequest{Keys: []string{b.accounts[from], b.accounts[to]}})
		if err != nil {
			return err
		}
		x, y := seen.Results[0].Record, seen.Results[1].Record
		less, _ := strconv.Atoi(string(x.Value))
		more, _ := strconv.Atoi(string(y.Value))
		out, err := r.Transaction(ctx, &api.TransactionRequest{
			Checks: []*api.TransactionCheck{version(x.Key, x.Version), version(y.Key, y.Version)},
			Then: []*api.TransactionOp{put(x.Key, strconv.Itoa(less-1)), put(y.Key, strconv.Itoa(more+1)),
				put(b.marks[mover][0], mark), put(b.marks[mover][1], mark)}})
		switch {
		case fault.CodeOf(err) == fault.Unavailable: // met locks until its time was over
		case err != nil:
			return fmt.Errorf("transfer: %w", err)
		case out.Succeeded:
			b.done[mover].Add(1)
			return nil
		}
	}
}

// audit holds what a read found, which began when so many were acknowledged, to the
// rules of the bank.
func (b *bank) audit(what string, acknowledged []int64, found map[string]string) {
	b.t.Helper()
	if found == nil {
		return
	}
	total := 0
	for _, key := range b.accounts {
		n, _ := strconv.Atoi(found[key])
		total += n
	}
	if want := startBalance * len(b.accounts); total != want {
		b.t.Errorf("%s: accounts add up to %d, want %d", what, total, want)
	}
	for n, marks := range b.marks {
		if found[marks[0]] != found[marks[1]] {
			b.t.Errorf("%s: half of a transaction: %q in one group, %q in the other", what, found[marks[0]], found[marks[1]])
		}
		if got, _ := strconv.ParseInt(found[marks[0]], 10, 64); got < acknowledged[n] {
			b.t.Errorf("%s: the last is %d, %d were acknowledged before", what, got, acknowledged[n])
		}
	}
}

func (b *bank) acknowledged() (out []int64) {
	for n := range b.done {
		out = append(out, b.done[n].Load())
	}
	return out
}

// Lists among transactions over several groups have each of them whole, and all that
// was acknowledged before they began, at both levels and on any node; so have keys
// that are read together.
func TestListsAmongTransactions(t *testing.T) {
	t.Parallel()
	const transfers = 25
	c := newTxnCluster(t)
	routers := []*router.Router{c.here, c.elsewhere("n2"), c.elsewhere("n3")}
	b := newBank(c, 6, len(routers))
	var movers, readers sync.WaitGroup
	var stop atomic.Bool
	for n, r := range routers {
		movers.Go(func() {
			for i := range transfers {
				from := (i + n) % len(b.accounts)
				if err := b.move(r, n, from, (from+1+i%4)%len(b.accounts)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	keys := append([]string(nil), b.accounts...)
	for _, marks := range b.marks {
		keys = append(keys, marks[:]...)
	}
	var reads atomic.Int64
	for _, r := range routers[:2] {
		readers.Go(func() {
			for !stop.Load() {
				before := b.acknowledged()
				b.audit("list", before, c.listed(r, api.Consistency_CONSISTENCY_LINEARIZABLE))
				before = b.acknowledged()
				b.audit("snapshot", before, c.listed(r, api.Consistency_CONSISTENCY_SNAPSHOT))
				before = b.acknowledged()
				b.audit("together", before, c.together(r, keys))
				reads.Add(3)
			}
		})
	}
	movers.Wait()
	stop.Store(true)
	readers.Wait()
	c.settled()
	b.audit("the end", b.acknowledged(), c.listed(c.here, api.Consistency_CONSISTENCY_LINEARIZABLE))
	t.Logf("%d reads among %d transfers; %+v", reads.Load(), len(routers)*transfers, c.here.TransactionStats())
}

// A list that meets what a dead coordinator has left has it ended, and does not fail;
// also one of a single group, whose clock is behind the revision of the commit.
func TestListsPastADeadCoordinator(t *testing.T) {
	t.Parallel()
	for step, want := range map[string]string{"half prepared": "old", "conclude": "new"} {
		for what, read := range map[string]func(c *cluster, keys ...string) map[string]string{
			"list": func(c *cluster, _ ...string) map[string]string {
				return c.listed(c.elsewhere("n2"), api.Consistency_CONSISTENCY_LINEARIZABLE)
			},
			"snapshot": func(c *cluster, _ ...string) map[string]string {
				return c.listed(c.here, api.Consistency_CONSISTENCY_SNAPSHOT)
			},
			"together": func(c *cluster, keys ...string) map[string]string { return c.together(c.here, keys) },
			"one key":  func(c *cluster, keys ...string) map[string]string { return c.together(c.here, keys[1:]) },
		} {
			t.Run(step+" "+what, func(t *testing.T) {
				t.Parallel()
				c := newTxnCluster(t)
				x, y := c.key(1, 0), c.key(2, 0)
				c.txn(c.here, &api.TransactionRequest{Then: []*api.TransactionOp{put(x, "old"), put(y, "old")}})
				c.settled()
				if _, err := c.node.Host.Clock(t.Context(), 1, keyspace.RevisionAt(time.Now().Add(400*time.Millisecond).UnixMilli())); err != nil {
					t.Fatal(err)
				}
				dead, went := c.mortal(step), make(chan struct{})
				dead.OnStep(func(at string, _ keyspace.TxnID) bool {
					if at == step {
						close(went)
					}
					return at == step
				})
				go func() {
					_, _ = dead.Transaction(context.Background(), &api.TransactionRequest{Then: []*api.TransactionOp{put(x, "new"), put(y, "new")}})
				}()
				<-went
				found := read(c, x, y)
				if found[y] != want || found[x] != want && what != "one key" {
					t.Errorf("found %q, want %q everywhere", found, want)
				}
			})
		}
	}
}
