package concurrency

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/internal/node/nodetest"
	"kvstore/test/lockcheck"
)

// cluster is a node of three groups and a client.
type cluster struct {
	*nodetest.Node
	t *testing.T
	c *client.Client
}

func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	c.t.Cleanup(cancel)
	return ctx
}

// session is near a name, for a lock of one group.
func (c *cluster) session(name string, ttl time.Duration) *Session {
	c.t.Helper()
	s, err := NewSession(c.ctx(), c.c, Near(name), WithTTL(ttl))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = s.Close() })
	return s
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) want(want, err error) {
	c.t.Helper()
	if !errors.Is(err, want) {
		c.t.Fatalf("want %v, got %v", want, err)
	}
}

// queued waits until n keys stand under a name.
func (c *cluster) queued(name string, n int) {
	c.t.Helper()
	prefix, err := prefixOf(name)
	c.must(err)
	nodetest.Eventually(c.t, func() error {
		got, err := c.c.Count(c.ctx(), client.WithPrefix(prefix))
		if err == nil && got != uint64(n) {
			err = fmt.Errorf("%d keys under %s, want %d", got, name, n)
		}
		return err
	})
}

// All tests share one node: starting one takes longer than they do.
func TestConcurrency(t *testing.T) {
	n := nodetest.Start(t, 3)
	c, err := client.New(t.Context(), client.Config{Endpoints: []string{n.GRPC}, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, test := range []struct {
		name string
		run  func(*testing.T, *cluster)
	}{
		{"Handover", testHandover}, {"TryLock", testTryLock}, {"Expiry", testExpiry}, {"Revoked", testRevoked}, {"LostWaiting", testLostWaiting},
		{"Canceled", testCanceled}, {"Names", testNames}, {"Election", testElection}, {"Observe", testObserve},
		{"History", testHistory}, {"NodeRestarts", testNodeRestarts}, {"Unreachable", testUnreachable},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, &cluster{Node: n, t: t, c: c}) })
	}
}

// The lock goes to who asked first, and tokens grow.
func testHandover(t *testing.T, c *cluster) {
	const waiters = 4
	s := c.session("handover", time.Minute)
	first := NewMutex(s, "handover")
	c.must(first.Lock(c.ctx()))
	c.want(ErrHeld, first.Lock(c.ctx()))
	type got struct {
		who   int
		token uint64
	}
	order := make(chan got, waiters)
	for i := range waiters {
		m := NewMutex(s, "handover")
		if i%2 == 1 { // of another session
			m = NewMutex(c.session("handover", time.Minute), "handover")
		}
		ctx := c.ctx()
		go func() {
			err := m.Lock(ctx)
			order <- got{i, m.Token()}
			if err = errors.Join(err, m.Unlock(ctx)); err != nil {
				t.Errorf("%d: %v", i, err)
			}
		}()
		c.queued("handover", i+2)
	}
	token := first.Token()
	if token == 0 || len(order) > 0 {
		t.Fatal("two owners at once")
	}
	c.must(first.Unlock(c.ctx()))
	for i := range waiters {
		g := <-order
		if g.who != i || g.token <= token {
			t.Fatalf("%d has the lock with token %d after %d, want %d", g.who, g.token, token, i)
		}
		token = g.token
	}
	c.queued("handover", 0)
	c.want(ErrNotHeld, first.Unlock(c.ctx()))
	c.must(first.Lock(c.ctx()))
	if first.Token() <= token {
		t.Fatal("the token does not grow")
	}
}

func testTryLock(t *testing.T, c *cluster) {
	s := c.session("try", time.Minute)
	a, b := NewMutex(s, "try"), NewMutex(s, "try")
	c.must(a.TryLock(c.ctx()))
	c.want(ErrLocked, b.TryLock(c.ctx()))
	c.queued("try", 1)
	if b.Key() != "" || b.Token() != 0 || a.Fence().Key != a.Key() || a.Fence().Revision != a.Token() {
		t.Fatalf("%q, %d, %v", b.Key(), b.Token(), a.Fence())
	}
	c.must(a.Unlock(c.ctx()))
	c.must(b.TryLock(c.ctx()))
}

