package host

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/engine"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// Reads that wait are bounded in every stage, and all of them are answered.
func TestWaitingReadsAreBounded(t *testing.T) {
	c := newCluster(t, 3, 3, func(c *cluster) { c.opt = func(o *Options) { o.MaxWaitingReads = 10 } })
	n := c.nodes[2]
	c.drop = func(from, to *node, _ *api.GroupMessage) bool { return from == n || to == n }
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answers, overloaded := 0, 0
	for range 30 { // each in a loop of its own, so that they leave the first stage
		n.host.ReadIndex(ctx, testGroup, func(_ ReadPoint, err error) {
			if answers++; fault.CodeOf(err) == fault.Overloaded {
				overloaded++
			}
		})
		if err := n.host.Step(); err != nil {
			t.Fatal(err)
		}
	}
	if answers != 20 || overloaded != 20 {
		t.Fatalf("%d answers, %d overloaded, of 30 reads where 10 may wait", answers, overloaded)
	}
	c.drop = nil
	c.pump("the rest is answered", func() bool { return answers == 30 })
	if overloaded != 20 || n.group().reads.count != 0 {
		t.Fatalf("%d overloaded, %d still counted", overloaded, n.group().reads.count)
	}
}

// A request that finds too many others waiting is told so, and every request
// is answered once.
func TestWritesAreBounded(t *testing.T) {
	c := newCluster(t, 1, 1, func(c *cluster) { c.opt = func(o *Options) { o.MaxQueueOps = 5 } })
	n := c.nodes[0]
	codes := make(map[fault.Code]int)
	var all []func() (int32, error)
	for i := range 12 {
		r, answers := n.submit(testOp(fmt.Sprint(i), "v"))
		all = append(all, func() (int32, error) { return answers.Load(), r.Err })
	}
	c.pump("all are answered", func() bool {
		return !slices.ContainsFunc(all, func(f func() (int32, error)) bool { count, _ := f(); return count == 0 })
	})
	for _, f := range all {
		count, err := f()
		if count != 1 {
			t.Fatalf("%d answers", count)
		}
		codes[fault.CodeOf(err)]++
	}
	if codes[""] != 5 || codes[fault.Overloaded] != 7 {
		t.Fatalf("answers by code: %v", codes)
	}
}

// A reader who waits for a ceiling that cannot be raised now does not keep the
// loop busy.
func TestWaitForACeilingIsIdle(t *testing.T) {
	c := newCluster(t, 3, 3)
	lead := c.nodes[0]
	c.settle()
	if !lead.host.beginTransfer(lead.group(), 2, c.Mono()) {
		t.Fatal("no transfer")
	}
	c.drop = func(from, to *node, m *api.GroupMessage) bool { return true }
	later := keyspace.RevisionAt(c.Wall() + 60_000)
	answered := false
	lead.host.readIndex(t.Context(), testGroup, later, func(ReadPoint, error) { answered = true })
	steps := 0
	for ; steps < 50 && lead.host.Busy(); steps++ {
		if err := lead.host.Step(); err != nil {
			t.Fatal(err)
		}
	}
	if steps == 50 {
		t.Fatal("the loop runs and gets nowhere")
	}
	c.drop = nil
	c.pump("the read is answered", func() bool { return answered })
}

// scanAll reads all pages.
func (c *cluster) scanAll(n *node, r ScanRequest) (keys []string, pages int) {
	c.t.Helper()
	for {
		var page ScanPage
		var err error
		c.call("a scan", func() { page, err = n.host.Scan(context.Background(), testGroup, r) })
		if err != nil {
			c.t.Fatal(err)
		}
		pages++
		for i := range page.Items {
			keys = append(keys, page.Items[i].Key)
		}
		if r.Limit > 0 && len(page.Items) > r.Limit {
			c.t.Fatalf("%d items on a page of %d", len(page.Items), r.Limit)
		}
		if !page.More {
			return keys, pages
		}
		if r.Reverse {
			r.End = page.Next
		} else {
			r.Start = page.Next
		}
	}
}

