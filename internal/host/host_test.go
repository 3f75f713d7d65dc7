package host

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

// Linearizable reads are served by the leader and by followers.
func TestReadsOnEveryReplica(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("k", "v1"))
	for _, n := range c.nodes {
		c.mustGet(n, "k", "v1")
	}
	c.write(testOp("k", "v2"))
	for _, n := range c.nodes {
		c.mustGet(n, "k", "v2")
		_, err := c.get(n, "absent")
		mustBe(t, err, fault.NotFound)
	}
}

func TestCommitLatencyIsReported(t *testing.T) {
	var reported []time.Duration
	c := newCluster(t, 3, 3, func(c *cluster) {
		c.opt = func(o *Options) { o.Hooks.Commit = func(d time.Duration) { reported = append(reported, d) } }
	})
	before := len(reported)
	for range 5 {
		c.write(testOp("k", "v"))
	}
	c.settle()
	if n := len(reported) - before; n < 5 || slices.Max(reported) > time.Minute {
		t.Fatalf("%d commits reported for 5 writes: %v", n, reported[before:])
	}
	if left := len(c.serving().group().proposed); left != 0 {
		t.Fatalf("%d proposals are still waited for", left)
	}
}

// Large values go through the log in chunks and come back whole; an old
// version stays readable at its revision after it was overwritten.
func TestLargeValues(t *testing.T) {
	c := newCluster(t, 3, 3)
	large, other := strings.Repeat("abcdefg", 2000), strings.Repeat("x", 1001)
	first := c.write(testOp("big", large), testOp("other", other))[0].Result.Revision
	for _, n := range c.nodes {
		c.mustGet(n, "big", large)
		c.mustGet(n, "other", other)
	}
	c.write(testOp("big", other))
	c.settle()
	c.pass(time.Second)
	for _, n := range c.nodes {
		c.mustGet(n, "big", other)
		p, err := n.host.PointAt(testGroup, first)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := c.getAt(n, p, "big")
		if err != nil || string(rec.Value) != large {
			t.Fatalf("old version on %s: %v", n.id, err)
		}
	}
	c.mustAgree()
}

// A record is hidden when its time has come, although no entry was written
// since: the read has one raise the ceiling first.
func TestExpiryIsHiddenAtOnce(t *testing.T) {
	c := newCluster(t, 3, 3)
	op := testOp("k", "v")
	op.TTL = 5 * time.Second
	expires := c.write(op)[0].Result.Expires
	for _, n := range c.nodes {
		c.mustGet(n, "k", "v")
	}
	c.pass(time.Duration(expires-c.Wall())*time.Millisecond + 100*time.Millisecond)
	for _, n := range []*node{c.nodes[1], c.nodes[0], c.nodes[2]} {
		if _, err := c.get(n, "k"); fault.CodeOf(err) != fault.NotFound {
			t.Fatalf("on %s %d ms late: %v", n.id, c.Wall()-expires, err)
		}
	}
}

// A list that begins after a deadline does not show the record.
func TestExpiryIsHiddenFromLists(t *testing.T) {
	c := newCluster(t, 1, 1)
	op := testOp("k", "v")
	op.TTL = 5 * time.Second
	c.write(op)
	c.pass(6 * time.Second)
	var page ScanPage
	var err error
	c.call("a list", func() {
		var at ClockReading
		if at, err = c.nodes[0].host.Clock(context.Background(), testGroup, 0); err == nil {
			page, err = c.nodes[0].host.Scan(context.Background(), testGroup, ScanRequest{Namespace: keyspace.DefaultNamespace, Revision: at.Clock})
		}
	})
	if err != nil || len(page.Items) != 0 {
		t.Fatalf("%d items, error %v", len(page.Items), err)
	}
}

