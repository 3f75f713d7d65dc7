package replica

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
	"kvstore/internal/twophase"
)

// anyTransaction prepares a participant, and commits or aborts it after a while in
// which sweeps pass, at a revision that another participant may have given.
func (r *rig) anyTransaction(rt *rapid.T, m ttlModel) {
	t := &TxnOp{}
	for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b\x00", "c"}), 1, 2, rapid.ID).Draw(rt, "then") {
		t.Then = append(t.Then, anyTTLOp(rt, key, r.now.Physical))
	}
	t.Otherwise = []Op{anyTTLOp(rt, "a", r.now.Physical)}
	t.Checks = []Op{check("c", Condition{MustExist: rapid.Bool().Draw(rt, "must exist")})}
	k := aTxn(uint64(r.index))
	p := r.orderOver(OrderOp{Kind: OrderPrepare, Key: k}, t)
	if p.State != twophase.Prepared {
		r.t.Fatalf("%+v", p)
	}
	holds := p.Holds
	for range rapid.IntRange(0, 2).Draw(rt, "sweeps meanwhile") {
		r.now.Physical += int64(rapid.IntRange(0, 4000).Draw(rt, "time passes"))
		r.sweepAll(m)
		r.mustBeIndexed()
	}
	if rapid.IntRange(0, 3).Draw(rt, "abort") == 0 {
		r.orderOver(OrderOp{Kind: OrderAbort, Key: k}, nil)
		return
	}
	at := p.Stamp + keyspace.Revision(rapid.IntRange(0, 500).Draw(rt, "later"))<<16
	branch, ops := twophase.Nothing, []Op(nil)
	switch {
	case holds && p.ThenPossible:
		branch, ops = twophase.Then, t.Then
	case !holds && p.OtherwisePossible:
		branch, ops = twophase.Otherwise, t.Otherwise
	}
	r.orderOver(OrderOp{Kind: OrderCommit, Key: k, At: at, Branch: branch}, nil)
	for i := range ops {
		m.write(&ops[i], &OpResult{Revision: at}, p.Stamp.UnixMilli())
	}
}

// orderOver has a step taken and applied.
func (r *rig) orderOver(o OrderOp, t *TxnOp) OrderResult {
	r.t.Helper()
	a := r.order(o, t)
	for range 20 {
		out := r.evaluate()
		r.applyAll()
		r.core.Confirmed(r.term, r.core.Unconfirmed())
		for _, again := range out.Refetch {
			r.fetchAll(again)
			r.core.Enqueue(again)
		}
		if a.done {
			break
		}
	}
	a.mustBe(r.t, true, "")
	return a.req.Order.Result
}

// wantSweep enqueues a sweep of a key with a deadline.
func (r *rig) wantSweep(key string, deadline int64) *SweepOp {
	named := read(key)
	sweep := &SweepOp{Keys: []SweepKey{{Key: named.DiskKey(), Expires: deadline}}}
	r.fetchSweep(sweep)
	r.core.Enqueue(&Request{Group: 1, Sweep: sweep})
	return sweep
}

// sweepInFlight has one evaluated, and not applied.
func (r *rig) sweepInFlight(key string, deadline int64) *SweepOp {
	sweep := r.wantSweep(key, deadline)
	r.evaluate()
	return sweep
}

