package replica

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"kvstore/internal/engine/mem"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// rig is a core with a log that the test commits by hand.
type rig struct {
	t     testing.TB
	core  *Core
	store *mvcc.Store
	term  keyspace.Term
	index keyspace.Index
	log   [][]byte // proposed, not applied
	now   Now
}

const wall = 1_700_000_000_000

func newRig(t testing.TB) *rig {
	t.Helper()
	store := mvcc.New(mem.Open(), mvcc.Options{})
	cfg := Config{Group: 1, Replica: 1, ElectionTimeout: time.Second, MaxEntryBytes: 1 << 20, MaxEntryOps: 100,
		ChunkBytes: 100, MaxQueueOps: 8, MaxQueueBytes: 1 << 20}
	r := &rig{t: t, store: store, core: New(cfg, store, 7, format.State{Group: 1, Index: 1, Term: 1}), term: 1, index: 1,
		now: Now{Physical: wall, Mono: time.Hour}}
	return r
}

// elect makes the core leader of a new term and applies the term's first entry.
func (r *rig) elect() {
	r.t.Helper()
	r.term++
	r.core.BecomeLeader(r.term)
	r.log = nil
	r.apply(nil)
	r.core.Serving(r.now)
}

func (r *rig) apply(payload []byte) {
	r.t.Helper()
	r.index++
	if _, err := r.core.Apply(r.index, r.term, payload); err != nil {
		r.t.Fatal(err)
	}
	r.core.Settle()
}

// applyAll commits everything proposed.
func (r *rig) applyAll() {
	for _, p := range r.log {
		r.apply(p)
	}
	r.log = nil
}

// evaluate evaluates and proposes what waits.
func (r *rig) evaluate() Outcome {
	out := r.core.Evaluate(r.now)
	if out.Payload != nil {
		r.propose(out.Payload)
	}
	for {
		chunk := r.core.NextChunk(r.now)
		if chunk == nil {
			return out
		}
		r.propose(chunk)
	}
}

// propose takes a payload as raft does: it keeps a copy.
func (r *rig) propose(payload []byte) {
	r.log = append(r.log, bytes.Clone(payload))
	r.core.Proposed()
}

type answer struct {
	req  *Request
	done bool
}

// submit enqueues operations whose prefetch found what the store has.
func (r *rig) submit(ops ...Op) *answer {
	a := &answer{req: &Request{Group: 1, Ops: ops}}
	a.req.Done = func(*Request) { a.done = true }
	for i := range a.req.Ops {
		r.fetch(&a.req.Ops[i])
	}
	r.core.Enqueue(a.req)
	return a
}

func (r *rig) fetch(op *Op) {
	view := r.store.View()
	defer view.Close()
	f := Fetched{Delta: view.Active(), Instance: 7, Progress: r.core.Progress(), Valid: true}
	if value, rev, ok, _ := view.Get(7, op.DiskKey(), keyspace.MaxRevision); ok {
		f.Header, _ = format.DecodeHeader(value, rev)
		if op.NeedsRecord() {
			f.Record = bytes.Clone(value)
		}
		if op.Condition.HasValueEquals {
			rec, err := format.DecodeRecord(value, rev)
			f.Equal = err == nil && bytes.Equal(rec.Value, op.Condition.ValueEquals)
		}
	}
	op.SetFetched(f)
}

func put(key, value string) Op {
	return Op{Namespace: 1, Key: key, Value: []byte(value), Checksum: format.CRC32C([]byte(value))}
}

func putIfAbsent(key, value string) Op {
	op := put(key, value)
	op.Condition.MustNotExist = true
	return op
}

func (a *answer) mustBe(t testing.TB, done bool, code fault.Code) {
	t.Helper()
	if a.done != done {
		t.Fatalf("answered: %v, want %v (error %v)", a.done, done, a.req.Err)
	}
	if got := fault.CodeOf(a.req.Err); done && got != code {
		t.Fatalf("request error %v, want code %q", a.req.Err, code)
	}
}

// DESIGN 4: a leader evaluates only after it has applied an entry of its own term.
func TestEvaluatesOnlyAfterOwnTermApplied(t *testing.T) {
	r := newRig(t)
	r.term++
	r.core.BecomeLeader(r.term)
	a := r.submit(put("k", "v"))
	if out := r.evaluate(); out.Payload != nil || r.core.Serving(r.now) {
		t.Fatalf("evaluated before an entry of term %d was applied", r.term)
	}
	r.apply(nil)
	r.evaluate()
	r.applyAll()
	a.mustBe(t, true, "")
}

