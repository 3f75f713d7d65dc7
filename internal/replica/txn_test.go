package replica

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// transact enqueues a transaction whose prefetch found what the store has.
func (r *rig) transact(t TxnOp) *answer {
	a := &answer{req: &Request{Group: 1, Txn: &t, Deadline: r.now.Mono + time.Second}}
	a.req.Done = func(*Request) { a.done = true }
	for _, ops := range a.req.Sets() {
		for i := range ops {
			r.fetch(&ops[i])
		}
	}
	r.core.Enqueue(a.req)
	return a
}

func check(key string, c Condition) Op { return Op{Namespace: 1, Key: key, Condition: c} }
func atVersion(v uint64) Condition     { return Condition{Version: &v} }
func read(key string) Op               { return Op{Namespace: 1, Key: key, Read: true} }
func del(key string) Op                { return Op{Namespace: 1, Key: key, Delete: true} }
func valueIs(v string) Condition       { return Condition{HasValueEquals: true, ValueEquals: []byte(v)} }

// outcomes tells what the operations of a transaction came to, in words.
func (a *answer) outcomes() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v", a.req.Txn.Succeeded)
	for i := range a.req.Ops {
		switch o := &a.req.Ops[i]; {
		case o.Result.Err != nil:
			fmt.Fprintf(&b, " %s", fault.CodeOf(o.Result.Err))
		case o.Read:
			fmt.Fprintf(&b, " read:%d", o.Result.Version)
		case o.Delete:
			fmt.Fprintf(&b, " del:%v", o.Result.Existed)
		default:
			fmt.Fprintf(&b, " put:%d", o.Result.Version)
		}
	}
	return b.String()
}

var txnTable = []struct {
	name string
	txn  func() TxnOp
	want string
}{
	{"no checks", func() TxnOp { return TxnOp{Then: []Op{put("a", "2"), del("none"), read("b")}} }, "true put:2 del:false read:1"},
	{"checks hold", func() TxnOp {
		return TxnOp{Checks: []Op{check("a", atVersion(1)), check("b", valueIs("b")), check("none", atVersion(0))},
			Then: []Op{put("a", "2"), put("b", "2"), put("none", "1")}, Otherwise: []Op{del("a")}}
	}, "true put:2 put:2 put:1"},
	{"one does not", func() TxnOp {
		return TxnOp{Checks: []Op{check("a", atVersion(1)), check("b", valueIs("x"))},
			Then: []Op{put("a", "2")}, Otherwise: []Op{read("a"), del("b")}}
	}, "false read:1 del:true"},
	{"nothing otherwise", func() TxnOp {
		return TxnOp{Checks: []Op{check("a", Condition{MustNotExist: true})}, Then: []Op{put("a", "2")}}
	}, "false"},
	{"reads see the state before the writes", func() TxnOp {
		return TxnOp{Then: []Op{put("a", "2"), read("a"), del("b"), read("b")}}
	}, "true put:2 read:1 del:true read:1"},
	{"a write and its check are of one moment", func() TxnOp {
		return TxnOp{Checks: []Op{check("a", atVersion(1))}, Then: []Op{del("a"), read("a")}}
	}, "true del:true read:1"},
	{"a condition of the list", func() TxnOp {
		bad := put("b", "2")
		bad.Condition = atVersion(7)
		return TxnOp{Checks: []Op{check("a", atVersion(1))}, Then: []Op{put("a", "2"), bad, read("a")}, Otherwise: []Op{del("a")}}
	}, "true batch_aborted condition_failed batch_aborted"},
	{"conditions of the other list do not count", func() TxnOp {
		bad := put("b", "2")
		bad.Condition = atVersion(7)
		return TxnOp{Then: []Op{put("a", "2")}, Otherwise: []Op{bad}}
	}, "true put:2"},
}

// DESIGN 9: the branch is chosen by the newest state in log order, be it applied
// or in flight, and everything of it has one stamp in one entry.
func TestTransactions(t *testing.T) {
	for _, c := range txnTable {
		for _, inFlight := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/%v", c.name, inFlight), func(t *testing.T) {
				r := newRig(t)
				r.core.cfg.MaxQueueOps = 100
				r.elect()
				r.submit(put("a", "a"), put("b", "b"))
				var a *answer
				if inFlight { // its prefetch saw neither key
					a = r.transact(c.txn())
					r.evaluate()
					a.mustBe(t, false, "")
				} else {
					r.settle()
					a = r.transact(c.txn())
					r.evaluate()
				}
				entries := len(r.log)
				r.settle()
				a.mustBe(t, true, "")
				if got := a.outcomes(); got != c.want {
					t.Fatalf("%s, want %s", got, c.want)
				}
				if entries > 1 {
					t.Fatalf("%d entries", entries)
				}
				a.mustHaveOneStamp(t)
			})
		}
	}
}