// DESIGN 9: a lock holds expiry. The sweep leaves what is locked, exclusively or not,
// applied or in flight, and takes it when the lock is gone.
func TestSweepLeavesLockedKeys(t *testing.T) {
	for name, txn := range map[string]TxnOp{
		"written": {Then: []Op{put("k", "2")}}, "read": {Then: []Op{read("k")}},
		"checked": {Checks: []Op{check("k", atVersion(1))}}, "touched": {Otherwise: []Op{touch("k", time.Hour)}},
	} {
		for _, applied := range []bool{false, true} {
			t.Run(fmt.Sprint(name, applied), func(t *testing.T) {
				r := newRig(t)
				r.elect()
				deadline := r.do(expiring("k", "1", time.Second)).Ops[0].Result.Expires
				p := r.prepareTxn(aTxn(1), txn)
				r.evaluate()
				if applied {
					r.settle()
				}
				r.core.RaiseCeiling(keyspace.RevisionAt(deadline + 5000))
				r.evaluate()
				if applied {
					r.settle()
				}
				r.now.Physical = deadline + 10
				if sweep := r.sweepInFlight("k", deadline); sweep.Result.Swept != 0 || sweep.Result.Held+sweep.Result.Judged != 2 {
					t.Fatalf("%+v", sweep.Result)
				}
				r.settle()
				p.mustBe(t, true, "")
				if got := r.state("k"); got != "1:1" {
					t.Fatalf("k is %s", got)
				}
				r.orderOver(OrderOp{Kind: OrderAbort, Key: aTxn(1)}, nil)
				if sweep := r.sweepInFlight("k", deadline); sweep.Result.Swept != 1 {
					t.Fatalf("without locks: %+v", sweep.Result)
				}
				r.settle()
				r.mustBeIndexed()
			})
		}
	}
}

// A Prepare sees what a sweep in flight has done, also when raft drops its entry.
func TestPrepareSeesSweeps(t *testing.T) {
	for _, dropped := range []bool{false, true} {
		r := newRig(t)
		r.elect()
		deadline := r.do(expiring("k", strings.Repeat("x", 300), time.Second)).Ops[0].Result.Expires
		r.core.RaiseCeiling(keyspace.RevisionAt(deadline + 5000))
		r.settle()
		r.now.Physical = deadline + 10
		sweep := r.wantSweep("k", deadline)
		if dropped {
			r.core.Evaluate(r.now)
			r.core.Dropped()
		}
		r.evaluate()
		if sweep.Result.Swept != 1 {
			t.Fatalf("%+v", sweep.Result)
		}
		p := r.prepareTxn(aTxn(1), TxnOp{Checks: []Op{check("k", atVersion(0))}, Then: []Op{expiring("k", "2", time.Second)}})
		r.settle()
		p.mustSay(t, "prepared true true true")
		at := p.req.Order.Result.Stamp + 5<<16
		r.orderOver(OrderOp{Kind: OrderCommit, Key: aTxn(1), At: at, Branch: twophase.Then}, nil)
		if rec := r.newest("k"); rec.Version != 1 || rec.Created != at || rec.Expires != at.UnixMilli()+1000 {
			t.Fatalf("dropped %v: %+v", dropped, rec.Header)
		}
		r.mustBeIndexed()
		if n := r.chunkCount(); n != 0 {
			t.Fatalf("%d chunks of what expired", n)
		}
	}
}

func (r *rig) chunkCount() (n int) {
	view := r.store.View()
	defer view.Close()
	it := view.Scan(mvcc.ScanOptions{Instance: 7, At: keyspace.MaxRevision})
	defer it.Close()
	for ; it.Valid(); it.Next() {
		if keyspace.KindOf(it.Key()) == keyspace.KindChunk {
			n++
		}
	}
	return n
}

// A TTL counts from the commit. The index key of the new deadline is there, also when
// it was written and deleted above the commit's revision meanwhile; that of the old
// one is not.
func TestCommitsKeepTheIndex(t *testing.T) {
	r := newRig(t)
	r.elect()
	first := r.do(expiring("k", "1", time.Minute)).Ops[0].Result
	absolute := put("other", "1")
	absolute.ExpiresAt = first.Expires
	p := r.prepareTxn(aTxn(1), TxnOp{Then: []Op{expiring("k", "2", time.Hour), absolute}})
	r.settle()
	stamp := p.req.Order.Result.Stamp
	r.do(put("unlocked", "1")) // stamped above the commit
	// The walk that looks for records without an index gives the old one its key anew.
	index, _ := r.deadlines()
	r.sweep(true, index...)
	r.orderOver(OrderOp{Kind: OrderCommit, Key: aTxn(1), At: stamp, Branch: twophase.Then}, nil)
	if rec := r.newest("k"); rec.Expires != stamp.UnixMilli()+time.Hour.Milliseconds() || rec.Revision != stamp {
		t.Fatalf("%+v, the commit was at %v", rec.Header, stamp)
	}
	r.mustBeIndexed()
	if got := r.core.TakeDeadline(); got != first.Expires {
		t.Fatalf("the host is told of %d", got)
	}
}

