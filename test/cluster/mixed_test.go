//go:build unix

package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/internal/keyspace"
	"kvstore/test/cluster/harness"
	"kvstore/test/history"
)

var (
	manyTransactions = flag.Int("transactions", 0, "go on with faults in TestChaosTransactions until so many have ended")
	groupsShare      = flag.Float64("multi", 0.34, "the part of the transactions in TestChaosTransactions whose keys lie in several groups, 0 to 1")
)

// mixed is every kind of transaction at once, under whatever a test does to the
// cluster, and what the clients saw, to be judged at the end: lists, a bank, small
// transactions against a model, watches of all of these, deadlines, and registers
// behind locks: of a key with a deadline, and of the SDK.
type mixed struct {
	t       *testing.T
	c       *harness.Cluster
	start   time.Time
	clients []*client.Client
	// tags are hash parts by the group that they were in at the start; keys with the
	// same one always lie together.
	tags  [][]string
	share float64

	stop    chan struct{}
	workers sync.WaitGroup
	count   struct {
		ended, multi, aborted, unknown atomic.Int64
	}

	// shown counts errors of unknown outcome; they are rare, since the SDK asks for
	// what it sent under a request id.
	shown atomic.Int64

	mu     sync.Mutex
	writes []history.Write
	failed map[string]bool

	lists  mixedLists
	bank   mixedBank
	store  mixedStore
	ttl    mixedTTL
	fence  mixedFence
	mutex  mixedLock
	elect  mixedLock
	stream mixedStreams
}

// mixedTimeout bounds one request of a client.
const mixedTimeout = 6 * time.Second

// unknownShown errors of unknown outcome are logged.
const unknownShown = 10

// tagsOfGroup is how many hash parts of each group are used.
const tagsOfGroup = 2

func startMixed(t *testing.T, c *harness.Cluster, share float64) *mixed {
	t.Helper()
	m := &mixed{t: t, c: c, start: time.Now(), share: share, stop: make(chan struct{}), failed: map[string]bool{}}
	for _, read := range []client.ReadFrom{client.Leader, client.Any} {
		m.clients = append(m.clients, c.Client(client.Config{Read: read, Timeout: mixedTimeout}))
	}
	m.tags = findTags(t, c)
	m.startStreams()
	m.bank.open(m)
	m.mutex.what, m.mutex.make = "mutex", newMutexHolder
	m.elect.what, m.elect.make = "election", newElectionHolder
	for kind, work := range []func(*worker){m.lists.work, m.bank.work, m.store.work, m.ttl.work, m.fence.work, m.mutex.work, m.elect.work} {
		for i := range [...]int{6, 3, 4, 2, 3, 3, 3}[kind] {
			w := &worker{mixed: m, id: 10*kind + i, client: m.clients[i%2], random: rand.New(rand.NewPCG(uint64(kind), uint64(i)))}
			m.workers.Go(func() { w.until(work) })
		}
	}
	t.Cleanup(m.end)
	return m
}

// findTags takes, for each group, texts that the map of slots gives to it.
func findTags(t *testing.T, c *harness.Cluster) (tags [][]string) {
	t.Helper()
	topology := members(t, c).topology
	ns := keyspace.NamespaceID(topology.GetNamespaces()["default"])
	byGroup := map[uint32][]string{}
	groups := len(topology.GetGroups()) - 1 // without that of the metadata
	for n := 0; len(tags) < groups && n < 100_000; n++ {
		tag := fmt.Sprintf("{%d}", n)
		g := topology.GetSlotGroups()[keyspace.SlotOf(ns, tag)]
		if len(byGroup[g]) == tagsOfGroup {
			continue
		}
		if byGroup[g] = append(byGroup[g], tag); len(byGroup[g]) == tagsOfGroup {
			tags = append(tags, byGroup[g])
		}
	}
	if len(tags) < 3 {
		t.Fatalf("%d groups of data, and three are needed: %v", len(tags), topology.GetGroups())
	}
	return tags
}

// now is the clock of all spans.
func (m *mixed) now() int64 { return int64(time.Since(m.start)) }

// wall is a moment of that clock as a time of day.
func (m *mixed) wall(at int64) time.Time { return m.start.Add(time.Duration(at)) }

// note adds writes for the judge of watches.
func (m *mixed) note(w ...history.Write) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.writes = append(m.writes, w...)
}

