package replica

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/keyspace"
	"kvstore/internal/mvcc"
)

// deadlines are the keys of the index, and those that the newest records should
// have.
func (r *rig) deadlines() (index, want []string) {
	r.t.Helper()
	view := r.store.View()
	defer view.Close()
	it := view.Scan(mvcc.ScanOptions{Instance: 7, At: keyspace.MaxRevision})
	defer it.Close()
	for ; it.Valid(); it.Next() {
		switch keyspace.KindOf(it.Key()) {
		case keyspace.KindTTL:
			index = append(index, string(it.Key()))
		case keyspace.KindData:
			value, err := it.Value()
			if err != nil {
				r.t.Fatal(err)
			}
			h, err := format.DecodeHeader(value, it.Revision())
			if err != nil {
				r.t.Fatal(err)
			}
			if h.Expires != 0 {
				want = append(want, string(keyspace.AppendTTLKey(nil, h.Expires, it.Key())))
			}
		default: // chunks
		}
	}
	slices.Sort(want)
	return index, want
}

func (r *rig) mustBeIndexed() {
	r.t.Helper()
	if index, want := r.deadlines(); !slices.Equal(index, want) {
		r.t.Fatalf("the index has %q, the records want %q", index, want)
	}
}

// newest is the record of a key, nil for none that lives at the rig's time.
func (r *rig) newest(key string) *format.Record {
	r.t.Helper()
	view := r.store.View()
	defer view.Close()
	value, rev, ok, err := view.Get(7, keyspace.AppendDataKey(nil, 1, []byte(key)), keyspace.MaxRevision)
	if err != nil || !ok {
		return nil
	}
	rec, err := format.DecodeRecord(value, rev)
	if err != nil {
		r.t.Fatal(err)
	}
	rec.Value = bytes.Clone(rec.Value)
	return &rec
}

// do submits operations and applies what comes out.
func (r *rig) do(ops ...Op) *Request {
	r.t.Helper()
	a := r.submit(ops...)
	r.run(a)
	return a.req
}

func (r *rig) run(a *answer) {
	r.t.Helper()
	for range 20 {
		out := r.evaluate()
		r.applyAll()
		for _, again := range out.Refetch {
			for i := range again.Ops {
				r.fetch(&again.Ops[i])
			}
			r.core.Enqueue(again)
		}
		if out.Confirm != 0 {
			r.core.Confirmed(r.term, out.Confirm)
		}
		if a.done {
			return
		}
	}
	r.t.Fatal("not answered")
}

// sweep sweeps keys of the index.
func (r *rig) sweep(index bool, keys ...string) SweepResult {
	r.t.Helper()
	op := &SweepOp{Index: index}
	for _, key := range keys {
		deadline, dataKey, err := keyspace.DecodeTTLKey(nil, []byte(key))
		if err != nil {
			r.t.Fatal(err)
		}
		op.Keys = append(op.Keys, SweepKey{Key: dataKey, Expires: deadline})
	}
	a := &answer{req: &Request{Group: 1, Sweep: op}}
	a.req.Done = func(*Request) { a.done = true }
	r.fetchSweep(op)
	r.core.Enqueue(a.req)
	r.run(a)
	return op.Result
}

func (r *rig) fetchSweep(op *SweepOp) {
	view := r.store.View()
	defer view.Close()
	for i := range op.Keys {
		f := Fetched{Delta: view.Active(), Instance: 7, Progress: r.core.Progress(), Valid: true}
		if value, rev, ok, _ := view.Get(7, op.Keys[i].Key, keyspace.MaxRevision); ok {
			f.Header, _ = format.DecodeHeader(value, rev)
		}
		op.Keys[i].SetFetched(f)
	}
}

func expiring(key, value string, ttl time.Duration) Op {
	op := put(key, value)
	op.TTL = ttl
	return op
}

func touch(key string, ttl time.Duration) Op {
	return Op{Touch: true, Namespace: 1, Key: key, TTL: ttl}
}

// ttlModel is what keys should be: value, version and deadline.
type ttlModel map[string]ttlRecord

type ttlRecord struct {
	value   string
	version uint64
	expires int64
}

func (m ttlModel) live(key string, now int64) bool {
	rec, ok := m[key]
	return ok && (rec.expires == 0 || rec.expires > now)
}

func (m ttlModel) write(op *Op, res *OpResult, now int64) {
	if op.Delete {
		delete(m, op.Key)
		return
	}
	rec, next := m[op.Key], ttlRecord{value: string(op.Value), version: 1}
	if m.live(op.Key, now) {
		next.version = rec.version + 1
		if op.Touch {
			next.value = rec.value
		}
	}
	switch {
	case op.TTL > 0:
		next.expires = res.Revision.UnixMilli() + op.TTL.Milliseconds()
	case op.ExpiresAt > 0:
		next.expires = op.ExpiresAt
	}
	m[op.Key] = next
}