// A touch in a transaction over groups keeps the value where it is, whether it is
// committed or not.
func TestTouchesOverGroups(t *testing.T) {
	large := strings.Repeat("large", 50)
	for _, value := range []string{"small", large} {
		for _, end := range []twophase.Branch{twophase.Then, twophase.Otherwise, twophase.Nothing, twophase.NoBranch} {
			t.Run(fmt.Sprint(len(value), end), func(t *testing.T) {
				r := newRig(t)
				r.elect()
				r.do(expiring("k", value, time.Minute))
				r.flush()
				chunks := r.chunkCount()
				p := r.orderOver(OrderOp{Kind: OrderPrepare, Key: aTxn(1)}, &TxnOp{Then: []Op{touch("k", time.Hour)}, Otherwise: []Op{touch("k", 0)}})
				if p.State != twophase.Prepared {
					t.Fatalf("%+v", p)
				}
				r.flush()
				at := p.Stamp + 9
				var want int64
				version := uint64(2)
				switch end {
				case twophase.Then:
					want = at.UnixMilli() + time.Hour.Milliseconds()
				case twophase.Otherwise:
				case twophase.Nothing, twophase.NoBranch:
					want, version = r.newest("k").Expires, 1
				}
				if end == twophase.NoBranch {
					r.orderOver(OrderOp{Kind: OrderAbort, Key: aTxn(1)}, nil)
				} else {
					r.orderOver(OrderOp{Kind: OrderCommit, Key: aTxn(1), At: at, Branch: end}, nil)
				}
				rec := r.newest("k")
				if rec.Version != version || rec.Expires != want || r.value(rec) != value || r.chunkCount() != chunks {
					t.Fatalf("%+v with %d chunks, want version %d, deadline %d, %d chunks", rec.Header, r.chunkCount(), version, want, chunks)
				}
				r.mustBeIndexed()
			})
		}
	}
}

// What a touch needs is there when it is prepared: the key, and a deadline to come.
func TestWhatMayNotExpireIsNotPrepared(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.do(put("k", "1"))
	past := put("k", "2")
	past.ExpiresAt = r.now.Physical - 1
	txn := func() *TxnOp { return &TxnOp{Then: []Op{past}, Otherwise: []Op{touch("absent", time.Hour)}} }
	for _, again := range []bool{false, true} {
		ops := txn()
		p := r.orderOver(OrderOp{Kind: OrderPrepare, Key: aTxn(1)}, ops)
		if p.ThenPossible || p.OtherwisePossible {
			t.Fatalf("again %v: %+v", again, p)
		}
		if a, b := fault.CodeOf(ops.Then[0].Result.Err), fault.CodeOf(ops.Otherwise[0].Result.Err); a != fault.InvalidArgument || b != fault.ConditionFailed {
			t.Fatalf("again %v: %v, %v", again, a, b)
		}
	}
	r.orderOver(OrderOp{Kind: OrderCommit, Key: aTxn(1), At: r.core.state.Prepared[0].Stamp, Branch: twophase.Nothing}, nil)
	if got := r.state("k"); got != "1:1" {
		t.Fatalf("k is %s", got)
	}
}

