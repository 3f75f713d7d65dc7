package replica

import (
	"testing"
	"time"

	"kvstore/internal/fault"
)

// What replaces a record of a lease, and what an end of a lease deletes, as the
// replica tells it.
func TestLeases(t *testing.T) {
	r := newRig(t)
	r.elect()
	do := func(op Op, code fault.Code) OpResult {
		t.Helper()
		a := r.submit(op)
		out := r.evaluate()
		r.applyAll()
		if out.Confirm > 0 {
			r.core.Confirmed(r.term, out.Confirm)
		}
		a.mustBe(t, true, "")
		if got := fault.CodeOf(a.req.Ops[0].Result.Err); got != code {
			t.Fatalf("%v, want code %q", a.req.Ops[0].Result.Err, code)
		}
		return a.req.Ops[0].Result
	}
	leased := func(lease string) Op {
		op := put("k", "v")
		op.Lease = lease
		return op
	}
	of := func(lease string, end LeaseEnd) Op {
		return Op{Delete: true, Namespace: 1, Key: "k", Lease: lease, Ended: end, Condition: Condition{Lease: &lease}}
	}
	first := do(leased("a"), "")
	created := uint64(first.Created)
	for i, step := range []struct {
		op       Op
		code     fault.Code
		detached string
	}{
		{leased("a"), "", ""},
		{leased("b"), "", "a"},
		{put("k", "v"), "", "b"},
		{leased("c"), "", ""},
		{of("a", LeaseExpired), fault.ConditionFailed, ""},
		{Op{Namespace: 1, Key: "k", Condition: Condition{Created: &created}, Lease: "c"}, "", ""},
		{of("c", LeaseRevoked), "", ""},
		{Op{Namespace: 1, Key: "k", Condition: Condition{Created: &created}}, fault.ConditionFailed, ""},
		{leased("d"), "", ""},
		{Op{Namespace: 1, Key: "k", Condition: Condition{Created: &created}}, fault.ConditionFailed, ""},
		{Op{Delete: true, Namespace: 1, Key: "k"}, "", "d"},
	} {
		if got := do(step.op, step.code); got.Detached != step.detached {
			t.Fatalf("step %d: detached from %q, want %q", i, got.Detached, step.detached)
		}
	}
	// What has expired is deleted by the end of a lease, and by nothing else.
	expiring := leased("e")
	expiring.TTL = time.Second
	do(expiring, "")
	r.now.Physical += 1500
	gone := Op{Delete: true, Namespace: 1, Key: "k", Condition: Condition{MustNotExist: true}}
	if got := do(gone, ""); got.Revision != 0 {
		t.Fatalf("%+v", got)
	}
	gone.Ended = LeaseExpired
	if got := do(gone, ""); got.Revision == 0 || got.Detached != "" {
		t.Fatalf("%+v", got)
	}
	if got := do(gone, ""); got.Revision != 0 {
		t.Fatalf("deleted twice: %+v", got)
	}
}

// A check among the operations of a list keeps all of it from happening.
func TestCheckInList(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("a", "1"))
	r.evaluate()
	r.applyAll()
	for version, want := range []string{2: "true condition_failed batch_aborted", 1: "true read:1 put:1"} {
		if want == "" {
			continue
		}
		guard := read("a")
		guard.Condition = atVersion(uint64(version))
		a := r.transact(TxnOp{Then: []Op{guard, put("b", "1")}})
		out := r.evaluate()
		r.applyAll()
		if out.Confirm > 0 {
			r.core.Confirmed(r.term, out.Confirm)
		}
		a.mustBe(t, true, "")
		if got := a.outcomes(); got != want {
			t.Errorf("version %d: %s, want %s", version, got, want)
		}
	}
}