func anyTTLOp(t *rapid.T, key string, now int64) Op {
	op := Op{Namespace: 1, Key: key}
	switch rapid.IntRange(0, 9).Draw(t, "verb") {
	case 0:
		op.Delete = true
		return op
	case 1, 2, 3:
		op.Touch = true
	default:
		op.Value = bytes.Repeat([]byte(fmt.Sprint(now)), rapid.SampledFrom([]int{1, 30}).Draw(t, "size"))
		op.Checksum = format.CRC32C(op.Value)
	}
	switch rapid.IntRange(0, 3).Draw(t, "deadline") {
	case 0:
		op.TTL = time.Duration(rapid.IntRange(1, 4).Draw(t, "ttl")) * time.Second
	case 1:
		op.ExpiresAt = now + int64(rapid.IntRange(-1000, 4000).Draw(t, "expires at"))
	default: // never
	}
	return op
}

// However keys are written, touched, deleted, swept and written again, the index has
// the deadlines of the newest records and no others; a sweep of everything deletes
// exactly what has expired; and touches keep values, also large ones.
func TestTheIndexFollowsTheRecords(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r, m := newRig(t), ttlModel{}
		r.elect()
		for range rapid.IntRange(1, 25).Draw(rt, "steps") {
			r.now.Physical += int64(rapid.IntRange(0, 1500).Draw(rt, "time passes"))
			if rapid.IntRange(0, 4).Draw(rt, "step") == 0 {
				r.core.CloseIdle(r.now)
				r.sweepAll(m)
			} else if rapid.IntRange(0, 2).Draw(rt, "over groups") == 0 {
				r.anyTransaction(rt, m)
			} else {
				r.anyWrites(rt, m)
			}
			r.mustBeIndexed()
			r.mustHave(m)
		}
	})
}

// sweepAll sweeps all that is due; locked keys stay.
func (r *rig) sweepAll(m ttlModel) {
	r.raise()
	index, _ := r.deadlines()
	r.sweep(false, index...)
	now := r.core.sweepTime(r.now).UnixMilli()
	for key, rec := range m {
		op := read(key)
		if rec.expires != 0 && rec.expires <= now && r.core.lead.locks.holder(op.DiskKey(), true) == nil {
			delete(m, key)
		}
	}
}

// raise gives the group an applied ceiling well above its time.
func (r *rig) raise() {
	r.core.RaiseCeiling(keyspace.RevisionAt(r.now.Physical + 1000))
	r.evaluate()
	r.applyAll()
}

func (r *rig) anyWrites(rt *rapid.T, m ttlModel) {
	var ops []Op
	for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b\x00", "c"}), 1, 2, rapid.ID).Draw(rt, "keys") {
		ops = append(ops, anyTTLOp(rt, key, r.now.Physical))
	}
	if rapid.IntRange(0, 3).Draw(rt, "flush") == 0 {
		r.store.Seal()
		for ok := true; ok; {
			_, ok, _ = r.store.FlushOldest(context.Background(), func(keyspace.InstanceID) bool { return true })
		}
	}
	req := r.do(ops...)
	for i := range req.Ops {
		if req.Ops[i].Result.Err != nil {
			return
		}
	}
	for i := range req.Ops {
		op := &req.Ops[i]
		if op.Delete && !op.Result.Existed {
			continue
		}
		m.write(op, &op.Result, op.Result.Revision.UnixMilli())
		if got := m[op.Key]; !op.Delete && (op.Result.Version != got.version || op.Result.Expires != got.expires) {
			r.t.Fatalf("%+v wrote %+v, want %+v", op, op.Result, got)
		}
	}
}

// mustHave compares the newest records with the model; what has expired may be
// there still.
func (r *rig) mustHave(m ttlModel) {
	r.t.Helper()
	now := r.core.Clock().UnixMilli()
	for _, key := range []string{"a", "b\x00", "c"} {
		rec, want := r.newest(key), m[key]
		if rec == nil || !rec.Exists(now) {
			if m.live(key, now) {
				r.t.Fatalf("key %q is gone, want %+v", key, want)
			}
			continue
		}
		if !m.live(key, now) || rec.Version != want.version || rec.Expires != want.expires {
			r.t.Fatalf("key %q is %+v, want %+v", key, rec.Header, want)
		}
		if got := r.value(rec); got != want.value {
			r.t.Fatalf("key %q has a value of %d bytes, want %d", key, len(got), len(want.value))
		}
	}
}