// An owner that is paused until its lease has ended does no harm, and learns of it.
func testExpiry(t *testing.T, c *cluster) {
	paused := c.session("expiry", 5*time.Second)
	old := NewMutex(paused, "expiry")
	c.must(old.Lock(c.ctx()))
	fence := old.Fence()
	_, err := c.c.Put(c.ctx(), "{expiry}register", []byte("old"), client.WithFence(fence))
	c.must(err)
	next := NewMutex(c.session("expiry", time.Hour), "expiry")
	locked := make(chan error, 1)
	ctx := c.ctx()
	go func() { locked <- next.Lock(ctx) }()
	c.queued("expiry", 2)
	c.Clock.Pass(6 * time.Second)
	c.must(<-locked)
	if next.Token() <= fence.Revision {
		t.Fatal("the token does not grow")
	}
	_, err = c.c.Put(c.ctx(), "{expiry}register", []byte("new"), client.WithFence(next.Fence()))
	c.must(err)
	_, err = c.c.Put(c.ctx(), "{expiry}register", []byte("old"), client.WithFence(fence))
	c.want(client.ErrConditionFailed, err)
	_, err = c.c.Delete(c.ctx(), "{expiry}register", client.WithFence(fence))
	c.want(client.ErrConditionFailed, err)
	_, err = c.c.BatchPut(c.ctx(), []client.PutItem{{Key: "{expiry}register"}, {Key: "{expiry}other"}}, client.WithFence(fence))
	c.want(client.ErrConditionFailed, err)
	_, err = c.c.Txn(c.ctx()).Fence(fence).Then(client.OpPut("{expiry}register", nil)).Commit()
	c.want(client.ErrConditionFailed, err)
	rec, err := c.c.Get(c.ctx(), "{expiry}register")
	if err != nil || string(rec.Value) != "new" {
		t.Fatalf("%q, %v", rec.Value, err)
	}
	c.want(ErrNotHeld, old.Unlock(c.ctx()))
	<-paused.Done()
	c.want(ErrSessionLost, paused.Err())
	c.want(ErrSessionLost, old.Lock(c.ctx()))
	c.must(paused.Close())
}

// revokedTTL is of sessions that hear of their end when they are kept alive next, a
// third of it later, and must not end by themselves on a machine that is busy.
const revokedTTL = 9 * time.Second

func testRevoked(t *testing.T, c *cluster) {
	s := c.session("revoked", revokedTTL)
	m := NewMutex(s, "revoked")
	c.must(m.Lock(c.ctx()))
	l, err := c.c.DescribeLease(c.ctx(), s.Lease())
	if err != nil || len(l.Keys) != 1 || l.Keys[0].Key != m.Key() {
		t.Fatalf("%+v, %v", l, err)
	}
	n, err := c.c.RevokeLease(c.ctx(), s.Lease())
	if err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	<-s.Done()
	c.want(ErrSessionLost, s.Err())
	c.must(NewMutex(c.session("revoked", time.Minute), "revoked").TryLock(c.ctx()))
}

// Who loses its session while it waits is told, and is in nobody's way.
func testLostWaiting(_ *testing.T, c *cluster) {
	owner, s := NewMutex(c.session("lost", time.Minute), "lost"), c.session("lost", revokedTTL)
	c.must(owner.Lock(c.ctx()))
	failed := make(chan error, 1)
	waiting, ctx := NewMutex(s, "lost"), c.ctx()
	go func() { failed <- waiting.Lock(ctx) }()
	c.queued("lost", 2)
	_, err := c.c.RevokeLease(c.ctx(), s.Lease())
	c.must(err)
	c.want(ErrSessionLost, <-failed)
	c.queued("lost", 1)
}

func testCanceled(_ *testing.T, c *cluster) {
	s := c.session("canceled", time.Minute)
	owner, gone, next := NewMutex(s, "canceled"), NewMutex(s, "canceled"), NewMutex(s, "canceled")
	c.must(owner.Lock(c.ctx()))
	ctx, cancel := context.WithCancel(c.ctx())
	failed, locked := make(chan error, 1), make(chan error, 1)
	go func() { failed <- gone.Lock(ctx) }()
	c.queued("canceled", 2)
	other := c.ctx()
	go func() { locked <- next.Lock(other) }()
	c.queued("canceled", 3)
	cancel()
	c.want(context.Canceled, <-failed)
	c.queued("canceled", 2)
	c.must(owner.Unlock(c.ctx()))
	c.must(<-locked)
	c.must(gone.enter(c.ctx(), nil)) // it can be used again
}

