package replica

import (
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

var freezeSome = format.SlotChange{Kind: format.SlotFreeze, Move: 3, Peer: 9, Slots: slotsOf("200-300")}

// DESIGN 4: evaluation sees the steps in flight, in log order.
func TestWritesSeeStepsInFlight(t *testing.T) {
	r := slotRig(t)
	key := keyIn(slotsOf("200-300"))
	before := r.submit(put(key, "1"))
	step := r.ask(freezeSome)
	after := r.submit(put(key, "2"))
	r.evaluate()
	r.evaluate()
	r.evaluate()
	before.mustBe(t, false, "")
	step.mustBe(t, false, "")
	after.mustBe(t, true, fault.Unavailable) // at once: nothing was executed, whatever becomes of the freeze
	if len(r.log) != 2 {
		t.Fatalf("%d entries for a write and a step", len(r.log))
	}
	r.applyAll()
	before.mustBe(t, true, "")
	step.mustBe(t, true, "")
	// The thaw in flight lets writes behind it pass.
	nonce := step.req.Slots.Result.Nonce
	r.ask(format.SlotChange{Kind: format.SlotThaw, Move: 3, Nonce: nonce})
	late := r.ask(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: nonce})
	write := r.submit(put(key, "3"))
	for range 4 {
		r.evaluate()
	}
	write.mustBe(t, false, "")
	late.mustBe(t, false, "") // a refusal that tells of the state waits for what it saw
	r.applyAll()
	write.mustBe(t, true, "")
	late.mustBe(t, true, "")
	if fault.CodeOf(late.req.Slots.Result.Err) != fault.FailedPrecondition {
		t.Fatalf("left after a thaw: %v", late.req.Slots.Result.Err)
	}
}

// A step is alone in its entry.
func TestStepsAreAloneInTheirEntries(t *testing.T) {
	r := slotRig(t)
	r.core.WantDigest()
	given := r.submit(put(keyIn(slotsOf("400-500")), string(make([]byte, 250))))
	r.propose(r.core.Evaluate(r.now).Payload)
	r.propose(r.core.NextChunk(r.now))
	r.applyAll()
	given.req.finish(fault.New(fault.DeadlineExceeded, "late"))
	r.core.Expire(r.now.Mono) // its chunk waits to be deleted
	r.core.EnqueueFirst(r.request(format.SlotChange{Kind: format.SlotAbort, Move: 1, Peer: 2}).req)
	r.submit(put(keyIn(slotsOf("400-500")), "1"))
	r.ask(freezeSome)
	r.submit(put(keyIn(slotsOf("600-700")), "2"))
	r.ask(format.SlotChange{Kind: format.SlotBegin, Move: 4, Peer: 2, Slots: slotsOf("7")})
	r.core.WantDigest()
	for range 7 {
		r.evaluate()
	}
	var got []format.EntryType
	for _, p := range r.log {
		var e format.Entry
		if err := format.DecodeEntry(p, &e); err != nil {
			t.Fatal(err)
		}
		if e.Type == format.EntrySlots && len(e.Writes)+len(e.Claims) != 0 {
			t.Fatalf("a step with %d writes and %d claims", len(e.Writes), len(e.Claims))
		}
		got = append(got, e.Type)
	}
	want := []format.EntryType{format.EntrySlots, format.EntryWrite, format.EntrySlots, format.EntryWrite, format.EntrySlots, format.EntryDigest}
	if len(got) != len(want) {
		t.Fatalf("entries %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("entries %v, want %v", got, want)
		}
	}
	r.applyAll()
}

// Two freezes of which the first is not applied: nobody is told a nonce that is
// none, and what follows the first is judged by the real one once it is known.
func TestNonceOfAFreezeInFlight(t *testing.T) {
	r := slotRig(t)
	first := r.ask(freezeSome)
	second := r.ask(freezeSome)
	begin := r.ask(format.SlotChange{Kind: format.SlotBegin, Move: 4, Peer: 2, Slots: slotsOf("7")})
	for range 3 {
		r.evaluate()
	}
	first.mustBe(t, false, "")
	second.mustBe(t, false, "")
	if len(r.log) != 2 {
		t.Fatalf("%d entries for two steps", len(r.log))
	}
	r.apply(r.log[0])
	nonce := first.req.Slots.Result.Nonce
	if nonce != r.index {
		t.Fatalf("nonce %d, the entry is %d", nonce, r.index)
	}
	// The begin is still in flight on top of it.
	leave := r.ask(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: nonce})
	r.evaluate()
	if len(r.log) != 3 {
		t.Fatalf("leaving is refused: %v", leave.req.Slots.Result.Err)
	}
	r.log = r.log[1:]
	r.applyAll()
	begin.mustBe(t, true, "")
	leave.mustBe(t, true, "")
	if res := leave.req.Slots.Result; res.Err != nil || !res.Slots.Out.Left || res.Slots.In == nil {
		t.Fatalf("left: %+v", res)
	}
	second.mustBe(t, true, "")
	if res := second.req.Slots.Result; fault.CodeOf(res.Err) != fault.Unavailable || res.Nonce != 0 {
		t.Fatalf("frozen twice: %+v", res)
	}
}

