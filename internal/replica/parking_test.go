package replica

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// Writes and transactions of one group wait behind locks and go on in their order,
// ahead of what comes later; reads of a transaction wait for what is written only.
func TestWritersWaitForLocks(t *testing.T) {
	for _, end := range []string{"commit", "abort"} {
		t.Run(end, func(t *testing.T) {
			r := newRig(t)
			r.core.cfg.MaxQueueOps = 100
			r.elect()
			p := r.prepareTxn(aTxn(1), TxnOp{Checks: []Op{check("c", atVersion(0))}, Then: []Op{put("k", "0"), read("s")}})
			first := r.submit(put("k", "1"))
			second := r.transact(TxnOp{Checks: []Op{check("k", atVersion(9))}, Otherwise: []Op{put("k", "2")}})
			reader := r.transact(TxnOp{Then: []Op{read("k")}})
			shared := r.transact(TxnOp{Checks: []Op{check("c", atVersion(0))}, Then: []Op{read("s"), put("free", "1")}})
			writer := r.submit(put("c", "1"))
			set := r.submit(put("free", "2"), put("s", "1"))
			r.settle()
			p.mustSay(t, "prepared true true true")
			shared.mustBe(t, true, "")
			for _, a := range []*answer{first, second, reader, writer, set} {
				a.mustBe(t, false, "")
			}
			if r.core.HasWork() {
				t.Fatal("what waits for locks is work")
			}
			if ops, _ := r.core.load(); ops != 7 {
				t.Fatalf("%d operations are counted", ops)
			}
			third := r.submit(put("k", "3"))
			at := p.req.Order.Result.Stamp + 7
			if end == "commit" {
				r.commitTxn(aTxn(1), at, twophase.Then)
			} else {
				r.order(OrderOp{Kind: OrderAbort, Key: aTxn(1)}, nil)
			}
			last := r.submit(put("k", "4"))
			r.settle()
			for _, a := range []*answer{first, second, reader, writer, set, third, last} {
				a.mustBe(t, true, "")
			}
			var order []uint64
			for _, a := range []*answer{first, second, third, last} {
				order = append(order, a.req.Ops[0].Result.Version)
			}
			want := map[string]string{"commit": "[2 3 4 5]", "abort": "[1 2 3 4]"}[end]
			if got := fmt.Sprint(order); got != want {
				t.Fatalf("versions %v, want %v", got, want)
			}
			if ops, bytes := r.core.load(); ops != 0 || bytes != 0 {
				t.Fatalf("%d operations and %d bytes remain counted", ops, bytes)
			}
		})
	}
}

// Waiting is bounded by the deadline, and by the queue; whoever waits asks for the
// transaction to be ended, at once and again.
func TestWaitingForLocksIsBounded(t *testing.T) {
	r := newRig(t)
	r.core.cfg.MaxQueueOps = 32
	asked := 0
	r.core.cfg.Blocked = func(p *format.Prepared) {
		if asked++; p.Key != aTxn(1) {
			t.Errorf("asks about %+v", p.Key)
		}
	}
	r.elect()
	r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("k", "0")}})
	r.settle()
	var waiting []*answer
	for n := range 8 {
		a := r.submit(put("k", "1"))
		a.req.Deadline = r.now.Mono + time.Duration(n+1)*time.Second
		waiting = append(waiting, a)
		r.settle()
	}
	if asked != 8 {
		t.Fatalf("asked %d times for 8 requests", asked)
	}
	over := r.submit(put("k", "1"))
	r.settle()
	over.mustBe(t, true, fault.Overloaded)
	if asked != 9 {
		t.Fatalf("asked %d times when there is no room", asked)
	}
	asked = 8
	r.core.Expire(r.now.Mono + askEvery/2)
	r.core.Expire(r.now.Mono + askEvery)
	r.core.Expire(r.now.Mono + askEvery + 1)
	if asked != 9 {
		t.Fatalf("asked %d times", asked)
	}
	r.core.Expire(r.now.Mono + 3*time.Second + 1)
	for n, a := range waiting {
		a.mustBe(t, n < 3, fault.DeadlineExceeded)
	}
	r.elect()
	for _, a := range waiting[3:] {
		a.mustBe(t, true, fault.Unavailable)
	}
}

