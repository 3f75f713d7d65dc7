package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/replica"
)

// deadlines are the keys of a replica's index, and those that its newest records
// should have.
func (n *node) deadlines(id keyspace.GroupID) (index, want []string) {
	n.c.t.Helper()
	view := n.host.opt.Store.View()
	defer view.Close()
	it := view.Scan(mvcc.ScanOptions{Instance: n.host.groups[id].instance.id, At: keyspace.MaxRevision})
	defer it.Close()
	for ; it.Valid(); it.Next() {
		switch kind := keyspace.KindOf(it.Key()); {
		case string(it.Key()) == string(replica.WholeIndexKey()):
		case kind == keyspace.KindTTL:
			index = append(index, string(it.Key()))
		case kind == keyspace.KindData:
			value, err := it.Value()
			if err != nil {
				n.c.t.Fatal(err)
			}
			h, err := format.DecodeHeader(value, it.Revision())
			if err != nil {
				n.c.t.Fatal(err)
			}
			if h.Expires != 0 {
				want = append(want, string(keyspace.AppendTTLKey(nil, h.Expires, it.Key())))
			}
		default: // chunks
		}
	}
	slices.Sort(want)
	return index, want
}

func (c *cluster) mustBeIndexed(id keyspace.GroupID, n *node) {
	c.t.Helper()
	if index, want := n.deadlines(id); !slices.Equal(index, want) {
		c.t.Fatalf("group %d on %s: the index has %q, the records want %q", id, n.id, index, want)
	}
}

func expiringOp(key, value string, ttl time.Duration) replica.Op {
	op := testOp(key, value)
	op.TTL = ttl
	return op
}

// newest is the newest record of a key on a node, with its tombstones.
func (n *node) newest(key string) *format.Record {
	n.c.t.Helper()
	view := n.host.opt.Store.View()
	defer view.Close()
	value, rev, ok, err := view.Get(n.group().instance.id, disk(key), keyspace.MaxRevision)
	if err != nil {
		n.c.t.Fatal(err)
	}
	if !ok {
		return nil
	}
	rec, err := format.DecodeRecord(value, rev)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return &rec
}

func (n *node) expired(key string) bool {
	rec := n.newest(key)
	return rec != nil && rec.Flags == format.FlagTombstone|format.FlagExpired
}

// What has expired is deleted on all replicas, not before its deadline on the
// group's clock, with chunks and index; the rest stays. A sweep goes on after a
// failover, a snapshot and a restart.
func TestSweep(t *testing.T) {
	c := newCluster(t, 4, 3)
	lead := c.serving()
	large := strings.Repeat("x", 2500)
	ops := c.write(expiringOp("soon", "v", 2*time.Second), expiringOp("large", large, 2*time.Second), expiringOp("late", "v", 30*time.Second), testOp("never", "v"))
	c.write(expiringOp("touched", large, 2*time.Second))
	c.write(replica.Op{Touch: true, Namespace: keyspace.DefaultNamespace, Key: "touched", TTL: 30 * time.Second})
	c.pump("the first keys are swept", func() bool { return lead.expired("soon") && lead.expired("large") })
	if rec := lead.newest("soon"); rec.Revision.UnixMilli() < ops[0].Result.Expires || rec.Revision.UnixMilli() > ops[0].Result.Expires+2000 {
		t.Fatalf("the deadline was %d, swept at %d", ops[0].Result.Expires, rec.Revision.UnixMilli())
	}
	c.mustGet(lead, "touched", large)
	c.pump("it is counted", func() bool { s := statusOf(lead); return s.Swept == 2 && s.Backlog == 0 })
	c.settle()
	for _, n := range c.nodes[:3] {
		c.mustBeIndexed(testGroup, n)
		if !n.expired("large") {
			t.Fatalf("%s has %+v", n.id, n.newest("large"))
		}
	}
	lead.stop()
	c.pump("another node leads", func() bool { return c.serving() != nil })
	next := c.serving()
	c.pump("it sweeps what is due now", func() bool { return next.expired("late") && next.expired("touched") })
	c.mustGet(next, "never", "v")
	lead.open()
	c.pump("the first leader follows", func() bool { return lead.group() != nil && lead.expired("late") })
	c.settle()
	c.mustBeIndexed(testGroup, lead)
}