// DESIGN 4: evaluation order is log order; what follows sees what is in flight.
func TestEvaluationSeesInFlightWrites(t *testing.T) {
	r := newRig(t)
	r.elect()
	first := r.submit(putIfAbsent("k", "1"))
	r.evaluate()
	second := r.submit(putIfAbsent("k", "2"))
	if out := r.evaluate(); out.Confirm == 0 {
		t.Fatal("a refusal without an entry asks for no confirmation")
	}
	second.mustBe(t, false, "")
	// Confirmed leadership is not enough: the write it saw is not applied.
	r.core.Confirmed(r.term, r.core.Unconfirmed())
	second.mustBe(t, false, "")
	r.applyAll()
	first.mustBe(t, true, "")
	second.mustBe(t, true, "")
	if err := second.req.Ops[0].Result.Err; fault.CodeOf(err) != fault.ConditionFailed {
		t.Fatalf("second create: %v", err)
	}
}

// DESIGN 4: a refusal is answered only once leadership was confirmed after it.
func TestRefusalWaitsForConfirmation(t *testing.T) {
	r := newRig(t)
	r.elect()
	must := put("absent", "v")
	must.Condition.MustExist = true
	a := r.submit(must)
	out := r.evaluate()
	a.mustBe(t, false, "")
	r.core.Confirmed(r.term, out.Confirm-1)
	a.mustBe(t, false, "")
	r.core.Confirmed(r.term+1, out.Confirm)
	a.mustBe(t, false, "")
	r.core.Confirmed(r.term, out.Confirm)
	a.mustBe(t, true, "")
}

// DESIGN 4: nothing evaluated for a proposal that raft dropped stands.
func TestDroppedProposalLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.elect()
	a := r.submit(put("k", "lost?"))
	if out := r.core.Evaluate(r.now); out.Payload == nil {
		t.Fatal("nothing to propose")
	}
	r.core.Dropped()
	a.mustBe(t, false, "")
	// It waits again, first in line, and a create behind it must see it or not
	// as the log does.
	b := r.submit(putIfAbsent("k", "second"))
	r.evaluate()
	r.applyAll()
	a.mustBe(t, true, "")
	if v := a.req.Ops[0].Result.Version; v != 1 {
		t.Fatalf("version %d after one write", v)
	}
	b.mustBe(t, true, "")
	if fault.CodeOf(b.req.Ops[0].Result.Err) != fault.ConditionFailed {
		t.Fatalf("create behind a put: %v", b.req.Ops[0].Result.Err)
	}
}

// DESIGN 4: the overlay dies with its term, its waiters get "unknown outcome".
func TestStepDownAnswersUnknown(t *testing.T) {
	r := newRig(t)
	r.elect()
	proposed := r.submit(put("k", "v"))
	r.evaluate()
	waiting := r.submit(put("k2", "v"))
	r.core.StepDown(fault.New(fault.WrongLeader, "another leads"))
	proposed.mustBe(t, true, fault.UnknownOutcome)
	waiting.mustBe(t, true, fault.WrongLeader)
}

// DESIGN 4: nothing is evaluated while leadership is being transferred; DESIGN 6:
// the ceiling is lowered first and bounds reads from the proposal on.
func TestTransferLowersCeiling(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("k", "v"))
	r.evaluate()
	r.applyAll()
	high := r.core.State().Ceiling
	if !r.core.BeginTransfer(2) {
		t.Fatal("transfer refused")
	}
	a := r.submit(put("k", "w"))
	r.evaluate()
	if _, ready := r.core.TransferReady(); ready || len(r.log) != 1 {
		t.Fatalf("ready %v with %d entries in flight", ready, len(r.log))
	}
	r.now.Physical += 500
	if got := r.core.ReadClock(r.now); got > r.core.lead.clock {
		t.Fatalf("read at %v beyond the bound", got)
	}
	r.applyAll()
	if to, ready := r.core.TransferReady(); !ready || to != 2 {
		t.Fatalf("transfer to %d ready %v", to, ready)
	}
	if low := r.core.State().Ceiling; low >= high {
		t.Fatalf("ceiling %v was not lowered from %v", low, high)
	}
	a.mustBe(t, false, "")
	r.core.EndTransfer()
	r.evaluate()
	r.applyAll()
	a.mustBe(t, true, "")
}