// A key that is locked all the time takes a part of the queue, in operations and in
// bytes, and no more; those that waited go on before those that come then.
func TestOneKeyDoesNotFillTheQueue(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		bytes int
	}{"operations": {"1", 1 << 20}, "bytes": {string(make([]byte, 90)), 16 * 160}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.core.cfg.MaxQueueOps, r.core.cfg.MaxQueueBytes = 16, c.bytes
			r.elect()
			r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("hot", "0"), put("warm", "0")}})
			r.settle()
			want := 4
			if name == "bytes" {
				want = 4 * 160 / (90 + 3 + 64)
			}
			var waiting, over []*answer
			for n := range 6 {
				a := r.submit(put("hot", c.value))
				r.settle()
				if n < want {
					waiting = append(waiting, a)
				} else {
					over = append(over, a)
				}
			}
			for _, a := range over {
				a.mustBe(t, true, fault.Overloaded)
				if e, ok := errors.AsType[*fault.Error](a.req.Err); !ok || e.Details["key"] != "hot" || e.RetryAfter == 0 {
					t.Fatalf("%+v", a.req.Err)
				}
			}
			prepare := r.order(OrderOp{Kind: OrderPrepare, Key: aTxn(2), Wait: true}, &TxnOp{Then: []Op{put("hot", c.value)}})
			r.settle()
			prepare.mustBe(t, true, fault.Overloaded)
			free, warm := r.submit(put("free", "1")), r.submit(put("warm", "1"))
			r.settle()
			free.mustBe(t, true, "")
			warm.mustBe(t, false, "")
			r.order(OrderOp{Kind: OrderAbort, Key: aTxn(1)}, nil)
			for _, a := range waiting {
				a.mustBe(t, false, "")
			}
			last := r.submit(put("hot", "last"))
			r.settle()
			for n, a := range waiting {
				a.mustBe(t, true, "")
				if v := a.req.Ops[0].Result.Version; v != uint64(n+1) {
					t.Fatalf("the request %d wrote version %d", n, v)
				}
			}
			last.mustBe(t, true, "")
			if ops, bytes := r.core.load(); ops != 0 || bytes != 0 || len(r.core.lead.parking.keys) != 0 {
				t.Fatalf("%d operations and %d bytes remain counted: %v", ops, bytes, r.core.lead.parking.keys)
			}
		})
	}
}

// A Prepare that may wait does, and is judged when the lock is gone; until its
// deadline, and then nothing is decided.
func TestPreparesWaitForLocks(t *testing.T) {
	r := newRig(t)
	r.core.cfg.MaxQueueOps = 100
	r.elect()
	r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("k", "0")}})
	txn := func() *TxnOp { return &TxnOp{Checks: []Op{check("k", atVersion(0))}, Then: []Op{put("k", "1")}} }
	waits := r.order(OrderOp{Kind: OrderPrepare, Key: aTxn(2), Wait: true}, txn())
	late := r.order(OrderOp{Kind: OrderPrepare, Key: aTxn(3), Wait: true}, txn())
	late.req.Deadline = r.now.Mono + time.Millisecond
	r.settle()
	waits.mustBe(t, false, "")
	r.core.Expire(r.now.Mono + time.Second)
	late.mustBe(t, true, fault.DeadlineExceeded)
	poison := r.order(OrderOp{Kind: OrderPoison, Key: aTxn(3)}, nil)
	r.order(OrderOp{Kind: OrderCommit, Key: aTxn(1), At: r.core.state.Prepared[0].Stamp, Branch: twophase.Then}, nil)
	r.settle()
	waits.mustSay(t, "prepared false true true")
	poison.mustSay(t, "aborted poisoned")
}