// Pages of any size, direction and range hold exactly the keys of the range,
// in order, whatever bytes the keys have.
func TestScanPages(t *testing.T) {
	c := newCluster(t, 1, 1, func(c *cluster) {
		c.store.SealBytes = 3000
		c.opt = func(o *Options) { o.ScanRecords = 17 }
	})
	n := c.nodes[0]
	rng := rand.New(rand.NewPCG(7, 7))
	live := make(map[string]string) // key -> tag
	alphabet := []string{"\x00", "\x01", "a", "b", "\x7f", "é", "\U0010ffff"}
	randomKey := func() string {
		var b strings.Builder
		for range 1 + rng.IntN(4) {
			b.WriteString(alphabet[rng.IntN(len(alphabet))])
		}
		return b.String()
	}
	for range 150 {
		op := testOp(randomKey(), strings.Repeat("v", rng.IntN(60)))
		op.Tags = map[string]string{"t": fmt.Sprint(rng.IntN(3))}
		live[op.Key] = op.Tags["t"]
		if rng.IntN(5) == 0 {
			op.Delete, op.Value, op.Tags = true, nil, nil
			delete(live, op.Key)
		}
		c.write(op)
	}
	var reading ClockReading
	var err error
	c.call("the clock", func() { reading, err = n.host.Clock(context.Background(), testGroup, 0) })
	if err != nil {
		t.Fatal(err)
	}
	c.write(testOp("a-later", "not seen"))
	for range 80 {
		r := ScanRequest{Namespace: keyspace.DefaultNamespace, Revision: reading.Clock, Reverse: rng.IntN(2) == 0, Limit: rng.IntN(12), KeysOnly: rng.IntN(2) == 0}
		if rng.IntN(2) == 0 {
			r.MaxBytes = 1 + rng.IntN(900)
		}
		if rng.IntN(2) == 0 {
			r.Start = []byte(randomKey())
		}
		if rng.IntN(2) == 0 {
			r.End = []byte(randomKey())
		}
		if rng.IntN(3) == 0 {
			r.Tags = map[string]string{"t": "1"}
		}
		var want []string
		for k, tag := range live {
			if k >= string(r.Start) && (len(r.End) == 0 || k < string(r.End)) && (r.Tags == nil || tag == "1") {
				want = append(want, k)
			}
		}
		sort.Strings(want)
		if r.Reverse {
			slices.Reverse(want)
		}
		if got, _ := c.scanAll(n, r); !slices.Equal(got, want) {
			t.Fatalf("%+v:\n got %q\nwant %q", r, got, want)
		}
		if got := c.countAll(n, r); got != len(want) {
			t.Fatalf("%+v: counted %d, want %d", r, got, len(want))
		}
	}
}

// countAll adds up the pages of a count.
func (c *cluster) countAll(n *node, r ScanRequest) (count int) {
	c.t.Helper()
	r.CountOnly = true
	for {
		page, err := n.host.Scan(context.Background(), testGroup, r)
		if err != nil {
			c.t.Fatal(err)
		}
		count += int(page.Count)
		if !page.More {
			return count
		}
		if r.Reverse {
			r.End = page.Next
		} else {
			r.Start = page.Next
		}
	}
}

// Reads are confirmed however slow the loop is: a confirmation that took
// longer than the patience with it counts when it is there.
func TestSlowLoopsConfirmReads(t *testing.T) {
	c := newCluster(t, 3, 3)
	answered := false
	c.nodes[0].host.ReadIndex(t.Context(), testGroup, func(_ ReadPoint, err error) { answered = err == nil })
	for range 20 {
		c.elapsed.Add(int64(600 * time.Millisecond))
		for _, n := range c.nodes {
			n.host.Tick()
		}
		c.step()
	}
	if !answered {
		t.Fatal("no confirmation in twenty slow loops")
	}
}

// DESIGN 10: what a restart replays lies above the floor.
func TestFloorStaysBelowTheCheckpoint(t *testing.T) {
	c := newCluster(t, 1, 1, func(c *cluster) { c.opt = func(o *Options) { o.Window = time.Millisecond } })
	n := c.nodes[0]
	for range 3 {
		c.write(testOp("k", "v"))
		c.pass(time.Second)
		c.write(testOp("k", "w"))
		id := n.host.opt.Store.Seal()
		n.host.flush.checkpoints[uint64(id)] = []checkpointOf{n.host.checkpointOf(n.group())}
		if got, ok, err := n.host.opt.Store.FlushOldest(t.Context(), n.host.alive); got != id || !ok || err != nil {
			t.Fatalf("flushed %d: %v %v", got, ok, err)
		}
		n.host.flushed(id)
		s, err := format.DecodeState(n.log.Groups()[0].Checkpoint.State)
		if err != nil {
			t.Fatal(err)
		}
		if floor := keyspace.Revision(n.host.floor.Load()); floor > s.LastRev {
			t.Fatalf("the floor %v is above the durable checkpoint at %v", floor, s.LastRev)
		}
		c.pass(time.Second)
	}
	if n.host.floor.Load() == 0 {
		t.Fatal("the floor never moves")
	}
}

// An instance is deleted when the flush that may write it has ended.
func TestDeletionWaitsForTheFlush(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := c.nodes[0]
	has := func() bool {
		ids, err := n.engine.Instances(t.Context())
		return err != nil || slices.Contains(ids, 99)
	}
	n.host.flush.running = true
	n.host.retireInstance(&instance{id: 99})
	n.host.wg.Wait()
	key := append(keyspace.AppendInstance(nil, 99), 1)
	if err := n.engine.Write(t.Context(), []engine.Write{{Key: key, Revision: 5, Value: []byte("late")}}); err != nil || !has() {
		t.Fatal("the flush did not write", err)
	}
	n.host.flushEnded()
	c.pump("the instance is deleted", func() bool { return !has() })
}