// Whatever the engine lost in a crash comes back from the log.
func TestRestartReplays(t *testing.T) {
	c := newCluster(t, 3, 3, func(c *cluster) { c.store.SealBytes = 2000 })
	large := strings.Repeat("z", 3500)
	for i := range 50 {
		c.write(testOp(string(rune('a'+i%20)), strings.Repeat("v", i)), testOp("big", large))
	}
	c.settle()
	before, err := c.nodes[0].host.StateHash(context.Background(), testGroup)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		n.crash()
	}
	c.pump("somebody leads", func() bool { return c.serving() != nil })
	c.mustAgree()
	after, err := c.nodes[0].host.StateHash(context.Background(), testGroup)
	if err != nil || after.Hash != before.Hash || after.Keys != before.Keys {
		t.Fatalf("%+v before the crash, %+v after it (error %v)", before, after, err)
	}
	for _, n := range c.nodes {
		c.mustGet(n, "big", large)
	}
}

// Every version inside the window is read as it was, flushed or not, before and
// after a restart, at every replica.
func TestThePastStaysReadable(t *testing.T) {
	c := newCluster(t, 3, 3, func(c *cluster) { c.store.SealBytes = 2000 })
	var revisions []keyspace.Revision
	value := func(i int) string { return strings.Repeat("v", i+1) }
	for i := range 100 {
		revisions = append(revisions, c.write(testOp("k", value(i)), testOp(string(rune('a'+i%7)), value(100)))[0].Result.Revision)
	}
	check := func(n *node) {
		t.Helper()
		c.pump("the replica has it all", func() bool { return n.group().published.Load().closed >= revisions[len(revisions)-1] })
		for i, rev := range revisions {
			p, err := n.host.PointAt(testGroup, rev)
			if err != nil {
				t.Fatal(err)
			}
			rec, err := c.getAt(n, p, "k")
			if err != nil || string(rec.Value) != value(i) {
				t.Fatalf("version %d on %s: %v, error %v", i, n.id, rec, err)
			}
		}
	}
	c.settle()
	c.pass(time.Second)
	for _, n := range c.nodes {
		if len(n.host.opt.Store.HistoryInstances()) == 0 {
			t.Fatalf("%s keeps no history", n.id)
		}
		check(n)
	}
	for _, n := range c.nodes {
		n.crash()
	}
	c.pump("somebody leads", func() bool { return c.serving() != nil })
	for _, n := range c.nodes {
		check(n)
	}
}

// Close leaves nothing to replay and answers everybody, then and later.
func TestCloseFlushesAndAnswers(t *testing.T) {
	c := newCluster(t, 1, 1)
	c.write(testOp("k", "v"))
	n := c.nodes[0]
	index := n.group().core.State().Index
	pending, answers := n.submit(testOp("k", "w"))
	if err := n.host.Close(); err != nil {
		t.Fatal(err)
	}
	if answers.Load() != 1 {
		t.Fatalf("%d answers to what was waiting", answers.Load())
	}
	mustBe(t, pending.Err, fault.Unavailable)
	late, answers := n.submit(testOp("k", "w"))
	if answers.Load() != 1 || late.Err == nil {
		t.Fatalf("%d answers after the end: %v", answers.Load(), late.Err)
	}
	reads := 0
	n.host.ReadIndex(context.Background(), testGroup, func(_ ReadPoint, err error) {
		reads++
		mustBe(t, err, fault.Unavailable)
	})
	if reads != 1 {
		t.Fatalf("%d answers to a read after the end", reads)
	}
	if err := n.host.Close(); err != nil {
		t.Fatalf("second close: %v", err)
	}
	if got := n.log.Groups()[0].Checkpoint.Index; got < index {
		t.Fatalf("checkpoint at %d, applied was %d", got, index)
	}
	n.host = nil
	n.open()
	if got := n.group().core.State().Index; got < index {
		t.Fatalf("starts at %d, applied was %d", got, index)
	}
	c.pump("it leads again", func() bool { return c.serving() != nil })
	c.mustGet(n, "k", "v")
}

