package host

import (
	"context"
	"fmt"
	"reflect"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
	"kvstore/internal/twophase"
)

func (c *cluster) txnKey(n uint64, slot keyspace.SlotID) keyspace.TxnKey {
	return keyspace.TxnKey{ID: keyspace.TxnID{Created: keyspace.RevisionAt(testWall), Random: n}, Slot: slot}
}

// ask runs a request on the leader of its group to its answer.
func (c *cluster) ask(r *replica.Request) *replica.Request {
	c.t.Helper()
	if r.Group == 0 {
		r.Group = testGroup
	}
	var answers atomic.Int32
	r.Done = func(*replica.Request) { answers.Add(1) }
	c.pump("a leader serves", func() bool { return c.serving() != nil })
	c.serving().host.Submit(context.Background(), r)
	c.pump("the request is answered", func() bool { return answers.Load() > 0 })
	return r
}

// order has the participant take a step.
func (c *cluster) order(g keyspace.GroupID, o replica.OrderOp, t *replica.TxnOp) replica.OrderResult {
	c.t.Helper()
	o.Participants = []keyspace.SlotID{o.Key.Slot, o.Key.Slot + 1}
	r := c.ask(&replica.Request{Group: g, Order: &o, Txn: t})
	if r.Err != nil {
		c.t.Fatal(r.Err)
	}
	return r.Order.Result
}

// Every replica holds the locks of its log, also after a crash, under another leader,
// and when all it has came as a snapshot; the record and what it will write survive
// the way to the disk, and what is written in the end is the same everywhere.
func TestPreparedTransactionsOutliveEverything(t *testing.T) {
	blocked := 0
	c := newCluster(t, 4, 3, func(c *cluster) {
		c.store.SealBytes, c.more = 4000, []keyspace.GroupID{3}
		c.opt = func(o *Options) {
			o.LogTail, o.ChunkBytes, o.Window = 1, 1000, 2*time.Second
			o.Hooks.Blocked = func(g keyspace.GroupID, p *format.Prepared) { blocked++ }
		}
	})
	c.write(testOp("k", "v"))
	k := c.txnKey(1, 40)
	txn := func() *replica.TxnOp {
		return &replica.TxnOp{Checks: []replica.Op{checkOp("k", replica.Condition{MustExist: true})},
			Then: []replica.Op{testOp("k", "then"), testOp("large", string(make([]byte, 3500)))}, Otherwise: []replica.Op{readOp("r")}}
	}
	prepared := c.order(testGroup, replica.OrderOp{Kind: replica.OrderPrepare, Key: k}, txn())
	if prepared.State != twophase.Prepared {
		t.Fatalf("%+v", prepared)
	}
	_, answers := c.serving().submit(testOp("k", "late"))
	for range 2 { // of which the other group closes all, so that this one holds nothing up by itself
		for n := range 20 {
			c.write(testOp(fmt.Sprint("other", n), string(make([]byte, 300))))
		}
		c.pass(6 * time.Second)
	}
	for n := range 20 {
		c.write(testOp(fmt.Sprint("other", n), string(make([]byte, 300))))
	}
	for _, n := range c.nodes {
		if floor := keyspace.Revision(n.host.floor.Load()); floor >= prepared.Stamp {
			t.Fatalf("the floor %v has passed a transaction prepared at %v", floor, prepared.Stamp)
		}
	}
	if answers.Load() != 0 || blocked < 2 {
		t.Fatalf("%d answers of a blocked writer, told %d times", answers.Load(), blocked)
	}
	if _, err := c.change(MemberChange{AddLearner: "n4"}); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.nodes {
		n.crash()
		c.settle()
	}
	want := c.serving().group().core.State().Prepared
	for _, n := range c.nodes {
		if got := n.group().core.State().Prepared; len(got) != 1 || got[0].Key != k || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s has %+v", n.id, got)
		}
	}
	c.mustAgree()
	again := c.order(testGroup, replica.OrderOp{Kind: replica.OrderPrepare, Key: k}, txn())
	if !reflect.DeepEqual(again, prepared) {
		t.Fatalf("%+v, and before %+v", again, prepared)
	}
	at := prepared.Stamp + 1
	done := c.order(testGroup, replica.OrderOp{Kind: replica.OrderCommit, Key: k, At: at, Branch: twophase.Then}, nil)
	if done.State != twophase.Committed {
		t.Fatalf("%+v", done)
	}
	c.mustAgree()
	for _, n := range c.nodes {
		if got := n.group().core.State().Prepared; len(got) != 0 {
			t.Fatalf("%s has %+v", n.id, got)
		}
		c.mustGet(n, "k", "then")
		c.mustGet(n, "large", string(make([]byte, 3500)))
	}
	if low := c.ask(&replica.Request{Low: &replica.LowOp{Raise: k.ID.Created}}); low.Err != nil || low.Low.Oldest != keyspace.MaxRevision {
		t.Fatalf("%+v, %v", low.Low, low.Err)
	}
	before, err := c.serving().host.StateHash(context.Background(), testGroup)
	if f := c.ask(&replica.Request{Forget: &replica.ForgetOp{Keys: []keyspace.TxnKey{k}}}); err != nil || f.Err != nil || f.Forget.Forgotten != 1 {
		t.Fatalf("%+v, %v, %v", f.Forget, f.Err, err)
	}
	after, err := c.serving().host.StateHash(context.Background(), testGroup)
	if err != nil || after.Keys != before.Keys-1 || after.Hash == before.Hash {
		t.Fatalf("the digest does not cover the record: %+v, then %+v (%v)", before, after, err)
	}
	c.mustAgree()
}