func (a *answer) mustHaveOneStamp(t *testing.T) {
	t.Helper()
	var stamp keyspace.Revision
	for i := range a.req.Ops {
		o := &a.req.Ops[i]
		if o.Read || o.Result.Revision == 0 {
			continue
		}
		if stamp != 0 && stamp != o.Result.Revision {
			t.Fatalf("stamps %v and %v", stamp, o.Result.Revision)
		}
		stamp = o.Result.Revision
	}
}

// DESIGN 4: a transaction that writes nothing tells of the state; it waits for
// what it saw and for a confirmation of leadership, as a refusal does.
func TestReadOnlyTransactionIsConfirmed(t *testing.T) {
	failing := put("a", "2")
	failing.Condition = atVersion(9)
	for name, txn := range map[string]TxnOp{
		"reads":              {Then: []Op{read("a")}},
		"nothing":            {Checks: []Op{check("a", atVersion(9))}, Then: []Op{put("a", "2")}},
		"absent keys":        {Then: []Op{del("none")}},
		"a failed condition": {Then: []Op{failing, read("a")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.elect()
			r.submit(put("a", "a"))
			r.evaluate()
			a := r.transact(txn)
			out := r.evaluate()
			if out.Confirm == 0 || len(r.log) != 1 {
				t.Fatalf("confirmation %d, %d entries", out.Confirm, len(r.log))
			}
			r.core.Confirmed(r.term, out.Confirm)
			a.mustBe(t, false, "") // the put that it saw is not applied
			r.applyAll()
			a.mustBe(t, true, "")

			b := r.transact(txn)
			out = r.evaluate()
			b.mustBe(t, false, "")
			r.core.Confirmed(r.term, out.Confirm)
			b.mustBe(t, true, "")
		})
	}
}

// How a transaction ends with the leadership: written ones may have happened,
// others did not.
func TestTransactionsEndWithTheTerm(t *testing.T) {
	for code, txn := range map[fault.Code]TxnOp{
		fault.UnknownOutcome: {Then: []Op{put("a", "1"), read("a")}},
		fault.Unavailable:    {Then: []Op{read("a")}},
	} {
		r := newRig(t)
		r.elect()
		a := r.transact(txn)
		r.evaluate()
		r.core.StepDown(fault.New(fault.Unavailable, "leadership lost"))
		a.mustBe(t, true, code)
	}
}

// DESIGN 4: after raft dropped its entry a transaction is judged anew, by what is
// in the log then.
func TestDroppedTransactionIsJudgedAnew(t *testing.T) {
	r := newRig(t)
	r.elect()
	a := r.transact(TxnOp{Checks: []Op{check("a", atVersion(0))}, Then: []Op{put("a", "1"), put("b", "1")}, Otherwise: []Op{put("c", "1")}})
	if out := r.core.Evaluate(r.now); out.Payload == nil || !a.req.Txn.Succeeded {
		t.Fatal("not proposed")
	}
	r.core.Dropped()
	// What the host does first is evaluated ahead of it.
	first := &Request{Group: 1, Ops: []Op{put("a", "0")}, Done: func(*Request) {}}
	r.fetch(&first.Ops[0])
	r.core.EnqueueFirst(first)
	r.settle()
	a.mustBe(t, true, "")
	if got := a.outcomes(); got != "false put:1" {
		t.Fatal(got)
	}
	if _, _, _, found := r.store.Latest(7, a.req.Txn.Then[1].DiskKey()); found {
		t.Fatal("a write of the dropped entry stands")
	}
}

// DESIGN 6: what a transaction took for expired stays expired, here and for the
// next leader, whether a check, a read or nothing but that told.
func TestTransactionPinsExpiry(t *testing.T) {
	for name, txn := range map[string]TxnOp{
		"read":                {Then: []Op{read("k")}},
		"check, then nothing": {Checks: []Op{check("k", atVersion(0))}},
		"check of a refusal":  {Checks: []Op{check("k", atVersion(1))}, Then: []Op{put("x", "1")}},
		"check and write":     {Checks: []Op{check("k", atVersion(0))}, Then: []Op{put("x", "1")}},
	} {
		for _, late := range []int64{1500, 950} { // beyond the ceiling, and within
			t.Run(fmt.Sprint(name, late), func(t *testing.T) {
				r := newRig(t)
				r.elect()
				op := put("k", "v")
				op.TTL = 900 * time.Millisecond
				r.submit(op)
				r.settle()
				r.now.Physical += late
				a := r.transact(txn)
				r.settle()
				a.mustBe(t, true, "")
				for i := range a.req.Ops {
					if o := &a.req.Ops[i]; o.Read && o.Result.Existed {
						t.Fatal("read an expired key")
					}
				}
				r.now.Physical = 0 // the clocks disagree from now on
				for range 2 {
					if got, expires := r.core.ReadClock(r.now), keyspace.RevisionAt(wall+900); got < expires {
						t.Fatalf("read at %v after the key was absent at %v", got, expires)
					}
					r.elect()
				}
			})
		}
	}
}