// The loop of its own goroutine does the same.
func TestStartedHostCloses(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := c.nodes[0]
	h := n.host
	n.host = nil // the loop is its own now
	h.Start(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			n := &node{c: c, host: h}
			r, answers := n.submit(testOp("k", "v"))
			for end := time.Now().Add(10 * time.Second); answers.Load() == 0; runtime.Gosched() {
				if time.Now().After(end) {
					t.Error("no answer")
					return
				}
			}
			if r.Err != nil {
				return
			}
		}
	}()
	for h.lookup(testGroup).published.Load().index < 20 {
		runtime.Gosched()
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	<-done
}

// What comes while the loop fails is answered before Close: who sends it is closed
// first, and waits for the answer.
func TestFailedHostAnswers(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := &node{c: c, host: c.nodes[0].host}
	h := n.host
	c.nodes[0].host = nil // the loop is its own now
	h.Start(t.Context())
	var late *replica.Request
	var answers *atomic.Int32
	reads := make(chan error, 1)
	h.control(func() {
		late, answers = n.submit(testOp("k", "v"))
		h.ReadIndex(context.Background(), testGroup, func(_ ReadPoint, err error) { reads <- err })
		h.syncs.err = errors.New("the disk is gone")
	})
	<-h.Done()
	if answers.Load() != 1 || len(reads) != 1 {
		t.Fatalf("%d answers to a write, %d to a read", answers.Load(), len(reads))
	}
	mustBe(t, late.Err, fault.Unavailable)
	mustBe(t, <-reads, fault.Unavailable)
	answers.Store(0)
	again := &replica.Request{Group: testGroup, Ops: []replica.Op{testOp("k", "w")}, Done: func(*replica.Request) { answers.Add(1) }}
	h.refetch(h.lookup(testGroup), []*replica.Request{again})
	if err := h.Close(); err == nil || answers.Load() != 1 {
		t.Fatalf("closed: %v, with %d answers to what was fetched again", err, answers.Load())
	}
}

// Who waits for an index to be applied is told when the host has ended.
func TestWaitForAnIndexEndsWithTheHost(t *testing.T) {
	c := newCluster(t, 1, 1)
	h := c.nodes[0].host
	c.nodes[0].host = nil // the loop is its own now
	h.Start(t.Context())
	far := ScanPoint{Group: testGroup, Index: 1 << 40}
	waits := make(chan error, 1)
	h.control(func() {
		go func() {
			_, err := h.PointBehind(context.Background(), far, keyspace.MaxRevision)
			waits <- err
		}()
	})
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	mustBe(t, <-waits, fault.Unavailable)
	_, err := h.PointBehind(context.Background(), far, keyspace.MaxRevision)
	mustBe(t, err, fault.Unavailable)
}

// Whoever gives an instance up may have looked just before Close whether the host
// goes on: nothing is begun then whose storage goes meanwhile.
func TestNothingBeginsAfterClose(t *testing.T) {
	c := newCluster(t, 1, 1)
	h := c.nodes[0].host
	began := false
	h.opt.Go = func(func(context.Context)) {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		h.spawn(func(context.Context) { began = true })
	}
	h.deleteInstance(&instance{id: 99})
	h.wg.Wait()
	if began {
		t.Fatal("a job began after Close")
	}
}

// Replicas hash the same records at one index.
func TestDigestsAgree(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.write(testOp("a", "1"), testOp("b", strings.Repeat("y", 5000)))
	del := testOp("a", "")
	del.Delete, del.Value = true, nil
	c.write(del)
	var index keyspace.Index
	var err error
	c.call("a digest", func() { index, err = c.nodes[0].host.RequestDigest(context.Background(), testGroup) })
	if err != nil {
		t.Fatal(err)
	}
	var want Digest
	for _, n := range c.nodes {
		var d Digest
		c.pump("a digest everywhere", func() (ok bool) { d, ok = n.host.DigestAt(testGroup, index); return ok })
		if want == (Digest{}) {
			want = d
		}
		if d != want || d.Keys != 1 {
			t.Fatalf("node %s: %+v, another %+v", n.id, d, want)
		}
	}
	c.mustAgree()
}
