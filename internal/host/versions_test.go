package host

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// allVersions reads the history of key a in pages.
func (c *cluster) allVersions(n *node, limit, maxBytes int) (all []format.Record, floor keyspace.Revision) {
	c.t.Helper()
	q := VersionsRequest{Namespace: keyspace.DefaultNamespace, Key: "a", Limit: limit, MaxBytes: maxBytes}
	for {
		p := c.readPoint(n)
		page, err := n.host.Versions(context.Background(), p, q)
		mustBe(c.t, err, "")
		all = append(all, page.Versions...)
		if !page.More {
			return all, page.Floor
		}
		q.Until = all[len(all)-1].Revision - 1
	}
}

// The versions of a key are what was written of it, down to what was current at
// the floor, however deltas and history lie and pages are cut.
func TestVersions(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	c := newCluster(t, 1, 1, func(c *cluster) { c.opt = func(o *Options) { o.Window = 10_000_000_000 } })
	n := c.nodes[0]
	var written []format.Record
	exists := false
	for i := range 60 {
		op := testOp("a", fmt.Sprint(i, strings.Repeat("x", r.IntN(3000))))
		if exists && r.IntN(4) == 0 {
			op.Delete, op.Value = true, nil
		}
		c.write(testOp("b", "another")) // beside it
		res := c.write(op)[0].Result
		exists = !op.Delete
		rec := format.Record{Value: op.Value}
		rec.Revision = res.Revision
		if op.Delete {
			rec.Flags = format.FlagTombstone
		}
		written = append(written, rec)
		if r.IntN(3) == 0 {
			n.host.seal()
		}
		c.pass(400_000_000)
	}
	for _, page := range []struct{ limit, bytes int }{{1, 1 << 20}, {7, 1 << 20}, {1000, 4000}, {1000, 1 << 20}} {
		got, floor := c.allVersions(n, page.limit, page.bytes)
		if floor <= written[0].Revision {
			t.Fatalf("the floor %d is still below the first write", floor)
		}
		var want []format.Record
		for _, rec := range slices.Backward(written) {
			if rec.Revision > floor || rec.Flags&format.FlagTombstone == 0 {
				want = append(want, rec)
			}
			if rec.Revision <= floor {
				break
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d versions above %d, want %d", len(got), floor, len(want))
		}
		for i := range got {
			if got[i].Revision != want[i].Revision || got[i].Flags&format.FlagTombstone != want[i].Flags || string(got[i].Value) != string(want[i].Value) {
				t.Errorf("version %d of %+v: at %d with %d bytes", i, page, got[i].Revision, len(got[i].Value))
			}
		}
	}
	_, err := n.host.Versions(context.Background(), ReadPoint{Group: testGroup, Slots: &format.SlotState{}}, VersionsRequest{Namespace: keyspace.DefaultNamespace, Key: "a", Limit: 1})
	mustBe(t, err, fault.WrongGroup)
	_, err = n.host.Versions(context.Background(), ReadPoint{Group: 99}, VersionsRequest{Namespace: keyspace.DefaultNamespace, Key: "a", Limit: 1})
	mustBe(t, err, fault.WrongLeader)
}

// A follower that has not closed a revision reads at it once it has what the
// leader's clock covered.
func TestPointBehind(t *testing.T) {
	c := newCluster(t, 3, 3)
	c.settle()
	rev := c.write(testOp("a", "1"))[0].Result.Revision
	leader, follower := c.nodes[0], c.nodes[1]
	var clock ClockReading
	var err error
	c.call("the clock is read", func() { clock, err = leader.host.Clock(context.Background(), testGroup, rev) })
	mustBe(t, err, "")
	_, err = follower.host.PointBehind(context.Background(), ScanPoint{Group: testGroup}, clock.Clock+1<<40)
	mustBe(t, err, fault.FailedPrecondition) // not closed, and nothing is said of an index
	var p ReadPoint
	c.call("the follower catches up", func() {
		p, err = follower.host.PointBehind(context.Background(), ScanPoint{Group: testGroup, Index: clock.Index}, clock.Clock)
	})
	mustBe(t, err, "")
	if p.Rev != clock.Clock || p.Index < clock.Index {
		t.Fatalf("point %+v of clock %+v", p, clock)
	}
	rec, err := c.getAt(follower, p, "a")
	if err != nil || string(rec.Value) != "1" {
		t.Fatalf("%+v, %v", rec, err)
	}
}

// A page that the floor overtakes may lack what was replaced: it is refused.
func TestFloorOvertakesAScan(t *testing.T) {
	c := newCluster(t, 1, 1)
	rev := c.write(testOp("a", "1"))[0].Result.Revision
	h := c.nodes[0].host
	rise := func([]byte, *format.Record) { h.floor.Store(uint64(rev) + 1) }
	var err error
	c.call("the clock is read", func() { _, err = h.Clock(context.Background(), testGroup, rev) })
	mustBe(t, err, "")
	q := ScanRequest{Namespace: keyspace.DefaultNamespace, Revision: rev}
	c.call("a page is read", func() { _, err = h.ScanGroup(context.Background(), testGroup, q, func([]byte, *format.Record) {}) })
	mustBe(t, err, "")
	c.call("a page is read", func() { _, err = h.ScanGroup(context.Background(), testGroup, q, rise) })
	mustBe(t, err, fault.OutOfRange)
}