// value joins chunks as a reader does.
func (r *rig) value(rec *format.Record) string {
	if rec.Flags&format.FlagChunked == 0 {
		return string(rec.Value)
	}
	view := r.store.View()
	defer view.Close()
	var all []byte
	for n := range rec.Chunks.Count {
		b, _, _, _ := view.Get(7, keyspace.AppendChunkKey(nil, rec.Chunks.Upload, n), rec.Revision)
		all = append(all, b...)
	}
	return string(all)
}

// A sweep that was on its way when its key was touched, written anew or deleted
// leaves it alone, in flight or applied, and after raft dropped its entry.
func TestASweepIsJudgedInLogOrder(t *testing.T) {
	for name, change := range map[string]Op{
		"touched": touch("k", time.Minute), "persisted": touch("k", 0), "rewritten": put("k", "new"),
		"deleted": {Delete: true, Namespace: 1, Key: "k"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.elect()
			r.do(expiring("k", "v", time.Second))
			index, _ := r.deadlines()
			deadline, key, _ := keyspace.DecodeTTLKey(nil, []byte(index[0]))
			sweep := &SweepOp{Keys: []SweepKey{{Key: key, Expires: deadline}}}
			r.fetchSweep(sweep)
			r.raise()
			r.now.Physical = deadline - 1
			a := r.submit(change)
			r.evaluate() // in flight
			r.now.Physical = deadline + 10
			b := &answer{req: &Request{Group: 1, Sweep: sweep}}
			b.req.Done = func(*Request) { b.done = true }
			r.core.Enqueue(b.req)
			r.run(b)
			a.mustBe(t, true, "")
			if sweep.Result.Swept != 0 {
				t.Fatalf("swept %+v", sweep.Result)
			}
			r.mustBeIndexed()
			if rec := r.newest("k"); change.Delete == rec.Exists(r.now.Physical) {
				t.Fatalf("after it the key is %+v", rec.Header)
			}
		})
	}
}

func TestADroppedSweepHappensOnce(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.do(expiring("k", "v", time.Second))
	r.raise()
	r.now.Physical += 1500
	r.raise()
	index, _ := r.deadlines()
	deadline, key, _ := keyspace.DecodeTTLKey(nil, []byte(index[0]))
	a := &answer{req: &Request{Group: 1, Sweep: &SweepOp{Keys: []SweepKey{{Key: key, Expires: deadline}}}}}
	a.req.Done = func(*Request) { a.done = true }
	r.fetchSweep(a.req.Sweep)
	r.core.Enqueue(a.req)
	if out := r.core.Evaluate(r.now); out.Payload == nil {
		t.Fatal("nothing to propose")
	}
	r.core.Dropped()
	if r.core.lead.overlay.find(key) != nil {
		t.Fatal("the deletion is in the overlay of a dropped entry")
	}
	r.run(a)
	if rec := r.newest("k"); a.req.Sweep.Result.Swept != 1 || rec.Flags != format.FlagTombstone|format.FlagExpired {
		t.Fatalf("%+v, flags %v", a.req.Sweep.Result, rec.Flags)
	}
	r.mustBeIndexed()
}

// DESIGN 6: a sweep judges within the applied ceiling, whatever the clock says.
func TestASweepIsNotAheadOfTheCeiling(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.do(expiring("k", "v", time.Hour))
	r.now.Physical += 2 * time.Hour.Milliseconds()
	index, _ := r.deadlines()
	if res := r.sweep(false, index...); res.Swept != 0 || res.Held != 1 {
		t.Fatalf("swept beyond the ceiling: %+v", res)
	}
	r.raise()
	if res := r.sweep(false, index...); res.Swept != 1 {
		t.Fatalf("not swept below it: %+v", res)
	}
}

// Slots that are frozen or not the group's, and leases, are not the sweep's.
func TestASweepLeavesWhatIsNotTheGroups(t *testing.T) {
	r := newRig(t)
	r.elect()
	lease := expiring("lease", "v", time.Second)
	lease.Namespace = keyspace.LeaseNamespace
	r.do(expiring("k", "v", time.Second), lease)
	index, _ := r.deadlines()
	r.now.Physical += 3000
	r.raise()
	slot := keyspace.SlotOf(1, "k")
	var only, none format.SlotSet
	only.Add(slot)
	frozen := &format.SlotState{Owned: only, Out: &format.SlotsOut{ID: 1, To: 2, Slots: only, Nonce: 5}}
	for name, s := range map[string]*format.SlotState{"not owned": {Owned: none}, "frozen": frozen} {
		r.core.state.Slots = s
		if res := r.sweep(false, index...); res.Swept != 0 || res.Held != 2 || res.Judged != 2 {
			t.Fatalf("%s: %+v", name, res)
		}
	}
	r.core.state.Slots = &format.SlotState{Owned: only}
	if res := r.sweep(false, index...); res.Swept != 1 || res.Held != 1 {
		t.Fatalf("owned: %+v", res)
	}
	r.mustBeIndexed()
}