// DESIGN 4: a step that raft refused never was, for those before and behind it.
func TestDroppedStepsLeaveNothing(t *testing.T) {
	r := slotRig(t)
	key := keyIn(slotsOf("200-300"))
	was := r.core.slots()
	r.ask(freezeSome)
	if out := r.core.Evaluate(r.now); out.Payload == nil {
		t.Fatal("nothing to propose")
	}
	if !r.core.slots().Frozen(200) {
		t.Fatal("a freeze in flight freezes nothing")
	}
	r.core.Dropped()
	if r.core.slots() != was || r.core.lead.steps != 0 {
		t.Fatalf("%d steps in flight, %+v", r.core.lead.steps, r.core.slots())
	}
	// On top of another one in flight, too.
	r.core.Shed(fault.New(fault.Overloaded, "full"))
	r.ask(format.SlotChange{Kind: format.SlotBegin, Move: 4, Peer: 2, Slots: slotsOf("7")})
	r.evaluate()
	began := r.core.slots()
	step := r.ask(freezeSome)
	r.core.Evaluate(r.now)
	r.core.Dropped()
	if r.core.slots() != began || began.In == nil {
		t.Fatalf("after the drop: %+v", r.core.slots())
	}
	write := r.submit(put(key, "v")) // the step waits again, ahead of it
	r.settle()
	step.mustBe(t, true, "")
	write.mustBe(t, true, fault.Unavailable)
}

// What is in flight dies with its term: the next leader sees what is applied.
func TestStepsInFlightDieWithTheirTerm(t *testing.T) {
	r := slotRig(t)
	step := r.ask(freezeSome)
	waiting := r.ask(format.SlotChange{Kind: format.SlotBegin, Move: 4, Peer: 2, Slots: slotsOf("7")})
	r.evaluate()
	r.elect()
	step.mustBe(t, true, fault.UnknownOutcome)
	waiting.mustBe(t, true, fault.Unavailable)
	r.now.Mono += time.Minute
	r.write(keyIn(slotsOf("200-300")), "")
	// The other way: the entry came through and a new leader goes on from it.
	step = r.ask(freezeSome)
	r.evaluate()
	log := r.log
	r.core.StepDown(fault.New(fault.WrongLeader, "another leads"))
	step.mustBe(t, true, fault.UnknownOutcome)
	r.apply(log[0])
	r.elect()
	r.now.Mono += time.Minute
	r.write(keyIn(slotsOf("200-300")), fault.Unavailable)
	if again := r.mustStep(freezeSome); again.Nonce != r.core.state.Slots.Out.Nonce || again.Nonce == 0 {
		t.Fatalf("asked again: %+v", again)
	}
}

// DESIGN 6: a group that takes slots over goes on where their sender was, not a
// ceiling further: its deadlines would come early, and with the next move earlier
// still. So the sender reads nothing beyond that while the step is in flight.
func TestSlotsLeaveAtTheClock(t *testing.T) {
	for name, before := range map[string]func(*rig){
		"alone": func(*rig) {},
		"behind the entry of a transfer that was given up": func(r *rig) {
			r.core.BeginTransfer(2)
			r.evaluate()
			r.core.EndTransfer()
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := slotRig(t)
			r.write(keyIn(slotsOf("400-500")), "")
			nonce := r.mustStep(format.SlotChange{Kind: format.SlotFreeze, Move: 3, Peer: 9, Slots: slotsOf("200-300")}).Nonce
			r.now.Physical += 300
			before(r)
			behind := len(r.log)
			leave := r.ask(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: nonce})
			r.evaluate()
			clock := r.core.lead.clock
			r.submit(put(keyIn(slotsOf("400-500")), "w"))
			r.now.Physical += 400
			r.evaluate()
			if behind > 0 {
				r.apply(r.log[0])
				r.log = r.log[1:]
			}
			if got := r.core.ReadClock(r.now); got > clock {
				t.Fatalf("read at %v while slots leave at %v", got, clock)
			}
			r.settle()
			res := leave.req.Slots.Result
			if res.Err != nil || res.Ceiling != clock {
				t.Fatalf("left at %v, the clock was %v: %v", res.Ceiling, clock, res.Err)
			}
			r.now.Physical += 400
			r.core.RaiseCeiling(keyspace.RevisionAt(r.now.Physical))
			r.settle()
			if got := r.core.ReadClock(r.now); got < keyspace.RevisionAt(r.now.Physical) {
				t.Fatalf("read at %v afterwards, still bound", got)
			}
		})
	}
}