// What is expired stays under a lock what it was at the Prepare, and the commit
// counts from there.
func TestLocksHoldExpiry(t *testing.T) {
	r := newRig(t)
	r.elect()
	short := put("k", "short")
	short.TTL = time.Second
	r.submit(short)
	r.settle()
	p := r.prepareTxn(aTxn(1), TxnOp{Checks: []Op{check("k", atVersion(1))}, Then: []Op{put("k", "2")}})
	r.settle()
	p.mustSay(t, "prepared true true true")
	r.now.Physical += 5000
	create := r.submit(putIfAbsent("k", "new"))
	r.settle()
	create.mustBe(t, false, "")
	r.commitTxn(aTxn(1), p.req.Order.Result.Stamp+1, twophase.Then)
	r.settle()
	create.mustBe(t, true, "")
	if got := r.state("k"); got != "2:2" || fault.CodeOf(create.req.Ops[0].Result.Err) != fault.ConditionFailed {
		t.Fatalf("k is %s, created: %v", got, create.req.Ops[0].Result.Err)
	}
}

// slotTxn is a transaction whose participant is a slot, on keys of slots.
func slotTxn(n uint64, participant keyspace.SlotID) keyspace.TxnKey {
	k := aTxn(n)
	k.Slot = participant
	return k
}

// DESIGN 11: a freeze waits for what is prepared in its slots, keys or record;
// nothing new is prepared there meanwhile, and writes go on until it is in the log.
func TestFreezesWaitForLocks(t *testing.T) {
	in, out := keyIn(slotsOf("200-300")), keyIn(slotsOf("400-500"))
	for name, c := range map[string]struct {
		participant keyspace.SlotID
		key         string
		waits       bool
	}{
		"a key in the slots":        {450, in, true},
		"the record in the slots":   {250, out, true},
		"neither":                   {450, out, false},
		"both, as it usually would": {keyspace.SlotOf(1, in), in, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := slotRig(t)
			r.core.cfg.MaxFreeze = time.Second
			r.core.cfg.MaxQueueOps = 100
			k := slotTxn(1, c.participant)
			p := r.prepareTxn(k, TxnOp{Then: []Op{put(c.key, "1")}})
			freeze := r.ask(freezeSome) // the Prepare is in flight
			r.settle()
			p.mustSay(t, "prepared true true true")
			freeze.mustBe(t, !c.waits, "")
			if !c.waits {
				return
			}
			free := keyIn(slotsOf("220-290"))
			write := r.submit(put("x"+free, "1"), put(free, "1"))
			blocked := r.submit(put(c.key, "2"))
			more := r.prepareTxn(slotTxn(2, keyspace.SlotOf(1, free)), TxnOp{Then: []Op{put(free, "2")}})
			r.settle()
			if c.key != free {
				write.mustBe(t, true, "")
			}
			more.mustBe(t, true, fault.Unavailable)
			blocked.mustBe(t, false, "")
			r.commitTxn(k, p.req.Order.Result.Stamp, twophase.Then)
			r.settle()
			freeze.mustBe(t, true, "")
			if res := freeze.req.Slots.Result; res.Err != nil || res.Nonce == 0 {
				t.Fatalf("frozen: %+v", res)
			}
			if c.key == in { // behind the freeze, which came first
				blocked.mustBe(t, true, fault.Unavailable)
			}
			// What is decided is told, what is not is refused.
			known := r.order(OrderOp{Kind: OrderPoison, Key: k}, nil)
			unknown := r.order(OrderOp{Kind: OrderPoison, Key: slotTxn(3, 250)}, nil)
			r.settle()
			known.mustSay(t, "committed")
			unknown.mustBe(t, true, fault.Unavailable)
			left := r.mustStep(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: freeze.req.Slots.Result.Nonce})
			if !left.Slots.Out.Left {
				t.Fatal("not left")
			}
			gone := r.order(OrderOp{Kind: OrderQuery, Key: slotTxn(3, 250)}, nil)
			r.settle()
			gone.mustBe(t, true, fault.WrongGroup)
		})
	}
}

