package replica

import (
	"fmt"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/twophase"
)

// once enqueues a request with an id, whose answer is what its operations came to.
func (r *rig) once(id keyspace.TxnID, t *TxnOp, ops ...Op) *answer {
	return r.enqueue(&answer{req: &Request{Group: 1, ID: id, Ops: ops, Txn: t, Deadline: r.now.Mono + time.Minute, Encode: told}})
}

func told(r *Request) []byte {
	out := "ops"
	if r.Txn != nil {
		out = fmt.Sprint(r.Txn.Succeeded)
	}
	for i := range r.Ops {
		res := &r.Ops[i].Result
		out += fmt.Sprintf(" %d %s", res.Version, fault.CodeOf(res.Err))
	}
	return []byte(out)
}

func (a *answer) mustRemember(t *testing.T, want string) {
	t.Helper()
	a.mustBe(t, true, "")
	if string(a.req.Remembered) != want || (want == "") != (a.req.Remembered == nil) {
		t.Fatalf("remembered %q, want %q", a.req.Remembered, want)
	}
}

// A request with an id happens once, whatever it came to, and says the same again:
// while it is in flight, later, from the disk, and under the next leader.
func TestRequestsHappenOnce(t *testing.T) {
	bad := put("a", "2")
	bad.Condition = atVersion(9)
	for name, c := range map[string]struct {
		txn    *TxnOp
		ops    []Op
		told   string
		after  string
		branch twophase.Branch
	}{
		"put":                {nil, []Op{put("a", "2")}, "ops 2 ", "2:2", twophase.Then},
		"delete":             {nil, []Op{del("a")}, "ops 2 ", "none", twophase.Then},
		"delete of nothing":  {nil, []Op{del("none")}, "ops 0 ", "1:a", twophase.Then},
		"condition":          {nil, []Op{bad, put("b", "1")}, "ops 0 condition_failed 0 batch_aborted", "1:a", twophase.Nothing},
		"then":               {&TxnOp{Then: []Op{put("a", "2")}}, nil, "true 2 ", "2:2", twophase.Then},
		"otherwise":          {&TxnOp{Checks: []Op{check("a", atVersion(9))}, Otherwise: []Op{del("a")}}, nil, "false 2 ", "none", twophase.Otherwise},
		"reads":              {&TxnOp{Then: []Op{read("a")}}, nil, "true 1 ", "1:a", twophase.Then},
		"a condition inside": {&TxnOp{Then: []Op{bad}}, nil, "true 0 condition_failed", "1:a", twophase.Nothing},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.core.cfg.MaxQueueOps = 100
			r.elect()
			r.submit(put("a", "a"))
			r.settle()
			id := aTxn(1).ID
			first := r.once(id, c.txn, c.ops...)
			again := r.once(id, c.txn, c.ops...) // behind the first, in flight
			r.evaluate()
			first.mustBe(t, false, "")
			again.mustBe(t, false, "")
			r.settle()
			first.mustRemember(t, "")
			if got := string(told(first.req)); got != c.told {
				t.Fatalf("told %q, want %q", got, c.told)
			}
			again.mustRemember(t, c.told)
			for range 2 {
				again = r.once(id, c.txn, c.ops...)
				before := r.index
				r.settle()
				again.mustRemember(t, c.told)
				if r.index != before || r.state("a") != c.after {
					t.Fatalf("a is %s after %d entries more", r.state("a"), r.index-before)
				}
				r.flush()
				r.elect()
				r.now.Mono += time.Minute
			}
			q := r.order(OrderOp{Kind: OrderQuery, Key: r.recordKey(first.req)}, nil)
			r.settle()
			q.mustSay(t, "committed")
			if res := q.req.Order.Result; string(res.Remembered) != c.told || res.Branch != c.branch || len(res.Participants) != 1 {
				t.Fatalf("asked for it: %+v", res)
			}
			// Nothing else ever happens under the id, be it as a participant of several.
			p := r.prepareTxn(r.recordKey(first.req), TxnOp{Then: []Op{put("a", "twice")}})
			poison := r.order(OrderOp{Kind: OrderPoison, Key: r.recordKey(first.req)}, nil)
			commit := r.commitTxn(r.recordKey(first.req), r.core.state.LastRev, twophase.Then)
			r.settle()
			p.mustSay(t, "aborted elsewhere")
			poison.mustSay(t, "aborted elsewhere")
			commit.mustBe(t, true, fault.FailedPrecondition)
			if string(p.req.Order.Result.Remembered) != c.told {
				t.Fatalf("the participant remembers %q", p.req.Order.Result.Remembered)
			}
			// Below the mark it is not known any more, and still does not happen.
			r.low(id.Created)
			r.settle()
			r.enqueue(&answer{req: &Request{Group: 1, Forget: &ForgetOp{Keys: []keyspace.TxnKey{r.recordKey(first.req)}}}})
			r.settle()
			late := r.once(id, c.txn, c.ops...)
			r.settle()
			late.mustBe(t, true, fault.OutOfRange)
			if r.state("a") != c.after {
				t.Fatalf("a is %s", r.state("a"))
			}
		})
	}
}