// What a replica has after the log is what its leader has, byte for byte.
func TestReplayOfDeadlines(t *testing.T) {
	r := newRig(t)
	start := r.core.state
	r.elect()
	log := [][]byte{nil}
	keep := func() {
		r.evaluate()
		log = append(log, r.log...)
		r.applyAll()
		r.core.Confirmed(r.term, r.core.Unconfirmed())
	}
	r.submit(expiring("k", strings.Repeat("x", 300), time.Second), expiring("t", "t", time.Hour))
	keep()
	keep()
	p := r.prepareTxn(aTxn(1), TxnOp{Then: []Op{expiring("k", strings.Repeat("y", 300), time.Minute), touch("t", time.Second)}})
	keep()
	keep()
	r.commitTxn(aTxn(1), p.req.Order.Result.Stamp, twophase.Then)
	keep()
	p.mustSay(t, "prepared true true true")
	other := newRig(t)
	core := New(r.core.cfg, other.store, 7, start)
	for n, payload := range log {
		if _, err := core.Apply(start.Index+keyspace.Index(n+1), r.term, payload); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := r.contents(), other.contents(); a != b || !strings.Contains(a, "y") {
		t.Fatalf("the leader has\n%s\nreplayed\n%s", a, b)
	}
	if a, b := format.AppendState(nil, &r.core.state), format.AppendState(nil, core.State()); !bytes.Equal(a, b) {
		t.Fatalf("%x, replayed %x", a, b)
	}
	r.mustBeIndexed()
}

// contents are all versions of all keys.
func (r *rig) contents() string {
	view := r.store.View()
	defer view.Close()
	it := view.Scan(mvcc.ScanOptions{Instance: 7, At: keyspace.MaxRevision, AllVersions: true})
	defer it.Close()
	var b strings.Builder
	for ; it.Valid(); it.Next() {
		value, err := it.Value()
		fmt.Fprintf(&b, "%q at %v: %q %v\n", it.Key(), it.Revision(), value, err)
	}
	return b.String()
}

// Who looks at a key past its deadline waits for whoever looked at it before that and
// may be committed later: both would not fit into one order. With a deadline to come,
// and of keys that nobody looked at, nobody waits.
func TestLooksAtExpiredKeysWait(t *testing.T) {
	for _, flushed := range []bool{false, true} {
		r := newRig(t)
		r.core.cfg.MaxQueueOps = 100
		r.elect()
		r.do(expiring("k", "1", time.Second), expiring("later", "1", time.Hour), expiring("free", "1", time.Second))
		exists := Condition{MustExist: true}
		p := r.prepareTxn(aTxn(1), TxnOp{Checks: []Op{check("k", exists), check("later", exists)}})
		r.settle()
		p.mustSay(t, "prepared true true true")
		if flushed {
			r.flush()
		}
		r.now.Physical += 2000
		absent := []Op{check("k", atVersion(0))}
		one := r.transact(TxnOp{Checks: absent, Then: []Op{put("x", "1")}})
		reads := r.transact(TxnOp{Then: []Op{read("k")}})
		waits := r.order(OrderOp{Kind: OrderPrepare, Key: aTxn(2), Wait: true}, &TxnOp{Checks: absent})
		refused := r.order(OrderOp{Kind: OrderPrepare, Key: aTxn(3)}, &TxnOp{Checks: absent})
		free := r.transact(TxnOp{Checks: []Op{check("later", exists), check("free", atVersion(0))}, Then: []Op{put("y", "1")}})
		r.settle()
		free.mustBe(t, true, "")
		refused.mustSay(t, "aborted conflict")
		for _, a := range []*answer{one, reads, waits} {
			a.mustBe(t, false, "")
		}
		r.commitTxn(aTxn(1), p.req.Order.Result.Stamp, twophase.Then)
		r.settle()
		one.mustBe(t, true, "")
		reads.mustBe(t, true, "")
		waits.mustSay(t, "prepared true true true")
		if !one.req.Txn.Succeeded || reads.req.Ops[0].Result.Existed {
			t.Fatalf("%+v, %+v", one.req.Txn, reads.req.Ops[0].Result)
		}
	}
}