// An entry has room for so much; the rest is told.
func TestASweepFillsOneEntry(t *testing.T) {
	r := newRig(t)
	r.elect()
	for n := range 8 {
		r.do(expiring(fmt.Sprintf("large%d", n), string(make([]byte, 2000)), time.Second)) // 20 chunks
	}
	r.now.Physical += 3000
	r.raise()
	index, _ := r.deadlines()
	res := r.sweep(false, index...)
	if res.Judged != 5 || res.Swept != 5 { // of 22 writes each, 100 to an entry
		t.Fatalf("%+v", res)
	}
	r.mustBeIndexed()
	if res := r.sweep(false, index[res.Judged:]...); res.Swept != 3 {
		t.Fatalf("the rest: %+v", res)
	}
}

// Records from before the index get their keys, those that have expired go at
// once, and what changed meanwhile is right already.
func TestSweepsIndexOlderRecords(t *testing.T) {
	r := newRig(t)
	r.elect()
	r.do(expiring("old", "v", time.Second), expiring("later", "v", time.Hour), expiring("touched", "v", time.Hour))
	index, _ := r.deadlines()
	for _, key := range index {
		r.store.Insert(7, []byte(key), r.core.Clock(), nil, true)
	}
	r.do(touch("touched", time.Minute))
	r.now.Physical += 3000
	r.raise()
	if res := r.sweep(true, index...); res.Judged != 3 || res.Swept != 1 {
		t.Fatalf("%+v", res)
	}
	r.mustBeIndexed()
	if index, _ := r.deadlines(); len(index) != 2 {
		t.Fatalf("the index has %d keys", len(index))
	}
	r.store.Insert(7, keyspace.AppendTTLKey(nil, 5, keyspace.AppendDataKey(nil, 1, []byte("gone"))), r.core.Clock(), nil, false)
	index, _ = r.deadlines()
	r.sweep(false, index[0])
	r.mustBeIndexed()
}

// A touch needs the record: one that was written in the delta since is taken from
// there, any other has to be fetched.
func TestTouchNeedsTheRecord(t *testing.T) {
	r := newRig(t)
	r.elect()
	op := put("k", "value")
	op.ContentType, op.Tags, op.Metadata = "text/plain", map[string]string{"a": "b"}, map[string]string{"c": "d"}
	first := r.do(op).Ops[0].Result
	res := r.do(touch("k", time.Minute)).Ops[0].Result
	rec := r.newest("k")
	if res.Err != nil || res.Version != 2 || res.Created != first.Created || res.Checksum != op.Checksum ||
		rec.ContentType != "text/plain" || rec.Tags["a"] != "b" || rec.Metadata["c"] != "d" || string(rec.Value) != "value" {
		t.Fatalf("%+v, %+v", res, rec)
	}
	for name, op := range map[string]Op{
		"absent":  touch("none", time.Minute),
		"version": {Touch: true, Namespace: 1, Key: "k", Condition: Condition{Version: new(uint64)}},
		"value":   {Touch: true, Namespace: 1, Key: "k", Condition: Condition{ValueEquals: []byte("other"), HasValueEquals: true}},
	} {
		if err := r.do(op).Ops[0].Result.Err; fault.CodeOf(err) != fault.ConditionFailed {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.now.Physical += time.Hour.Milliseconds()
	if err := r.do(touch("k", time.Minute)).Ops[0].Result.Err; fault.CodeOf(err) != fault.ConditionFailed {
		t.Errorf("expired: %v", err)
	}
}

// A deadline that has passed on group time is refused; so is the set that it is
// part of.
func TestAPastDeadlineIsRefused(t *testing.T) {
	r := newRig(t)
	r.elect()
	late := put("k", "v")
	late.ExpiresAt = wall
	req := r.do(late, put("l", "v"))
	if fault.CodeOf(req.Ops[0].Result.Err) != fault.InvalidArgument || fault.CodeOf(req.Ops[1].Result.Err) != fault.BatchAborted {
		t.Fatalf("%v and %v", req.Ops[0].Result.Err, req.Ops[1].Result.Err)
	}
	late.ExpiresAt = wall + 1
	if res := r.do(late).Ops[0].Result; res.Err != nil || res.Expires != wall+1 {
		t.Fatalf("%+v", res)
	}
}