// DESIGN 6: a new leader's time starts above the ceiling it inherits.
func TestNewLeaderStartsAboveCeiling(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("k", "v"))
	r.evaluate()
	r.applyAll()
	inherited := r.core.State().Ceiling
	r.now.Physical -= 60_000 // this leader's clock is behind
	r.elect()
	if r.core.Serving(r.now) {
		t.Fatal("serves before time caught up")
	}
	r.now.Mono += 2 * time.Second
	if !r.core.Serving(r.now) {
		t.Fatal("waits longer than one election timeout")
	}
	a := r.submit(put("k", "w"))
	r.evaluate()
	r.applyAll()
	if got := a.req.Ops[0].Result.Revision; got <= inherited {
		t.Fatalf("stamped %v, inherited ceiling %v", got, inherited)
	}
	if got := r.core.ReadClock(r.now); got < inherited {
		t.Fatalf("read clock %v behind %v", got, inherited)
	}
}

// DESIGN 6: nothing is ever written at or below a closed revision.
func TestClosedRevision(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("k", "v"))
	r.evaluate()
	if _, ok := r.core.CloseIdle(r.now); ok {
		t.Fatal("closes over a write in flight")
	}
	r.applyAll()
	r.now.Physical += 200
	closed, ok := r.core.CloseIdle(r.now)
	if !ok || closed > r.core.State().Ceiling {
		t.Fatalf("closed %v, ceiling %v", closed, r.core.State().Ceiling)
	}
	a := r.submit(put("k", "w"))
	r.evaluate()
	r.applyAll()
	if got := a.req.Ops[0].Result.Revision; got <= closed {
		t.Fatalf("wrote %v at or below closed %v", got, closed)
	}
}

// S3.7: versions count from 1 and restart after deletion; created_at stays.
func TestVersions(t *testing.T) {
	r := newRig(t)
	r.elect()
	do := func(op Op) OpResult {
		t.Helper()
		a := r.submit(op)
		out := r.evaluate()
		r.applyAll()
		if out.Confirm > 0 {
			r.core.Confirmed(r.term, out.Confirm)
		}
		a.mustBe(t, true, "")
		return a.req.Ops[0].Result
	}
	one := do(put("k", "a"))
	two := do(put("k", "b"))
	if one.Version != 1 || two.Version != 2 || two.Created != one.Created {
		t.Fatalf("got %+v then %+v", one, two)
	}
	if del := do(Op{Delete: true, Namespace: 1, Key: "k"}); !del.Existed {
		t.Fatalf("delete: %+v", del)
	}
	if again := do(Op{Delete: true, Namespace: 1, Key: "k"}); again.Existed || again.Revision != 0 {
		t.Fatalf("second delete: %+v", again)
	}
	if three := do(put("k", "c")); three.Version != 1 || three.Created == one.Created || three.Revision <= two.Revision {
		t.Fatalf("recreated: %+v", three)
	}
	expiring := put("t", "v")
	expiring.TTL = time.Second
	do(expiring)
	r.now.Physical += 1500
	if v := do(putIfAbsent("t", "w")); v.Err != nil || v.Version != 1 {
		t.Fatalf("create over an expired key: %+v", v)
	}
}

// A set of operations on one group happens whole or not at all.
func TestSetIsAtomic(t *testing.T) {
	r := newRig(t)
	r.elect()
	bad := put("b", "2")
	bad.Condition.MustExist = true
	a := r.submit(put("a", "1"), bad)
	out := r.evaluate()
	r.core.Confirmed(r.term, out.Confirm)
	a.mustBe(t, true, "")
	if fault.CodeOf(a.req.Ops[0].Result.Err) != fault.BatchAborted || fault.CodeOf(a.req.Ops[1].Result.Err) != fault.ConditionFailed {
		t.Fatalf("results %v and %v", a.req.Ops[0].Result.Err, a.req.Ops[1].Result.Err)
	}
	if _, _, _, ok := r.store.Latest(7, a.req.Ops[0].DiskKey()); ok || len(r.log) != 0 {
		t.Fatal("half of a refused set was written")
	}
}

