//go:build unix

package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// TestWatchThroughKills (issue 5, ASKS C1 C3): watches of a key, a prefix and the
// namespace go on while each node in turn, and with it leaders and the node that
// is watched, is killed with -9 and started again. A key's versions count its
// writes, so events without a gap and without one twice have versions without
// one; the last event of each key is what a read finds; every acknowledged write
// was seen; atomic batches came whole.
func TestWatchThroughKills(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	watchThrough(t, c, func(writes *changes) {
		for i := range 3 {
			writes.waitMore(t, 200)
			c.Kill(i)
			writes.waitMore(t, 200)
			c.Restart(i)
			c.WaitReady(i)
		}
	})
}

// TestWatchThroughSplit: two nodes join three, and the groups become five; slots
// move under the same watches and changes.
func TestWatchThroughSplit(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	watchThrough(t, c, func(writes *changes) {
		var names []string
		for _, n := range c.Nodes() {
			names = append(names, n.Name)
		}
		for _, name := range []string{"m4", "m5"} {
			c.Join(name, c.Nodes()[0].Peer)
			names = append(names, name)
		}
		c.WaitBalanced(names...)
		harness.Eventually(t, func() error { // the balance of a moment may be one between two moves
			s, err := slotsOf(c)
			if err == nil && (len(s.Groups) != 5 || slices.ContainsFunc(s.Groups, func(g slotsGroup) bool { return g.Count == 0 })) {
				err = fmt.Errorf("slots are not with five groups: %+v", s)
			}
			return err
		})
		writes.waitMore(t, 200)
	})
}

// watchThrough watches what is changed during trouble, and compares.
func watchThrough(t *testing.T, c *harness.Cluster, trouble func(*changes)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	store := c.Client(client.Config{Timeout: 5 * time.Second})
	var all []*seen
	var watching sync.WaitGroup
	for _, w := range []struct {
		name string
		opts []client.WatchOption
	}{
		{"namespace", nil},
		{"prefix", []client.WatchOption{client.WithPrefix("w/")}},
		{"own stream", []client.WatchOption{client.WithPrefix("w/"), client.OwnStream(), client.KeysOnly()}},
		{"key", []client.WatchOption{client.OnKey("w/1")}},
		{"hash part", []client.WatchOption{client.WithPrefix("w/{pair}")}},
	} {
		s := &seen{name: w.name, open: make(chan struct{}), keys: map[string][]client.Record{}, revisions: map[uint64]int{}}
		all = append(all, s)
		watching.Go(func() { s.watch(ctx, store, w.opts) })
	}
	for _, s := range all {
		<-s.open
	}
	writes := startChanges(store)
	trouble(writes)
	acknowledged := writes.stop()
	var end uint64
	for _, key := range []string{"w/{pair}end", "w/1"} {
		retryUnavailable(t, func() error { // there may be an election yet
			r, err := store.Put(t.Context(), key, []byte("end"))
			end = max(end, r.Revision)
			return err
		})
	}
	for _, s := range all {
		harness.Eventually(t, func() error { return s.reached(end) })
	}
	cancel()
	watching.Wait()
	for _, s := range all {
		s.check(t, store, acknowledged)
	}
	t.Logf("%d acknowledged writes, %d retries of the client", len(acknowledged), store.Stats().Retries)
}

// changes writes until it is stopped.
type changes struct {
	done   atomic.Int64
	over   atomic.Bool
	wg     sync.WaitGroup
	mu     sync.Mutex
	writes map[uint64]string // by revision
}

func startChanges(store *client.Client) *changes {
	c := &changes{writes: map[uint64]string{}}
	for worker := range 4 {
		c.wg.Go(func() {
			for n := 0; !c.over.Load(); n++ {
				c.change(store, worker, n)
				c.done.Add(1)
			}
		})
	}
	return c
}

// change writes or deletes a key, or writes two at once.
func (c *changes) change(store *client.Client, worker, n int) {
	ctx := context.Background()
	value := fmt.Appendf(nil, "%d-%d", worker, n)
	if n%5 == 4 {
		_, _ = store.BatchPut(ctx, []client.PutItem{{Key: "w/{pair}a", Value: value}, {Key: "w/{pair}b", Value: value}}, client.Atomic()) // judged by what is seen
		return
	}
	key := fmt.Sprintf("w/%d", (worker*7+n)%9)
	var rev uint64
	if n%11 == 10 {
		if r, err := store.Delete(ctx, key); err == nil {
			rev = r.Revision
		}
	} else if r, err := store.Put(ctx, key, value); err == nil {
		rev = r.Revision
	}
	if rev != 0 {
		c.mu.Lock()
		c.writes[rev] = key
		c.mu.Unlock()
	}
}