func statusOf(n *node) GroupStatus {
	for _, s := range n.host.Groups() {
		if s.Group == testGroup {
			return s
		}
	}
	return GroupStatus{}
}

// A backlog of many keys goes in rounds, and is told.
func TestSweepOfABacklog(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := c.nodes[0]
	const keys = 2 * sweepRounds * sweepKeys
	var ops []replica.Op
	for i := range keys {
		ops = append(ops, expiringOp(fmt.Sprintf("k%04d", i), "v", time.Second))
	}
	n.host.control(func() { n.host.sweeps = maxSweeps }) // none may begin
	c.write(ops...)
	c.pass(3 * time.Second)
	if s := statusOf(n); s.Swept != 0 {
		t.Fatalf("%d keys were swept", s.Swept)
	}
	n.host.control(func() { n.host.sweeps = 0 })
	most := 0
	c.pump("all are swept", func() bool {
		s := statusOf(n)
		most = max(most, s.Backlog)
		return s.Swept == keys && s.Backlog == 0
	})
	if most < sweepKeys || most > keys {
		t.Errorf("of %d keys the backlog was %d at most", keys, most)
	}
	c.mustBeIndexed(testGroup, n)
	before := n.group().core.State().Index
	c.pass(2 * time.Second)
	if g := n.group(); g.core.State().Index > before+3 || g.sweep.running || g.sweep.again != 0 {
		t.Errorf("after the backlog: %d entries, %+v", g.core.State().Index-before, g.sweep)
	}
}

// Records from before the index are found; the end is noted, so that the next leader
// does not look.
func TestOlderRecordsAreIndexed(t *testing.T) {
	for name, extra := range map[string]int{"a page": 0, "pages": walkRecords + 10} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, 1)
			n := c.nodes[0]
			c.pump("nothing is to be found yet", func() bool { return n.group().sweep.walk.done })
			n.group().sweep.walk = indexing{retry: 1<<63 - 1}
			c.write(expiringOp("due", "v", time.Second), expiringOp("later", "v", time.Hour), testOp("never", "v"))
			var ops []replica.Op
			for i := range extra {
				ops = append(ops, testOp(fmt.Sprint(i), ""))
			}
			if extra > 0 {
				c.write(ops...)
			}
			index, _ := n.deadlines(testGroup)
			for _, key := range index {
				n.host.opt.Store.Insert(n.group().instance.id, []byte(key), n.group().core.Clock()+1, nil, true)
			}
			c.pass(3 * time.Second)
			if n.expired("due") {
				t.Fatal("the index was not taken away")
			}
			n.group().sweep.walk.retry = 0
			c.pump("the walk ends", func() bool { return n.group().sweep.walk.done })
			c.mustBeIndexed(testGroup, n)
			if index, _ := n.deadlines(testGroup); !n.expired("due") || len(index) != 1 {
				t.Fatalf("due is %+v, %d keys in the index", n.newest("due"), len(index))
			}
			page, err := n.host.findUnindexed(context.Background(), n.group(), nil)
			if err != nil || page.whole != (extra > 0) {
				t.Fatalf("noted: %v, %v", page.whole, err)
			}
			n.crash()
			c.pump("it leads again", func() bool { return c.serving() == n && n.group().sweep.walk.done })
		})
	}
}