func (r *rig) recordKey(req *Request) keyspace.TxnKey {
	r.t.Helper()
	k, err := keyspace.ParseTxnKey(req.named().Key)
	if err != nil {
		r.t.Fatal(err)
	}
	return k
}

// The record lies in the lowest slot of all keys, which is a participant whatever
// groups they are in.
func TestOutcomesLieInTheLowestSlot(t *testing.T) {
	low, high := keyIn(slotsOf("100-200")), keyIn(slotsOf("3000-4000"))
	for _, req := range []*Request{
		{Ops: []Op{put(high, "1"), put(low, "1")}},
		{Txn: &TxnOp{Checks: []Op{check(high, atVersion(0))}, Then: []Op{put(high, "1")}, Otherwise: []Op{read(low)}}},
	} {
		req.ID = aTxn(1).ID
		k, err := keyspace.ParseTxnKey(req.named().Key)
		if err != nil || k.Slot != keyspace.SlotOf(1, low) || k.ID != req.ID || k.Attempt != 0 {
			t.Fatalf("%+v, %v", k, err)
		}
	}
}

// What may not be carried out under an id: one that several groups know of, one of
// the future; and one whose keys are locked waits like any other.
func TestRequestsThatDoNotHappen(t *testing.T) {
	r := newRig(t)
	r.elect()
	id := aTxn(1).ID
	k := r.recordKey(&Request{ID: id, Ops: []Op{put("a", "1")}})
	r.prepareTxn(k, TxnOp{Then: []Op{put("a", "0")}})
	begun := r.once(id, nil, put("a", "1"))
	r.settle()
	begun.mustBe(t, true, fault.UnknownOutcome)
	waits := r.once(aTxn(2).ID, nil, put("a", "2"))
	r.settle()
	waits.mustBe(t, false, "")
	r.order(OrderOp{Kind: OrderCommit, Key: k, At: r.core.state.Prepared[0].Stamp, Branch: twophase.Then, Remember: true, Answer: []byte("both")}, nil)
	r.settle()
	waits.mustRemember(t, "")
	known := r.once(id, nil, put("a", "1"))
	r.settle()
	known.mustRemember(t, "both")
	if got := r.state("a"); got != "2:2" {
		t.Fatal(got)
	}
	future := r.once(keyspace.TxnID{Created: keyspace.RevisionAt(wall + 65_000)}, nil, put("a", "3"))
	r.settle()
	future.mustBe(t, true, fault.OutOfRange)
}

// DESIGN 4: what raft dropped is judged anew, and remembered as it is then.
func TestDroppedRequestsAreRememberedOnce(t *testing.T) {
	r := newRig(t)
	r.elect()
	a := r.once(aTxn(1).ID, nil, putIfAbsent("a", "1"))
	r.core.Evaluate(r.now)
	r.core.Dropped()
	first := &Request{Group: 1, Ops: []Op{put("a", "0")}, Done: func(*Request) {}}
	r.fetch(&first.Ops[0])
	r.core.EnqueueFirst(first)
	r.settle()
	a.mustRemember(t, "")
	again := r.once(aTxn(1).ID, nil, putIfAbsent("a", "1"))
	r.settle()
	again.mustRemember(t, "ops 0 condition_failed")
}

// DESIGN 4: what follows from the state is said once leadership is confirmed. A
// leader that was deposed, and does not know, lacks what others wrote meanwhile.
func TestDenialsWaitForConfirmation(t *testing.T) {
	begun := aTxn(1)
	for name, c := range map[string]struct {
		ask  func(*rig) *answer
		want fault.Code
	}{
		"a commit of what is not prepared": {func(r *rig) *answer { return r.commitTxn(aTxn(2), keyspace.RevisionAt(wall), twophase.Then) }, fault.FailedPrecondition},
		"an id of several groups":          {func(r *rig) *answer { return r.once(begun.ID, nil, put("a", "1")) }, fault.UnknownOutcome},
		"an id that is too old": {func(r *rig) *answer {
			return r.once(keyspace.TxnID{Created: keyspace.RevisionAt(wall - 5000), Random: 1}, nil, put("b", "1"))
		}, fault.OutOfRange},
	} {
		t.Run(name, func(t *testing.T) {
			for _, deposed := range []bool{false, true} {
				r := newRig(t)
				r.elect()
				r.low(keyspace.RevisionAt(wall - 1000))
				r.settle()
				begun = r.recordKey(&Request{ID: begun.ID, Ops: []Op{put("a", "1")}})
				r.prepareTxn(begun, TxnOp{Then: []Op{put("a", "0")}})
				r.settle()
				a := c.ask(r)
				r.evaluate()
				a.mustBe(t, false, "")
				if deposed {
					r.core.StepDown(fault.New(fault.WrongLeader, "another leads"))
					a.mustBe(t, true, fault.WrongLeader)
					continue
				}
				r.core.Confirmed(r.term, r.core.Unconfirmed())
				a.mustBe(t, true, c.want)
			}
		})
	}
}
