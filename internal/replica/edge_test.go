package replica

import (
	"fmt"
	"testing"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// flush makes everything so far leave the deltas, so that prefetches are stale.
func (r *rig) flush() {
	r.t.Helper()
	r.store.Seal()
	if _, ok, err := r.store.FlushOldest(r.t.Context(), nil); !ok || err != nil {
		r.t.Fatalf("flush: %v %v", ok, err)
	}
}

// mustHaveChunks reads a key and requires all chunks of its value.
func (r *rig) mustHaveChunks(key string) {
	r.t.Helper()
	view := r.store.View()
	defer view.Close()
	op := put(key, "")
	value, rev, ok, err := view.Get(7, op.DiskKey(), keyspace.MaxRevision)
	if !ok || err != nil {
		r.t.Fatalf("key %q: found %v, error %v", key, ok, err)
	}
	h, err := format.DecodeHeader(value, rev)
	if err != nil {
		r.t.Fatal(err)
	}
	for n := range h.Chunks.Count {
		if _, _, ok, err := view.Get(7, keyspace.AppendChunkKey(nil, h.Chunks.Upload, n), rev); !ok || err != nil {
			r.t.Fatalf("chunk %d of %d of %q at %v is gone (error %v)", n, h.Chunks.Count, key, rev, err)
		}
	}
}

// A value that was uploaded in an earlier term of the same leader is uploaded
// again: the first entry of the new term deleted its chunks.
func TestUploadOfAnEarlierTermIsNotClaimed(t *testing.T) {
	r := newRig(t)
	r.elect()
	a := r.submit(put("big", string(make([]byte, 350))))
	r.evaluate()
	r.applyAll()
	r.flush()
	a.req.Ops[0].fetch.Progress = Progress{} // of before it led
	if out := r.evaluate(); len(out.Refetch) != 1 {
		t.Fatalf("the prefetch is still good: %+v", out)
	}
	r.elect() // while the host fetches
	r.now.Mono += time.Minute
	r.fetch(&a.req.Ops[0])
	r.core.Enqueue(a.req)
	for range 3 {
		r.evaluate()
	}
	r.applyAll()
	a.mustBe(t, true, "")
	r.mustHaveChunks("big")
}

// Chunks of a request that ended before its write are deleted in the same
// term, however it ended.
func TestChunksOfEndedRequestsAreDeleted(t *testing.T) {
	ends := map[string]func(*rig, *answer){
		"deadline between two values": func(r *rig, a *answer) {
			r.core.Evaluate(r.now)
			for range 7 { // all of the first value, a part of the second
				r.propose(r.core.NextChunk(r.now))
			}
			r.now.Mono += time.Minute
			r.core.Expire(r.now.Mono)
		},
		"deadline in the queue": func(r *rig, a *answer) {
			r.evaluate()
			r.now.Mono += time.Minute
			r.core.Expire(r.now.Mono)
		},
		"full disk": func(r *rig, a *answer) {
			r.evaluate()
			r.core.Shed(fault.New(fault.Overloaded, "full"))
		},
		"fetched again, then refused": func(r *rig, a *answer) {
			r.evaluate()
			r.applyAll()
			r.flush()
			r.evaluate()
			a.req.Fail(fault.New(fault.Overloaded, "full"))
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.elect()
			large := put("b", string(make([]byte, 900)))
			a := &answer{req: &Request{Group: 1, Ops: []Op{put("a", string(make([]byte, 250))), large}, Deadline: r.now.Mono + time.Second}}
			a.req.Done = func(*Request) { a.done = true }
			for i := range a.req.Ops {
				r.fetch(&a.req.Ops[i])
			}
			r.core.Enqueue(a.req)
			end(r, a)
			if !a.done || a.req.Err == nil {
				t.Fatalf("answered %v: %v", a.done, a.req.Err)
			}
			r.core.Expire(r.now.Mono)
			for range 3 {
				r.evaluate()
			}
			r.applyAll()
			if left := r.core.State().Uploads; len(left) != 0 {
				t.Fatalf("uploads nobody will claim: %+v", left)
			}
		})
	}
}