// Deadlines move with slots: the new owner sweeps, the old one does not, neither
// while they are frozen.
func TestSweepFollowsMoves(t *testing.T) {
	m := newMove(t)
	m.pump("both groups have looked at all", func() bool {
		return m.n.group().sweep.from != nil && m.n.host.groups[receiver].sweep.from != nil && !m.n.group().sweep.running
	})
	m.n.host.sweeps = maxSweeps // none may begin
	m.write(expiringOp("a", "v", time.Second), expiringOp("b", "v", time.Hour), testOp("c\xff", "v"))
	m.pass(3 * time.Second) // its deadline is before what the receiver has looked at
	m.moveAll(allSlots())
	m.n.host.sweeps = 0
	m.mustBeIndexed(receiver, m.n)
	at := func(id keyspace.GroupID, key string) format.RecordFlag {
		view := m.n.host.opt.Store.View()
		defer view.Close()
		value, rev, ok, _ := view.Get(m.n.host.groups[id].instance.id, disk(key), keyspace.MaxRevision)
		if !ok {
			return 0
		}
		hd, _ := format.DecodeHeader(value, rev)
		return hd.Flags
	}
	m.pump("the receiver sweeps", func() bool { return at(receiver, "a") == format.FlagTombstone|format.FlagExpired })
	m.pass(2 * time.Second)
	if at(testGroup, "a") != 0 {
		t.Fatal("the sender swept what it gave away")
	}
	m.purge()
	m.mustBeIndexed(testGroup, m.n)
	if index, _ := m.n.deadlines(testGroup); len(index) != 0 {
		t.Fatalf("purged, and the index has %q", index)
	}
	if index, _ := m.n.deadlines(receiver); len(index) != 1 {
		t.Fatalf("the receiver's index has %q", index)
	}
}

// What is applied while a round is under way is not passed by.
func TestARoundIsTakenBack(t *testing.T) {
	c := newCluster(t, 1, 1)
	g := c.nodes[0].group()
	s := &g.sweep
	c.pump("nothing is left", func() bool { return s.from != nil && s.walk.done && !s.running })
	const upto = testWall + 1<<30
	h := c.nodes[0].host
	h.beginSweep(s)
	s.note(upto - 5)
	found := dueKeys{next: keyspace.AppendTTLPrefix(nil, upto+1), due: upto + 99}
	h.endRound(&sweepRound{g: g, term: s.term, upto: upto, round: sweepRounds, found: found}, &replica.SweepOp{}, nil)
	if s.due != upto-5 || string(s.from) != string(keyspace.AppendTTLPrefix(nil, upto-5)) {
		t.Fatalf("due %d from %x", s.due, s.from)
	}
	if s.note(upto - 50); s.due != upto-50 || string(s.from) != string(keyspace.AppendTTLPrefix(nil, upto-50)) {
		t.Fatalf("after it: due %d from %x", s.due, s.from)
	}
}

// Frozen slots keep their expired records until they are free again.
func TestSweepLeavesFrozenSlots(t *testing.T) {
	c := newCluster(t, 1, 1, patient)
	n := c.nodes[0]
	slot := keyIn(leaving, 0)
	c.write(expiringOp(slot, "v", 2*time.Second))
	freeze := c.mustStep(freezing())
	c.pass(4 * time.Second)
	if n.expired(slot) {
		t.Fatal("swept a frozen slot")
	}
	if g := n.group(); g.sweep.again == 0 || g.sweep.held != 1 {
		t.Fatalf("passed over: %+v", g.sweep)
	}
	c.mustStep(format.SlotChange{Kind: format.SlotThaw, Move: freezing().Move, Nonce: freeze.Nonce})
	began := c.Mono()
	c.pump("the free slot is swept", func() bool { return n.expired(slot) })
	if took := c.Mono() - began; took > heldAgain/2 {
		t.Errorf("after %v", took)
	}
}

// A key that a transaction has locked outlives its deadline until that ends.
func TestSweepLeavesLockedKeys(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := c.nodes[0]
	c.write(expiringOp("k", "v", 2*time.Second), expiringOp("free", "v", 2*time.Second))
	k := c.txnKey(1, 40)
	c.order(testGroup, replica.OrderOp{Kind: replica.OrderPrepare, Key: k}, &replica.TxnOp{Checks: []replica.Op{checkOp("k", replica.Condition{MustExist: true})}})
	c.pass(5 * time.Second)
	if n.expired("k") {
		t.Fatalf("swept a locked key: %+v", n.group().sweep)
	}
	c.order(testGroup, replica.OrderOp{Kind: replica.OrderAbort, Key: k}, nil)
	c.pump("it is swept in the end", func() bool { return n.expired("k") && n.expired("free") })
	c.mustBeIndexed(testGroup, n)
}