func testNames(t *testing.T, c *cluster) {
	for name, want := range map[string]string{"a": "{a}/", "a/b": "{a/b}/", "x{tag}y": "x{tag}y/", "{}a": "{{}a}/", "ü": "{ü}/"} {
		if got, err := prefixOf(name); err != nil || got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	s := c.session("names", time.Minute)
	for _, name := range []string{"", "}a", strings.Repeat("x", 600)} {
		if err := NewMutex(s, name).Lock(c.ctx()); err == nil {
			t.Errorf("%.20q is a lock", name)
		}
	}
	if id := leaseID("a b"); strings.Contains(id, "{") || client.CodeOf(func() error { _, err := c.c.GrantLease(c.ctx(), time.Minute, id); return err }()) != "" {
		t.Errorf("%q", id)
	}
}

func testElection(t *testing.T, c *cluster) {
	a, b := NewElection(c.session("election", time.Minute), "election"), NewElection(c.session("election", time.Minute), "election")
	_, err := a.Leader(c.ctx())
	c.want(ErrNoLeader, err)
	c.must(a.Campaign(c.ctx(), []byte("a")))
	won, ctx := make(chan error, 1), c.ctx()
	go func() { won <- b.Campaign(ctx, []byte("b")) }()
	c.queued("election", 2)
	c.want(ErrNotHeld, NewElection(b.s, "election").Proclaim(c.ctx(), nil))
	c.must(a.Proclaim(c.ctx(), []byte("a2")))
	l, err := b.Leader(c.ctx())
	if err != nil || string(l.Value) != "a2" || l.Token != a.Token() || l.Revision <= l.Token {
		t.Fatalf("%+v, %v", l, err)
	}
	c.must(a.Resign(c.ctx()))
	c.must(<-won)
	l, err = a.Leader(c.ctx())
	if err != nil || string(l.Value) != "b" || l.Token != b.Token() || b.Fence().Revision != l.Token {
		t.Fatalf("%+v, %v", l, err)
	}
	c.want(ErrNotHeld, a.Proclaim(c.ctx(), nil))
}

func testObserve(t *testing.T, c *cluster) {
	s := c.session("observe", time.Minute)
	seen, ctx := make(chan Leader), c.ctx()
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		for l, err := range NewElection(s, "observe").Observe(ctx) {
			if err != nil {
				ended <- err
				return
			}
			seen <- l
		}
	}()
	a, b := NewElection(s, "observe"), NewElection(s, "observe")
	expect := func(value string) {
		t.Helper()
		if l := <-seen; string(l.Value) != value {
			t.Fatalf("%q, want %q", l.Value, value)
		}
	}
	c.must(a.Campaign(c.ctx(), []byte("a")))
	expect("a")
	c.must(a.Proclaim(c.ctx(), []byte("a2")))
	expect("a2")
	won, bound := make(chan error, 1), c.ctx()
	go func() { won <- b.Campaign(bound, []byte("b")) }()
	c.queued("observe", 2)
	c.must(a.Resign(c.ctx()))
	expect("b")
	c.must(<-won)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// Owners come and go, some without giving the lock back; the history of all is judged
// by test/lockcheck.
func testHistory(t *testing.T, c *cluster) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	var mu sync.Mutex
	var holds []lockcheck.Hold
	var writes []lockcheck.Write
	start := time.Now()
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(seed, uint64(worker)))
			for round := range 6 {
				s := c.session("history", time.Minute)
				m := NewMutex(s, "history")
				if err := m.Lock(c.ctx()); err != nil {
					t.Error(err)
					return
				}
				h := lockcheck.Hold{Owner: fmt.Sprint(worker, round), Token: m.Token(), From: int64(time.Since(start)), Lost: r.IntN(3) == 0}
				var mine []lockcheck.Write
				write := func() error {
					res, err := c.c.Put(c.ctx(), "{history}register", fmt.Append(nil, h.Token), client.WithFence(client.Fence{Key: m.Key(), Revision: h.Token}))
					if err == nil {
						mine = append(mine, lockcheck.Write{Token: h.Token, Revision: res.Revision})
					}
					return err
				}
				if err := write(); err != nil {
					t.Error(err)
				}
				h.Until = int64(time.Since(start))
				if h.Lost {
					if _, err := c.c.RevokeLease(c.ctx(), s.Lease()); err != nil {
						t.Error(err)
					}
					if err := write(); !errors.Is(err, client.ErrConditionFailed) {
						t.Errorf("a write of who lost the lock: %v", err)
					}
				} else if err := m.Unlock(c.ctx()); err != nil {
					t.Error(err)
				}
				mu.Lock()
				holds, writes = append(holds, h), append(writes, mine...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if err := lockcheck.Check(holds, writes); err != nil || len(holds) != 24 || len(writes) != 24 {
		t.Fatalf("%d holds, %d writes: %v", len(holds), len(writes), err)
	}
}

// Sessions and locks outlive a node that ends and comes back.
func testNodeRestarts(t *testing.T, c *cluster) {
	s := c.session("restart", time.Hour)
	owner, next := NewMutex(s, "restart"), NewMutex(s, "restart")
	c.must(owner.Lock(c.ctx()))
	locked, ctx := make(chan error, 1), c.ctx()
	go func() { locked <- next.Lock(ctx) }()
	c.queued("restart", 2)
	c.Stop()
	c.Run()
	c.must(owner.Unlock(c.ctx()))
	c.must(<-locked)
	if next.Token() <= owner.Token() || s.Err() != nil {
		t.Fatal("the token does not grow")
	}
}

// Who stops waiting while the cluster cannot be reached is told at once, and is in
// nobody's way once it can be.
func testUnreachable(t *testing.T, c *cluster) {
	s := c.session("unreachable", time.Hour)
	owner, waiting := NewMutex(s, "unreachable"), NewMutex(s, "unreachable")
	c.must(owner.Lock(c.ctx()))
	ctx, cancel := context.WithCancel(c.ctx())
	failed := make(chan error, 1)
	go func() { failed <- waiting.Lock(ctx) }()
	c.queued("unreachable", 2)
	c.Stop()
	began := time.Now()
	cancel()
	c.want(context.Canceled, <-failed)
	if took := time.Since(began); took > 15*time.Second { // of 30 s that one operation has
		t.Errorf("giving up took %v", took)
	}
	c.Run()
	c.queued("unreachable", 1)
	c.must(owner.Unlock(c.ctx()))
	c.must(waiting.TryLock(c.ctx()))
}