// DESIGN 6: the old leader is bound from the proposal of a lower ceiling on,
// also when it gives the transfer up before that entry is applied.
func TestGivenUpTransferStaysBound(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("k", "v"))
	r.evaluate()
	r.applyAll()
	r.core.BeginTransfer(2)
	r.evaluate()
	lowered := r.core.lead.ceiling
	r.core.EndTransfer()
	r.now.Physical += 700
	if got := r.core.ReadClock(r.now); got > lowered {
		t.Fatalf("read at %v, and a lowered ceiling of %v is still in flight", got, lowered)
	}
	a := r.submit(put("k", "w"))
	r.evaluate()
	if r.core.BeginTransfer(3); !r.core.HasWork() {
		t.Fatal("the second transfer does not start")
	}
	r.applyAll()
	a.mustBe(t, true, "")
	if _, ready := r.core.TransferReady(); ready {
		t.Fatal("the entry of the first transfer stands for the second")
	}
	r.core.EndTransfer()
	if got := r.core.ReadClock(r.now); got < keyspace.RevisionAt(r.now.Physical) {
		t.Fatalf("read at %v, still bound", got)
	}
}

// DESIGN 6: group time never goes back, also when the physical clock does.
func TestReadClockNeverGoesBack(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("k", "v"))
	r.evaluate()
	r.applyAll()
	r.now.Physical += 800
	first := r.core.ReadClock(r.now)
	r.now.Physical = 0 // no quorum of clocks
	if second := r.core.ReadClock(r.now); second < first {
		t.Fatalf("read at %v after a read at %v", second, first)
	}
}

// DESIGN 6: what was refused because a key had expired stays expired: the time
// it was judged at is within an applied ceiling before the answer.
func TestRefusalByExpiryHolds(t *testing.T) {
	for _, late := range []int64{1500, 950} { // beyond the ceiling, and within
		r := newRig(t)
		r.elect()
		op := put("k", "v")
		op.TTL = 900 * time.Millisecond
		r.submit(op)
		r.evaluate()
		r.applyAll()
		expires := keyspace.RevisionAt(wall + 900)
		r.now.Physical += late
		a := r.submit(Op{Delete: true, Namespace: 1, Key: "k"})
		out := r.evaluate()
		r.applyAll()
		r.core.Confirmed(r.term, out.Confirm)
		a.mustBe(t, true, "")
		if a.req.Ops[0].Result.Existed {
			t.Fatal("deleted an expired key")
		}
		r.now.Physical = 0 // the clocks disagree from now on
		if got := r.core.ReadClock(r.now); got < expires {
			t.Fatalf("%d ms: read at %v after the key was absent at %v", late, got, expires)
		}
		r.elect()
		if got := r.core.ReadClock(r.now); got < expires {
			t.Fatalf("%d ms: the next leader reads at %v after the key was absent at %v", late, got, expires)
		}
		again := r.submit(Op{Delete: true, Namespace: 1, Key: "k"})
		r.now.Mono += time.Minute
		if out := r.evaluate(); out.Payload != nil {
			t.Fatal("every refusal costs an entry")
		}
		again.mustBe(t, false, "")
	}
}

// DESIGN 6, 8: a list judges expiry at the physical time of its beginning, not
// at an old ceiling of an idle group.
func TestClockReachesPhysicalTime(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("k", "v"))
	r.evaluate()
	r.applyAll()
	r.now.Physical += 30_000
	a := &answer{req: &Request{Group: 1, Clock: &ClockOp{}}}
	a.req.Done = func(*Request) { a.done = true }
	r.core.Enqueue(a.req)
	out := r.evaluate()
	r.applyAll()
	r.core.Confirmed(r.term, out.Confirm)
	a.mustBe(t, true, "")
	if got := a.req.Clock.Result; got < keyspace.RevisionAt(r.now.Physical) || got > r.core.State().Ceiling {
		t.Fatalf("the clock answers %v, physical %v, ceiling %v", got, keyspace.RevisionAt(r.now.Physical), r.core.State().Ceiling)
	}
}

