package host

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

// participant is one of a transaction, in testGroup; the other is not looked at.
type participant struct {
	c    *cluster
	key  keyspace.TxnKey
	seen twophase.Record // when it was prepared
}

// order gives an order to the participant on the leader.
func (p *participant) order(o replica.OrderOp, t *replica.TxnOp) twophase.Record {
	p.c.t.Helper()
	for {
		p.c.pump("a leader serves", func() bool { return p.c.serving() != nil })
		var answers atomic.Int32
		one := o
		one.Key, one.Participants = p.key, []keyspace.SlotID{p.key.Slot, p.key.Slot + 1}
		r := &replica.Request{Group: testGroup, Order: &one, Txn: t, Done: func(*replica.Request) { answers.Add(1) }}
		p.c.serving().host.Submit(context.Background(), r)
		p.c.pump("the order is answered", func() bool { return answers.Load() > 0 })
		switch fault.CodeOf(r.Err) {
		case "":
			return one.Result.Record
		case fault.WrongLeader, fault.UnknownOutcome, fault.Overloaded, fault.Unavailable:
		default:
			p.c.t.Fatal(r.Err)
		}
	}
}

// prepare prepares a transaction that writes some keys and only looks at others.
func (c *cluster) prepare(number uint64, writes, looks []string) *participant {
	c.t.Helper()
	p := &participant{c: c, key: keyspace.TxnKey{ID: keyspace.TxnID{Created: keyspace.RevisionAt(c.Wall()), Random: number}, Attempt: 1,
		Slot: keyspace.SlotID(number % 1000)}}
	t := replica.TxnOp{}
	for _, k := range writes {
		t.Then = append(t.Then, testOp(k, fmt.Sprint("of ", number)))
	}
	for _, k := range looks {
		t.Checks = append(t.Checks, checkOp(k, replica.Condition{MustExist: true}))
	}
	if p.seen = p.order(replica.OrderOp{Kind: replica.OrderPrepare}, &t); p.seen.State != twophase.Prepared || !p.seen.Holds {
		c.t.Fatalf("prepared as %+v", p.seen)
	}
	return p
}

// commit commits at a revision that another group gave, so far above its own stamp.
func (p *participant) commit(ahead time.Duration) keyspace.Revision {
	p.c.t.Helper()
	at := p.seen.Stamp + keyspace.RevisionAt(ahead.Milliseconds())
	p.order(replica.OrderOp{Kind: replica.OrderCommit, At: at, Branch: twophase.Then}, nil)
	return at
}

func (p *participant) abort() {
	p.c.t.Helper()
	p.order(replica.OrderOp{Kind: replica.OrderAbort}, nil)
}

// lockAsks counts how often nodes asked for the end of a transaction.
type lockAsks struct{ n atomic.Int32 }

func (a *lockAsks) count(o *Options) {
	o.Hooks.Locked = func(keyspace.GroupID, *format.Prepared) { a.n.Add(1) }
}

// later starts a read on a node that has to wait; the function it returns waits for
// its answer, which must not have come before.
func (c *cluster) later(a *lockAsks, read func() string) (answer func() string) {
	c.t.Helper()
	before := a.n.Load()
	got := make(chan string, 1)
	go func() { got <- read() }()
	c.pump("somebody is asked to finish the transaction", func() bool { return a.n.Load() > before })
	select {
	case s := <-got:
		c.t.Fatalf("the read did not wait: %s", s)
	default:
	}
	return func() (s string) {
		c.t.Helper()
		c.pump("the read ends", func() bool {
			select {
			case s = <-got:
				return true
			default:
				return false
			}
		})
		return s
	}
}

func said(rec *format.Record, err error) string {
	if err != nil {
		return string(fault.CodeOf(err))
	}
	return string(rec.Value)
}

func (n *node) get(p ReadPoint, key string) string {
	return said(n.host.Get(context.Background(), p, keyspace.DefaultNamespace, key, false))
}