// A follower that gets a snapshot has the index.
func TestSnapshotsHaveTheIndex(t *testing.T) {
	c := newCluster(t, 3, 3, shortLog)
	last := c.nodes[2]
	before := last.group().instance.id
	c.write(expiringOp("expires", "v", time.Hour))
	c.behind(last, "large")
	c.mustAgree()
	if last.group().instance.id == before {
		t.Fatal("it caught up without a snapshot")
	}
	if index, _ := last.deadlines(testGroup); len(index) != 1 {
		t.Fatalf("%d keys in the index", len(index))
	}
	c.mustBeIndexed(testGroup, last)
}

// Expired leases are handed to their hook, again and again until they are gone, and
// hold up nobody.
func TestExpiredLeasesAreHandedOver(t *testing.T) {
	var told atomic.Int32
	c := newCluster(t, 1, 1, func(c *cluster) {
		c.opt = func(o *Options) {
			o.Hooks.LeaseExpired = func(g keyspace.GroupID, key string) {
				if g == testGroup && key == keyspace.LeaseKey("lease") {
					told.Add(1)
				}
			}
		}
	})
	lease := expiringOp(keyspace.LeaseKey("lease"), "v", time.Second)
	lease.Namespace = keyspace.LeaseNamespace
	c.write(lease)
	beside := expiringOp(keyspace.LeaseAttachedKey("lease", "default", "k"), "v", time.Second)
	beside.Namespace = keyspace.LeaseNamespace
	c.write(beside)
	c.write(expiringOp("k", "v", 2*time.Second))
	c.pump("the key behind the lease is swept", func() bool { return c.nodes[0].expired("k") })
	began, before := c.Mono(), told.Load()
	c.pump("it is told again", func() bool { return told.Load() >= before+3 })
	if took := c.Mono() - began; took < 2*time.Second || took > 6*time.Second {
		t.Errorf("three times in %v", took)
	}
	if index, _ := c.nodes[0].deadlines(testGroup); len(index) != 1 {
		t.Fatalf("%d keys in the index: only the lease itself stays", len(index))
	}
}

// A touch of a value below the deltas brings what it needs.
func TestTouchOfFlushedRecords(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := c.nodes[0]
	large := strings.Repeat("x", 3500)
	c.write(testOp("small", "v"), testOp("large", large))
	n.host.control(n.host.seal)
	c.pump("all is flushed", func() bool { return n.host.opt.Store.Sealed() == 0 && !n.host.flush.running })
	chunks := n.chunks()
	for key, want := range map[string]string{"small": "v", "large": large} {
		op := replica.Op{Touch: true, Namespace: keyspace.DefaultNamespace, Key: key, TTL: time.Hour,
			Condition: replica.Condition{ValueEquals: []byte(want), HasValueEquals: true}}
		res := c.write(op)[0].Result
		rec, err := c.get(n, key)
		if err != nil || string(rec.Value) != want || rec.Expires != res.Expires || rec.Version != 2 {
			t.Fatalf("%q: %+v, %v", key, rec, err)
		}
	}
	if now := n.chunks(); now != chunks || chunks != 4 {
		t.Errorf("%d chunks before, %d after", chunks, now)
	}
	r, answers := n.submit(replica.Op{Touch: true, Namespace: keyspace.DefaultNamespace, Key: "none"})
	c.pump("it is answered", func() bool { return answers.Load() > 0 })
	mustBe(t, r.Ops[0].Result.Err, fault.ConditionFailed)
	c.mustBeIndexed(testGroup, n)
}

func (n *node) chunks() (count int) {
	view := n.host.opt.Store.View()
	defer view.Close()
	lower := []byte{byte(keyspace.KindChunk)}
	it := view.Scan(mvcc.ScanOptions{Instance: n.group().instance.id, Lower: lower, Upper: keyspace.PrefixEnd(lower), At: keyspace.MaxRevision, AllVersions: true})
	defer it.Close()
	for ; it.Valid(); it.Next() {
		count++
	}
	return count
}