// Records of transactions move with their slots, remembered outcomes too, and the
// mark below which nothing is prepared; the new owner answers as the old one did.
func TestTransactionsMoveWithSlots(t *testing.T) {
	m := newMove(t)
	id := keyspace.TxnID{Created: keyspace.RevisionAt(testWall), Random: 9}
	once := func() *replica.Request {
		return &replica.Request{ID: id, Ops: []replica.Op{testOp("once", "1")}, Encode: func(*replica.Request) []byte { return []byte("told") }}
	}
	if r := m.ask(once()); r.Err != nil || r.Remembered != nil {
		t.Fatalf("%v, remembered %q", r.Err, r.Remembered)
	}
	committed, refused, older := m.txnKey(1, 40), m.txnKey(2, 41), m.txnKey(3, 42)
	older.ID.Created -= 5
	p := m.order(testGroup, replica.OrderOp{Kind: replica.OrderPrepare, Key: committed}, &replica.TxnOp{Then: []replica.Op{testOp("k", "v")}})
	m.order(testGroup, replica.OrderOp{Kind: replica.OrderCommit, Key: committed, At: p.Stamp, Branch: twophase.Then}, nil)
	m.order(testGroup, replica.OrderOp{Kind: replica.OrderPoison, Key: refused}, nil)
	if low := m.ask(&replica.Request{Low: &replica.LowOp{Raise: older.ID.Created}}); low.Err != nil {
		t.Fatal(low.Err)
	}
	m.moveAll(allSlots())
	for key, want := range map[keyspace.TxnKey]twophase.Answer{
		committed: {Record: twophase.Record{State: twophase.Committed, At: p.Stamp, Branch: twophase.Then}},
		refused:   {Record: twophase.Record{State: twophase.Aborted, Cause: twophase.Poisoned}},
		older:     {Expired: true},
	} {
		if got := m.order(receiver, replica.OrderOp{Kind: replica.OrderPoison, Key: key}, nil); got.Answer != want {
			t.Fatalf("%+v says %+v, want %+v", key, got.Answer, want)
		}
	}
	r := once()
	r.Group = receiver
	if m.ask(r); r.Err != nil || string(r.Remembered) != "told" {
		t.Fatalf("%v, remembered %q", r.Err, r.Remembered)
	}
}