func (n *node) each(p ReadPoint, keys ...string) string {
	var out []string
	err := n.host.GetEach(context.Background(), p, keyspace.DefaultNamespace, len(keys), func(i int) string { return keys[i] }, false,
		func(_ int, rec *format.Record, err error) bool {
			out = append(out, said(rec, err))
			return true
		})
	if err != nil {
		return string(fault.CodeOf(err))
	}
	return strings.Join(out, ",")
}

func (n *node) page(at ScanPoint, r ScanRequest) string {
	r.Namespace = keyspace.DefaultNamespace
	var out []string
	page, err := n.host.ScanTogether(context.Background(), []ScanPoint{at}, r, func(key []byte, rec *format.Record) {
		out = append(out, string(key)+"="+string(rec.Value))
	})
	if err != nil {
		return string(fault.CodeOf(err))
	}
	if page.More {
		out = append(out, fmt.Sprintf("more at %q", page.Next))
	}
	return strings.Join(out, ",")
}

// TestReadersWaitForWhatIsPrepared: on the leader and on a follower, gets, batch
// gets and pages of lists wait for the end of what may write their keys, and for
// nothing else; then they have what was committed, although its revision is above
// that of their permission.
func TestReadersWaitForWhatIsPrepared(t *testing.T) {
	var a lockAsks
	c := newCluster(t, 3, 3, func(c *cluster) { c.opt = a.count })
	for _, n := range []*node{c.nodes[0], c.nodes[1]} {
		c.write(testOp("a", "old"), testOp("b", "old"), testOp("c", "old"))
		p := c.prepare(1+uint64(a.n.Load()), []string{"b"}, []string{"c"})
		at := c.readPoint(n)
		if got := n.each(at, "a", "c"); got != "old,old" {
			t.Fatalf("other keys: %s", got)
		}
		var clock ClockReading
		lead := c.serving().host
		c.call("the clock is read", func() { clock, _ = lead.Clock(context.Background(), testGroup, 0) })
		if clock.Settled != p.seen.Stamp-1 || clock.Clock < p.seen.Stamp {
			t.Fatalf("clock %+v, prepared at %d", clock, p.seen.Stamp)
		}
		list := ScanPoint{Group: testGroup, Index: clock.Index}
		c.call("the index is applied", func() { _ = n.host.awaitIndex(context.Background(), testGroup, clock.Index) })
		for _, q := range []struct {
			r    ScanRequest
			want string
		}{
			{ScanRequest{Revision: clock.Clock}, `a=old,more at "b"`},
			{ScanRequest{Revision: clock.Clock, Reverse: true}, `c=old,more at "b\x00"`},
			{ScanRequest{Revision: clock.Clock, Start: []byte("b\x00")}, `c=old`},
			{ScanRequest{Revision: p.seen.Stamp - 1}, `a=old,b=old,c=old`},
		} {
			if got := n.page(list, q.r); got != q.want {
				t.Fatalf("%+v: page %s, want %s", q.r, got, q.want)
			}
		}
		one := c.later(&a, func() string { return n.get(at, "b") })
		some := make(chan string, 2)
		go func() { some <- n.each(at, "a", "b", "c") }()
		go func() { some <- n.page(list, ScanRequest{Revision: clock.Clock, Start: []byte("b")}) }()
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		_, err := n.host.Get(ctx, at, keyspace.DefaultNamespace, "b", false)
		cancel()
		if mustBe(t, err, fault.Unavailable); !strings.Contains(err.Error(), p.key.ID.String()) {
			t.Fatalf("the error does not name the transaction: %v", err)
		}
		ends := p.commit(300 * time.Millisecond)
		if got := one(); !strings.HasPrefix(got, "of ") {
			t.Fatalf("get: %s", got)
		}
		for range 2 {
			switch got := <-some; {
			case strings.HasPrefix(got, "old,of ") && strings.HasSuffix(got, ",old"):
			case got == "b=old,c=old" && ends > clock.Clock, strings.HasPrefix(got, "b=of ") && ends <= clock.Clock:
			default:
				t.Fatalf("read %s", got)
			}
		}
		fixed := at
		fixed.Fixed = true
		if got, old := n.get(at, "b"), n.get(fixed, "b"); !strings.HasPrefix(got, "of ") || old != "old" && ends > at.Rev {
			t.Fatalf("with the permission of before: %s, at its revision: %s", got, old)
		}
	}
}