// A step that raft does not take binds nothing.
func TestDroppedLeaveBindsNothing(t *testing.T) {
	r := slotRig(t)
	nonce := r.mustStep(format.SlotChange{Kind: format.SlotFreeze, Move: 3, Peer: 9, Slots: slotsOf("200-300")}).Nonce
	r.ask(format.SlotChange{Kind: format.SlotLeave, Move: 3, Nonce: nonce})
	if out := r.core.Evaluate(r.now); out.Payload == nil {
		t.Fatal("no step was built")
	}
	r.core.Dropped()
	r.now.Physical += 400
	if got := r.core.ReadClock(r.now); got < keyspace.RevisionAt(r.now.Physical) {
		t.Fatalf("read at %v, bound by what is not in flight", got)
	}
}

// DESIGN 6: a planned transfer waits for a step in flight, and a step for it.
func TestTransferWithStepsInFlight(t *testing.T) {
	r := slotRig(t)
	step := r.ask(freezeSome)
	r.evaluate()
	r.core.BeginTransfer(2)
	waits := r.ask(format.SlotChange{Kind: format.SlotBegin, Move: 4, Peer: 2, Slots: slotsOf("7")})
	if r.evaluate(); len(r.log) != 1 {
		t.Fatal("the ceiling is lowered over a step in flight")
	}
	r.applyAll()
	step.mustBe(t, true, "")
	r.evaluate()
	r.applyAll()
	if _, ready := r.core.TransferReady(); !ready {
		t.Fatal("the transfer does not go on")
	}
	waits.mustBe(t, false, "")
	r.core.EndTransfer()
	r.settle()
	waits.mustBe(t, true, "")
	if waits.req.Slots.Result.Err != nil {
		t.Fatal(waits.req.Slots.Result.Err)
	}
}

// A large value whose slot freezes while its chunks are under way, or after all
// of them, is given up with its chunks.
func TestUploadsOfFrozenSlotsAreGivenUp(t *testing.T) {
	for name, chunks := range map[string]int{"some chunks": 2, "all chunks": 10} {
		r := slotRig(t)
		key := keyIn(slotsOf("200-300"))
		a := r.submit(put(key, string(make([]byte, 950))))
		r.core.Evaluate(r.now)
		for range chunks {
			r.propose(r.core.NextChunk(r.now))
		}
		if chunks == 10 {
			r.core.NextChunk(r.now) // it waits for its write
		}
		r.core.EnqueueFirst(r.request(freezeSome).req)
		r.propose(r.core.Evaluate(r.now).Payload)
		if r.core.NextChunk(r.now) != nil {
			t.Fatalf("%s: chunks of a frozen slot go on", name)
		}
		r.applyAll()
		r.settle()
		a.mustBe(t, true, fault.Unavailable)
		r.core.Expire(r.now.Mono)
		r.settle()
		if left := r.core.State().Uploads; len(left) != 0 {
			t.Fatalf("%s: uploads nobody will claim: %+v", name, left)
		}
		if _, _, _, ok := r.store.Latest(7, a.req.Ops[0].DiskKey()); ok {
			t.Fatalf("%s: the value was written", name)
		}
	}
}

// The check of the slots costs an operation no memory.
func TestSlotChecksAllocateNothing(t *testing.T) {
	r := slotRig(t)
	req := &Request{Group: 5, Ops: []Op{put(keyIn(slotsOf("400-500")), "v"), put(keyIn(slotsOf("600-700")), "v")}}
	if n := testing.AllocsPerRun(100, func() {
		if err := r.core.mayWrite(req); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
	r.core.state.Slots.Owned = format.SlotSet{}
	if r.core.mayWrite(req) == nil {
		t.Fatal("nothing is checked")
	}
	req.Ops[0].Namespace, req.Ops[1].Namespace = keyspace.SystemNamespace, keyspace.SystemNamespace
	if err := r.core.mayWrite(req); err != nil {
		t.Fatalf("records of the cluster have no slot: %v", err)
	}
}