// A prefetch that a write overtook out of the deltas is repeated.
func TestOvertakenPrefetchIsRepeated(t *testing.T) {
	r := newRig(t)
	r.elect()
	stale := &Request{Group: 1, Ops: []Op{putIfAbsent("k", "late")}, Done: func(*Request) {}}
	r.fetch(&stale.Ops[0]) // sees no key
	r.submit(put("k", "v"))
	r.evaluate()
	r.applyAll()
	r.store.Seal()
	if _, ok, err := r.store.FlushOldest(t.Context(), func(keyspace.InstanceID) bool { return true }); !ok || err != nil {
		t.Fatalf("flush: %v %v", ok, err)
	}
	r.core.Enqueue(stale)
	if out := r.evaluate(); len(out.Refetch) != 1 || out.Payload != nil {
		t.Fatalf("a stale prefetch was evaluated: %+v", out)
	}
}

// Large values go through the log in chunks before the write that claims them,
// and an overwrite deletes the chunks it replaces.
func TestLargeValueIsChunked(t *testing.T) {
	r := newRig(t)
	r.elect()
	large := string(make([]byte, 1050))
	a := r.submit(put("big", large))
	for range 3 {
		r.evaluate()
	}
	if len(r.log) != 12 {
		t.Fatalf("%d entries for 11 chunks and a claim", len(r.log))
	}
	r.applyAll()
	a.mustBe(t, true, "")
	upload := a.req.Ops[0].upload.stamp
	if len(r.core.State().Uploads) != 0 {
		t.Fatalf("claimed uploads remain: %v", r.core.State().Uploads)
	}
	r.submit(put("big", "small"))
	r.evaluate()
	r.applyAll()
	for n := range uint32(11) {
		if _, _, del, ok := r.store.Latest(7, keyspace.AppendChunkKey(nil, upload, n)); !ok || !del {
			t.Fatalf("chunk %d survives the overwrite", n)
		}
	}
}

// The first entry of a new term drops what nobody claimed.
func TestUnclaimedChunksAreDropped(t *testing.T) {
	r := newRig(t)
	r.elect()
	a := r.submit(put("big", string(make([]byte, 350))))
	r.core.Evaluate(r.now)
	chunk := r.core.NextChunk(r.now)
	r.core.Proposed()
	r.apply(chunk)
	upload := r.core.State().Uploads
	if len(upload) != 1 {
		t.Fatalf("unclaimed uploads: %v", upload)
	}
	r.elect()
	a.mustBe(t, true, fault.Unavailable)
	if _, _, del, ok := r.store.Latest(7, keyspace.AppendChunkKey(nil, upload[0].Stamp, 0)); !ok || !del || len(r.core.State().Uploads) != 0 {
		t.Fatal("an unclaimed chunk survived its term")
	}
}

// Everything that waits is bounded; the answer when full is overloaded.
func TestQueueIsBounded(t *testing.T) {
	r := newRig(t)
	r.elect()
	for range 8 {
		r.submit(put("k", "v")).mustBe(t, false, "")
	}
	full := r.submit(put("k", "v"))
	full.mustBe(t, true, fault.Overloaded)
	var e *fault.Error
	if !errors.As(full.req.Err, &e) || e.RetryAfter == 0 || e.Details["limit"] != "8" {
		t.Fatalf("overload without limit or hint: %v", full.req.Err)
	}
}

// An entry of a newer format stops the replica; so does a gap in the chain.
func TestUnknownAndForeignEntriesAreRefused(t *testing.T) {
	r := newRig(t)
	payload := format.AppendEntry(nil, &format.Entry{Type: format.EntryClock, Stamp: 1, Ceiling: 1})
	payload[0] = format.Version + 1
	if _, err := r.core.Apply(2, 1, payload); !errors.Is(err, format.ErrUnknownEntry) {
		t.Fatalf("newer entry: %v", err)
	}
	foreign := format.AppendEntry(nil, &format.Entry{Type: format.EntryClock, Prev: 99, Stamp: 1, Ceiling: 1})
	if _, err := r.core.Apply(2, 1, foreign); !errors.Is(err, ErrDiverged) {
		t.Fatalf("entry of another chain: %v", err)
	}
}