// What left the queue for an upload or a confirmation still counts.
func TestUploadsAndRefusalsAreBounded(t *testing.T) {
	r := newRig(t)
	r.elect()
	must := put("absent", "v")
	must.Condition.MustExist = true
	for range 8 {
		r.submit(must).mustBe(t, false, "")
		r.evaluate()
	}
	r.submit(must).mustBe(t, true, fault.Overloaded)

	r = newRig(t)
	r.elect()
	for range 3 {
		r.submit(put("big", string(make([]byte, 400_000))))
		r.core.Evaluate(r.now)
	}
	r.submit(put("big", string(make([]byte, 400_000)))).mustBe(t, true, fault.Overloaded)
}

// Clock readings count, too.
func TestClocksAreBounded(t *testing.T) {
	r := newRig(t)
	var last error
	for range 9 {
		r.core.Enqueue(&Request{Group: 1, Clock: &ClockOp{}, Done: func(q *Request) { last = q.Err }})
	}
	if fault.CodeOf(last) != fault.Overloaded {
		t.Fatalf("nine readings wait where eight may: %v", last)
	}
}

// A refusal that waits for an entry ends at its deadline.
func TestRefusalBesideAnEntryEndsAtItsDeadline(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.submit(put("k", "v"))
	must := put("absent", "v")
	must.Condition.MustExist = true
	a := r.submit(must)
	a.req.Deadline = r.now.Mono + time.Second
	r.evaluate()
	r.core.Expire(r.now.Mono + 2*time.Second)
	a.mustBe(t, true, fault.DeadlineExceeded)
}

// What was applied is not kept in memory by what decodes the next entry.
func TestAppliedEntriesAreForgotten(t *testing.T) {
	r := newRig(t)
	r.elect()
	for i := range 8 {
		r.submit(put(string(rune('a'+i)), "value"))
	}
	r.evaluate()
	r.applyAll()
	r.submit(put("one", "value"))
	r.evaluate()
	r.applyAll()
	kept := r.core.entry.Writes
	for i, w := range kept[:cap(kept)] {
		if w.Key != nil || w.Value != nil {
			t.Errorf("write %d of an applied entry is kept: %q", i, w.Key)
		}
	}
	if cap(kept) == 0 {
		t.Error("every entry is decoded into new memory")
	}
	large := format.Entry{Writes: make([]format.Write, maxKeptWrites+1)}
	if forget(&large); large.Writes != nil {
		t.Errorf("%d decoded writes are kept", cap(large.Writes))
	}
}

// Records in flight lie in a few blocks that come back, and what is more takes as much
// memory as it needs.
func TestRecordsInFlightTakeWhatTheyNeed(t *testing.T) {
	r := newRig(t)
	r.elect()
	held := func() (bytes int) {
		for _, p := range r.core.lead.inflight {
			for _, b := range p.blocks {
				bytes += cap(b)
			}
		}
		return bytes
	}
	for turn := range 3 {
		for n := range 20 * maxBlocks {
			r.submit(put(fmt.Sprintf("k%d", n), "v"))
			r.evaluate()
		}
		if got, most := held(), maxBlocks*blockBytes+20*maxBlocks*256; got == 0 || got > most {
			t.Errorf("turn %d: %d bytes for records in flight, want at most %d", turn, got, most)
		}
		r.applyAll()
		if got := len(r.core.lead.spare.blocks); got != maxBlocks || held() != 0 {
			t.Errorf("turn %d: %d blocks came back, want %d", turn, got, maxBlocks)
		}
	}
	large := r.submit(put("large", string(make([]byte, 90))), put("other", "v"))
	r.evaluate()
	r.applyAll()
	large.mustBe(t, true, "")
}