// outcome reads an error of a transaction as its promise has it. What may not
// happen fails the test.
func (m *mixed) outcome(err error) history.Outcome {
	switch code := client.CodeOf(err); code {
	case "":
		return history.Committed
	case client.CodeUnknownOutcome:
		if m.shown.Add(1) <= unknownShown {
			m.t.Logf("%v: %v", time.Since(m.start).Round(time.Millisecond), err)
		}
		return history.Unknown
	case client.CodeUnavailable, client.CodeOverloaded, client.CodeWrongLeader, client.CodeWrongGroup, client.CodeDeadlineExceeded,
		client.CodeCanceled, client.CodeConditionFailed:
		return history.Aborted
	default:
		m.mu.Lock()
		defer m.mu.Unlock()
		if !m.failed[string(code)] {
			m.failed[string(code)] = true
			m.t.Errorf("a client met %v", err)
		}
		return history.Unknown
	}
}

// ended counts a transaction with its groups.
func (m *mixed) ended(o history.Outcome, groups int) {
	switch o {
	case history.Unknown:
		m.count.unknown.Add(1)
	case history.Aborted:
		m.count.aborted.Add(1)
		return
	case history.Committed:
	}
	if groups > 1 {
		m.count.multi.Add(1)
	}
	m.count.ended.Add(1)
}

// waitMore waits for n further transactions.
func (m *mixed) waitMore(n int64) {
	m.t.Helper()
	want := m.count.ended.Load() + n
	harness.Eventually(m.t, func() error {
		if got := m.count.ended.Load(); got < want {
			return fmt.Errorf("%d transactions, want %d", got, want)
		}
		return nil
	})
}

func (m *mixed) end() {
	select {
	case <-m.stop:
	default:
		close(m.stop)
	}
	m.workers.Wait()
	m.stream.end()
}

// judge ends the workload, reads what is left and judges all histories; it returns
// the number of violations.
func (m *mixed) judge() int {
	m.t.Helper()
	harness.Eventually(m.t, m.mutex.shown)
	harness.Eventually(m.t, m.elect.shown)
	close(m.stop)
	m.workers.Wait()
	m.lists.readAll(m)
	m.bank.readAll(m)
	m.finishStreams()
	total := 0
	report := func(what string, found []history.Violation, seen ...any) {
		m.t.Helper()
		total += len(found)
		if len(found) > 0 {
			m.t.Errorf("%s: %s", what, history.Report(found))
		}
		m.t.Logf("%s: %s; %d violations", what, fmt.Sprint(seen...), len(found))
	}
	m.lists.judge(report)
	m.bank.judge(report)
	m.store.judge(report)
	m.stream.judge(m, report)
	m.ttl.judge(m, report)
	m.fence.judge(report)
	m.mutex.judge(m, report)
	m.elect.judge(m, report)
	return total
}

// report takes what a judge found and how much it saw.
type report func(what string, found []history.Violation, seen ...any)

// worker is one client of a mixed workload.
type worker struct {
	*mixed
	id     int
	client *client.Client
	random *rand.Rand
}

// until repeats work until the workload ends.
func (w *worker) until(work func(*worker)) {
	for {
		select {
		case <-w.stop:
			return
		default:
			work(w)
		}
	}
}

// chance is true in one of n.
func (w *worker) chance(n int) bool { return w.random.IntN(n) == 0 }

func (w *worker) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), mixedTimeout)
}

// places draws the hash parts of a transaction: one, or in the share that the test
// wants, some of two groups and more.
func (w *worker) places() (tags []string) {
	groups := w.random.Perm(len(w.tags))
	if w.random.Float64() >= w.share {
		groups = groups[:1]
	} else {
		groups = groups[:2+w.random.IntN(min(5, len(groups))-1)]
	}
	for _, g := range groups {
		tags = append(tags, w.tags[g][w.random.IntN(len(w.tags[g]))])
	}
	return tags
}

// spread draws up to n keys over hash parts, one of each at least.
func (w *worker) spread(prefix string, tags []string, n int) (keys []string) {
	for i := range max(n, len(tags)) {
		key := fmt.Sprintf("%s%s%d", prefix, tags[i%len(tags)], w.random.IntN(keysOfTag))
		if !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// keysOfTag is how many keys of a hash part are used.
const keysOfTag = 2

// pause waits, unless the workload ends.
func (w *worker) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.stop:
	}
}

// there is a record or nil, if the error allows one of them.
func there(rec client.Record, err error) (*client.Record, error) {
	if errors.Is(err, client.ErrNotFound) {
		return nil, nil
	}
	return &rec, err
}