// A transaction is refused, all of it, when a slot of any of its keys is not the
// group's or moves: also those of the list that would not be taken.
func TestTransactionsNeedAllTheirSlots(t *testing.T) {
	slot := keyspace.SlotOf(1, "other")
	var all, one format.SlotSet
	all.AddRange(0, keyspace.SlotCount-1)
	one.Add(slot)
	for code, state := range map[fault.Code]*format.SlotState{
		fault.WrongGroup:  {Owned: all.Without(&one)},
		fault.Unavailable: {Owned: all, Out: &format.SlotsOut{ID: 1, To: 2, Slots: one, Nonce: 5}},
	} {
		for name, txn := range map[string]TxnOp{
			"check":     {Checks: []Op{check("other", atVersion(0))}, Then: []Op{put("a", "1")}},
			"then":      {Then: []Op{put("a", "1"), put("other", "1")}},
			"read":      {Then: []Op{put("a", "1"), read("other")}},
			"otherwise": {Then: []Op{put("a", "1")}, Otherwise: []Op{put("other", "1")}},
		} {
			t.Run(fmt.Sprint(code, name), func(t *testing.T) {
				r := newRig(t)
				r.core.state.Slots = state
				r.elect()
				a := r.transact(txn)
				r.evaluate()
				a.mustBe(t, true, code)
				if len(r.log) != 0 {
					t.Fatal("something was written")
				}
			})
		}
	}
}

// Large values of a list go ahead of it. When the other list is taken in the end,
// their chunks are deleted.
func TestTransactionUploads(t *testing.T) {
	large := strings.Repeat("x", 350)
	r := newRig(t)
	r.elect()
	a := r.transact(TxnOp{Checks: []Op{check("a", atVersion(0))}, Then: []Op{put("big", large), put("a", "1")}})
	r.settle()
	a.mustBe(t, true, "")
	if got := a.outcomes(); got != "true put:1 put:1" {
		t.Fatal(got)
	}
	r.mustHaveChunks("big")

	b := r.transact(TxnOp{Checks: []Op{check("a", atVersion(1))}, Then: []Op{put("big2", large)},
		Otherwise: []Op{put("big3", large)}})
	r.core.Evaluate(r.now)
	upload := b.req.Txn.Then[0].upload
	if upload == nil {
		t.Fatal("no upload")
	}
	// Before its chunks are all in the log, its check ceases to hold.
	r.propose(r.core.NextChunk(r.now))
	r.submit(put("a", "2"))
	r.settle()
	r.settle()
	b.mustBe(t, true, "")
	if got := b.outcomes(); got != "false put:1" {
		t.Fatal(got)
	}
	r.mustHaveChunks("big3")
	if _, _, del, found := r.store.Latest(7, keyspace.AppendChunkKey(nil, upload.stamp, 0)); !found || !del {
		t.Fatal("a chunk of the list that was not taken survives")
	}
	if left := r.core.State().Uploads; len(left) != 0 {
		t.Fatalf("uploads nobody will claim: %+v", left)
	}
}

// A prefetch that was overtaken is repeated, of whichever key.
func TestOvertakenTransactionIsFetchedAgain(t *testing.T) {
	for name, txn := range map[string]TxnOp{
		"check":     {Checks: []Op{check("k", atVersion(0))}, Then: []Op{put("a", "1")}},
		"then":      {Then: []Op{put("k", "1")}},
		"otherwise": {Then: []Op{put("a", "1")}, Otherwise: []Op{del("k")}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.elect()
			a := r.transact(txn)
			r.submit(put("k", "v"))
			waiting := r.core.queue.items
			r.core.queue = queue{}
			r.core.Enqueue(waiting[1])
			r.settle()
			r.flush()
			r.core.Enqueue(a.req)
			if out := r.evaluate(); len(out.Refetch) != 1 || out.Payload != nil {
				t.Fatalf("a stale prefetch was evaluated: %+v", out)
			}
		})
	}
}

// Both lists count in the queue, before and after one was chosen.
func TestTransactionsAreCounted(t *testing.T) {
	r := newRig(t)
	r.elect()
	a := r.transact(TxnOp{Checks: []Op{check("a", atVersion(3))}, Then: []Op{put("a", "1"), put("b", "1")}, Otherwise: []Op{read("a")}})
	if got := r.core.Waiting(); got != 4 {
		t.Fatalf("%d operations wait", got)
	}
	r.settle()
	a.mustBe(t, true, "")
	if r.core.queue.ops != 0 || r.core.queue.bytes != 0 {
		t.Fatalf("%d operations and %d bytes remain counted", r.core.queue.ops, r.core.queue.bytes)
	}
}