// TestReadingsMeetLocks: a reading of the clock says which ranges are locked, has
// somebody finish what has been prepared for a while, and is past what was committed
// once the locks are gone.
func TestReadingsMeetLocks(t *testing.T) {
	var a lockAsks
	c := newCluster(t, 1, 1, func(c *cluster) {
		c.opt = func(o *Options) {
			o.Hooks.Blocked = func(keyspace.GroupID, *format.Prepared) { a.n.Add(1) }
		}
	})
	p := c.prepare(1, []string{"b"}, nil)
	var spans []replica.Spans
	for _, s := range [][2]string{{"a", "c"}, {"c", "d"}} {
		spans = append(spans, replica.Spans{{Lower: keyspace.AppendDataPrefix(nil, keyspace.DefaultNamespace, []byte(s[0])),
			Upper: keyspace.AppendDataPrefix(nil, keyspace.DefaultNamespace, []byte(s[1]))}})
	}
	read := func() (r ClockReading) {
		t.Helper()
		c.call("the clock is read", func() {
			r = c.nodes[0].host.AskClocks(context.Background(), []ClockAsk{{Group: testGroup, Sets: spans}})[0]
		})
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		return r
	}
	if r := read(); !slices.Equal(r.Unsettled, []int{0}) || r.Settled >= p.seen.Stamp || r.Clock < p.seen.Stamp {
		t.Fatalf("%+v", r)
	}
	if n := c.nodes[0]; !n.host.Locked(c.readPoint(n)) || n.host.Locked(ReadPoint{Group: testGroup, Rev: p.seen.Stamp - 1}) {
		t.Fatal("not locked for who reads after the prepare, or locked before")
	}
	c.pass(time.Second)
	before := a.n.Load()
	if r := read(); !slices.Equal(r.Unsettled, []int{0}) || a.n.Load() == before {
		t.Fatalf("%+v, %d asked before, %d now", r, before, a.n.Load())
	}
	at := p.commit(3 * time.Second)
	if r := read(); len(r.Unsettled) > 0 || r.Clock < at || r.Settled != r.Clock {
		t.Fatalf("%+v after a commit at %v", r, at)
	}
	if n := c.nodes[0]; n.host.Locked(c.readPoint(n)) {
		t.Fatal("locked after the commit")
	}
}

// TestLocksHoldExpiry: a key whose deadline has passed while a transaction is
// prepared that saw it, is gone only with the transaction's end.
func TestLocksHoldExpiry(t *testing.T) {
	var a lockAsks
	c := newCluster(t, 1, 1, func(c *cluster) { c.opt = a.count })
	n := c.nodes[0]
	dying := testOp("k", "v")
	dying.TTL = 2 * time.Second
	c.write(dying, testOp("a", "v"))
	p := c.prepare(1, nil, []string{"k"})
	c.mustGet(n, "k", "v")
	c.pass(3 * time.Second)
	c.write(testOp("z", "v"))
	at := c.readPoint(n)
	got := c.later(&a, func() string { return n.get(at, "k") })
	var clock ClockReading
	c.call("the clock is read", func() { clock, _ = n.host.Clock(context.Background(), testGroup, 0) })
	list := ScanPoint{Group: testGroup, Index: clock.Index}
	if page := n.page(list, ScanRequest{Revision: clock.Clock}); page != `a=v,more at "k"` {
		t.Fatalf("page %s", page)
	}
	p.abort()
	if s := got(); s != string(fault.NotFound) {
		t.Fatal(s)
	}
	if page := n.page(list, ScanRequest{Revision: clock.Clock}); page != `a=v,z=v` {
		t.Fatalf("page %s", page)
	}
}