// A freeze gives up when the transactions do not end, and then they may begin again.
func TestFreezesGiveUp(t *testing.T) {
	r := slotRig(t)
	r.core.cfg.MaxFreeze = time.Second
	key := keyIn(slotsOf("200-300"))
	k := slotTxn(1, keyspace.SlotOf(1, key))
	r.prepareTxn(k, TxnOp{Checks: []Op{check(key, atVersion(0))}})
	freeze := r.ask(freezeSome)
	r.settle()
	r.core.Expire(r.now.Mono + time.Second)
	freeze.mustBe(t, false, "")
	r.core.Expire(r.now.Mono + time.Second + 1)
	freeze.mustBe(t, true, fault.Unavailable)
	again := r.prepareTxn(slotTxn(2, k.Slot), TxnOp{Checks: []Op{check(key, atVersion(0))}})
	r.settle()
	again.mustSay(t, "prepared true true true")
	r.core.state.Slots.Out = &format.SlotsOut{ID: 3, To: 9, Slots: slotsOf("200-300"), Nonce: 5}
	if _, err := r.step(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: 5}); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Fatalf("left with locks: %v", err)
	}
}

// The mark goes with slots: what the former owner would refuse, the new one does.
func TestLowWaterMovesWithSlots(t *testing.T) {
	from := slotRig(t)
	from.low(keyspace.RevisionAt(wall - 1000))
	from.settle()
	frozen := from.mustStep(freezeSome)
	out := from.mustStep(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: frozen.Nonce}).Slots.Out
	if out.LowWater != keyspace.RevisionAt(wall-1000) {
		t.Fatalf("left with %+v", out)
	}
	for _, own := range []int64{0, 500} { // the receiver's own mark may be higher
		to := slotRig(t)
		if own > 0 {
			to.low(keyspace.RevisionAt(wall - own))
		}
		for _, c := range []format.SlotChange{
			{Kind: format.SlotBegin, Move: 3, Peer: 2, Slots: slotsOf("0-9")}, {Kind: format.SlotImport, Move: 3, Done: true},
			{Kind: format.SlotReady, Move: 3, Nonce: 7},
		} {
			to.mustStep(c)
		}
		to.ask(format.SlotChange{Kind: format.SlotAccept, Move: 3, Nonce: 7, Ceiling: keyspace.RevisionAt(wall), LowWater: out.LowWater})
		k := slotTxn(1, 5)
		k.ID.Created = keyspace.RevisionAt(wall - 1000)
		poison := to.order(OrderOp{Kind: OrderPoison, Key: k}, nil) // behind the step, which may be in flight
		to.settle()
		poison.mustSay(t, "expired")
		want := keyspace.RevisionAt(wall - 1000)
		if own > 0 {
			want = keyspace.RevisionAt(wall - own)
		}
		if got := to.core.state.LowWater; got != want {
			t.Fatalf("the mark is %v, want %v", got, want)
		}
	}
}

// What the planted bugs of the simulation do: a refusal that is forgotten, and locks
// that are.
func TestPlantedBugsOfTransactions(t *testing.T) {
	for bug, want := range map[invariant.Bug]string{0: "aborted conflict", invariant.BugVolatileNo: "prepared true true true"} {
		r := newRig(t)
		r.core.cfg.Bugs = bug
		r.elect()
		refused := r.order(OrderOp{Kind: OrderRefuse, Key: aTxn(1)}, nil)
		r.settle()
		refused.mustSay(t, "aborted conflict")
		late := r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("k", "1")}})
		r.settle()
		late.mustSay(t, want)
	}
	for bug, waits := range map[invariant.Bug]bool{0: true, invariant.BugLockForgotten: false} {
		r := newRig(t)
		r.core.cfg.Bugs = bug
		r.elect()
		p := r.prepareTxn(aTxn(1), TxnOp{Then: []Op{put("k", "1")}})
		w := r.submit(put("k", "2"))
		r.settle()
		w.mustBe(t, !waits, "")
		r.commitTxn(aTxn(1), p.req.Order.Result.Stamp+50, twophase.Then)
		r.settle()
		w.mustBe(t, true, "")
	}
}