func (c *changes) waitMore(t *testing.T, n int64) {
	t.Helper()
	until := c.done.Load() + n
	harness.Within(t, 2*harness.Patience, func() error {
		if got := c.done.Load(); got < until {
			return fmt.Errorf("%d of %d changes", got, until)
		}
		return nil
	})
}

func (c *changes) stop() map[uint64]string {
	c.over.Store(true)
	c.wg.Wait()
	return c.writes
}

// seen is what a watch yielded.
type seen struct {
	name string
	open chan struct{}

	mu        sync.Mutex
	keys      map[string][]client.Record // a deletion has version 0
	revisions map[uint64]int
	updates   []client.Update // without values
	at        uint64
	err       error
}

func (s *seen) watch(ctx context.Context, store *client.Client, opts []client.WatchOption) {
	for u, err := range store.Watch(ctx, opts...) {
		s.mu.Lock()
		if err != nil {
			s.err = err
		} else {
			s.take(u)
		}
		first := s.updates == nil
		s.updates = append(s.updates, u)
		s.mu.Unlock()
		if first {
			close(s.open)
		}
	}
}

func (s *seen) take(u client.Update) {
	for _, ev := range u.Events {
		s.keys[ev.Record.Key] = append(s.keys[ev.Record.Key], ev.Record)
		s.revisions[ev.Record.Revision]++
		if ev.Record.Revision <= s.at || ev.Record.Revision > u.Revision {
			s.err = fmt.Errorf("an event at %d after an update up to %d, in one up to %d", ev.Record.Revision, s.at, u.Revision)
		}
	}
	if u.Revision < s.at {
		s.err = fmt.Errorf("an update up to %d after one up to %d", u.Revision, s.at)
	}
	s.at = u.Revision
}

func (s *seen) reached(rev uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if s.at < rev {
		return fmt.Errorf("the watch of %s is at %d, want %d", s.name, s.at, rev)
	}
	return nil
}

func (s *seen) check(t *testing.T, store *client.Client, acknowledged map[uint64]string) {
	t.Helper()
	if s.err != nil && !errors.Is(s.err, context.Canceled) {
		t.Errorf("%s: %v", s.name, s.err)
	}
	events := 0
	for key, records := range s.keys {
		events += len(records)
		version := uint64(0)
		for _, r := range records {
			if r.Version != 0 && r.Version != version+1 {
				t.Errorf("%s: version %d of %q comes after %d", s.name, r.Version, key, version)
			}
			version = r.Version
		}
		s.checkLast(t, store, key, records[len(records)-1])
	}
	for rev, key := range acknowledged {
		if _, watched := s.keys[key]; watched && s.revisions[rev] == 0 {
			t.Errorf("%s: the write of %q at %d was acknowledged and never seen", s.name, key, rev)
		}
	}
	a, b := s.keys["w/{pair}a"], s.keys["w/{pair}b"]
	for i := range min(len(a), len(b)) {
		if a[i].Revision != b[i].Revision {
			t.Errorf("%s: a batch is torn: %d and %d", s.name, a[i].Revision, b[i].Revision)
		}
	}
	if events == 0 || len(a) != len(b) {
		t.Errorf("%s: %d events, %d and %d of pairs", s.name, events, len(a), len(b))
	}
}

// checkLast compares the last event of a key with the key.
func (s *seen) checkLast(t *testing.T, store *client.Client, key string, last client.Record) {
	t.Helper()
	var rec client.Record
	var err error
	harness.Eventually(t, func() error {
		if rec, err = store.Get(t.Context(), key); errors.Is(err, client.ErrUnavailable) || errors.Is(err, client.ErrDeadlineExceeded) {
			return err
		}
		return nil
	})
	switch {
	case errors.Is(err, client.ErrNotFound):
		if last.Version != 0 {
			t.Errorf("%s: %q is gone, last seen with version %d", s.name, key, last.Version)
		}
	case err != nil:
		t.Error(err)
	case rec.Revision != last.Revision:
		t.Errorf("%s: %q is at %d, last seen at %d", s.name, key, rec.Revision, last.Revision)
	}
}