// TestLocksOutliveTheirReplica: after a restart and on a replica that took a
// snapshot the table is that of the state, and who waited on what the snapshot
// ended looks again.
func TestLocksOutliveTheirReplica(t *testing.T) {
	var a lockAsks
	c := newCluster(t, 3, 3, func(c *cluster) {
		c.opt = func(o *Options) { a.count(o); o.LogTail, o.LogBytes = 10, 1 }
		c.store.SealBytes = 2000
	})
	old := c.prepare(1, []string{"k1"}, nil)
	c.settle()
	n := c.nodes[2]
	at := c.readPoint(n)
	got := c.later(&a, func() string { return n.get(at, "k1") })
	c.drop = cut(n)
	old.commit(0)
	for i := range 60 {
		c.write(testOp(fmt.Sprint("filler", i), strings.Repeat("f", 300)))
	}
	next := c.prepare(2, []string{"k2"}, nil)
	c.drop = nil
	c.settle()
	if s := got(); s != "of 1" {
		t.Fatalf("got %s", s)
	}
	if n.group().instance.id == 1 {
		t.Fatal("the follower took no snapshot")
	}
	for _, crash := range []bool{false, true} {
		if crash {
			n.crash()
			c.settle()
		}
		at = c.readPoint(n)
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		_, err := n.host.Get(ctx, at, keyspace.DefaultNamespace, "k2", false)
		cancel()
		mustBe(t, err, fault.Unavailable)
	}
	got = c.later(&a, func() string { return n.get(at, "k2") })
	next.abort()
	if s := got(); s != string(fault.NotFound) {
		t.Fatalf("got %s", s)
	}
	c.prepare(3, []string{"k3"}, nil)
	at = c.readPoint(n)
	got = c.later(&a, func() string { return n.get(at, "k3") })
	n.host.dismiss(n.group())
	if s := got(); s != string(fault.WrongLeader) {
		t.Fatalf("got %s of a replica that is gone", s)
	}
}

// cut loses everything to and from a node.
func cut(n *node) func(from, to *node, _ *api.GroupMessage) bool {
	return func(from, to *node, _ *api.GroupMessage) bool { return from == n || to == n }
}

// TestLockTableWhileReadersLook: with the race detector.
func TestLockTableWhileReadersLook(t *testing.T) {
	var table lockTable
	key := func(i int) []byte {
		return keyspace.AppendDataKey(nil, keyspace.DefaultNamespace, []byte(fmt.Sprint(i%5)))
	}
	var over atomic.Bool
	done := make(chan int)
	for range 3 {
		go func() {
			met := 0
			for i := 0; !over.Load(); i++ {
				if locked, _ := table.look(keyspace.Revision(i)); locked {
					if h := table.of(key(i), keyspace.MaxRevision, i%2 == 0); h != nil {
						<-h.gone
						met++
					}
					table.nearest(key(0), key(4), i%2 == 0, keyspace.Revision(i))
				}
			}
			done <- met
		}()
	}
	var last []*format.Prepared
	for i := range 2000 {
		p := &format.Prepared{Key: keyspace.TxnKey{Attempt: uint32(i)}, Stamp: keyspace.Revision(i), Exclusive: [][]byte{key(i)}, Shared: [][]byte{key(i + 1)}}
		table.add([]*format.Prepared{p})
		if i%7 == 0 {
			table.keep([]*format.Prepared{p}, p.Stamp)
		} else {
			table.remove(last, p.Stamp)
		}
		last = []*format.Prepared{p}
	}
	over.Store(true)
	table.remove(last, 5000)
	met := []int{<-done, <-done, <-done}
	if len(table.held)+len(table.keys) > 0 || slices.Max(met) < 0 {
		t.Fatalf("left: %d transactions, %d keys", len(table.held), len(table.keys))
	}
	if locked, freed := table.look(4000); locked || !freed {
		t.Errorf("locked %v, freed %v", locked, freed)
	}
}
