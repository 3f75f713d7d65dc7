package router

import (
	"context"
	"fmt"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

func TestFrameNeedsOneSubmitAndOneReadIndexPerGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var calls []*Call
		for i := range 50 {
			calls = append(calls, putCall("", fmt.Sprint("k", i), "v"))
		}
		f.Do(t.Context(), calls...)
		for i, c := range calls {
			if c.Err != nil || c.Result.GetPut().GetVersion() != 1 {
				t.Fatalf("put %d: %v %v", i, c.Err, c.Result)
			}
		}
		if n := len(f.host.submits); n != 1 {
			t.Fatalf("%d SubmitAll for one frame", n)
		}
		calls = nil
		for i := range 50 {
			calls = append(calls, getCall("", fmt.Sprint("k", i)))
		}
		f.Do(t.Context(), calls...)
		for i, c := range calls {
			if c.Err != nil || string(c.Result.GetGet().GetRecord().GetValue()) != "v" {
				t.Fatalf("get %d: %v", i, c.Err)
			}
		}
		if n := len(f.host.reads); n != testGroups {
			t.Fatalf("%d ReadIndex for one frame over %d groups", n, testGroups)
		}
	})
}

func TestExecuteAnswersEachCallOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var held []*replica.Request
		f.host.submit = func(rs []*replica.Request) bool {
			held = append(held, rs...)
			return true
		}
		answers := make(chan *Call, 8)
		calls := []*Call{putCall("", "a", "1"), getCall("", "missing"), putCall("", "", "no key"), {Op: &api.PipelineOp{Id: 9}}}
		f.Execute(t.Context(), calls, func(c *Call) { answers <- c })
		synctest.Wait()
		if n := len(answers); n != 3 {
			t.Fatalf("%d answers while the write is under way", n)
		}
		for _, q := range held {
			f.host.apply(q)
			q.Done(q)
		}
		synctest.Wait()
		if n := len(answers); n != 4 {
			t.Fatalf("%d answers in the end", n)
		}
		wantCode(t, calls[0].Err, "")
		wantCode(t, calls[1].Err, fault.NotFound)
		wantCode(t, calls[2].Err, fault.InvalidKey)
		wantCode(t, calls[3].Err, fault.InvalidArgument)
		if calls[3].Result.Id != 9 || calls[3].Result.Status.Code != string(fault.InvalidArgument) {
			t.Fatalf("result %v", calls[3].Result)
		}
		if f.inflight.Load() != 0 {
			t.Fatalf("%d operations are still counted", f.inflight.Load())
		}
	})
}

func TestValidationNamesLimitAndActual(t *testing.T) {
	put := func(q *api.PutRequest) *api.PipelineOp { return &api.PipelineOp{Op: &api.PipelineOp_Put{Put: q}} }
	batch := func(items ...*api.PutRequest) *api.PipelineOp {
		return &api.PipelineOp{Op: &api.PipelineOp_BatchPut{BatchPut: &api.BatchPutRequest{Items: items}}}
	}
	touch := func(q *api.TouchRequest) *api.PipelineOp { return &api.PipelineOp{Op: &api.PipelineOp_Touch{Touch: q}} }
	big := make([]byte, keyspace.MaxValueBytes+1)
	for _, c := range []struct {
		name    string
		op      *api.PipelineOp
		code    fault.Code
		details string
	}{
		{"key of 1,025 bytes", put(&api.PutRequest{Key: strings.Repeat("k", 1025)}), fault.KeyTooLarge, "limit_bytes=1024"},
		{"key of 1,024 bytes", put(&api.PutRequest{Key: strings.Repeat("k", 1024)}), "", ""},
		{"key not UTF-8", put(&api.PutRequest{Key: "\xff"}), fault.InvalidKey, ""},
		{"16 MB and a byte (ASKS A3)", put(&api.PutRequest{Key: "k", Value: big}), fault.ValueTooLarge, "actual_bytes=16777217, key=k, limit_bytes=16777216"},
		{"16 MB", put(&api.PutRequest{Key: "k", Value: big[1:]}), "", ""},
		{"bad checksum", put(&api.PutRequest{Key: "k", Value: []byte("v"), Checksum: proto.Uint32(1)}), fault.ChecksumMismatch, "expected_crc32c=00000001"},
		{"good checksum", put(&api.PutRequest{Key: "k", Value: []byte("v"), Checksum: proto.Uint32(format.CRC32C([]byte("v")))}), "", ""},
		{"large metadata", put(&api.PutRequest{Key: "k", Metadata: map[string]string{"m": strings.Repeat("x", 64<<10)}}), fault.InvalidArgument, "limit_bytes=65536"},
		{"ttl and deadline", put(&api.PutRequest{Key: "k", TtlSeconds: 1, ExpiresAtMs: 1}), fault.InvalidArgument, ""},
		{"negative ttl", put(&api.PutRequest{Key: "k", TtlSeconds: -1}), fault.InvalidArgument, "actual=-1"},
		{"ttl beyond a century", put(&api.PutRequest{Key: "k", TtlSeconds: 1 << 62}), fault.InvalidArgument, "limit=3162240000"},
		{"negative deadline", put(&api.PutRequest{Key: "k", ExpiresAtMs: -1}), fault.InvalidArgument, "actual=-1"},
		{"deadline beyond revisions", put(&api.PutRequest{Key: "k", ExpiresAtMs: 1 << 48}), fault.InvalidArgument, "actual=281474976710656"},
		{"touch", touch(&api.TouchRequest{Key: "k", TtlSeconds: 1}), "", ""},
		{"touch that persists", touch(&api.TouchRequest{Key: "k", Persist: true}), "", ""},
		{"touch with nothing", touch(&api.TouchRequest{Key: "k"}), fault.InvalidArgument, "needs one of ttl_seconds, expires_at_ms and persist"},
		{"touch with two", touch(&api.TouchRequest{Key: "k", TtlSeconds: 1, ExpiresAtMs: 9}), fault.InvalidArgument, "exclude each other"},
		{"touch with all", touch(&api.TouchRequest{Key: "k", TtlSeconds: 1, Persist: true}), fault.InvalidArgument, "persist excludes"},
		{"touch of the absent", touch(&api.TouchRequest{Key: "k", Persist: true, Condition: &api.Condition{MustNotExist: true}}), fault.InvalidArgument, "must_not_exist"},
		{"negative touch", touch(&api.TouchRequest{Key: "k", TtlSeconds: -5}), fault.InvalidArgument, "actual=-5"},
		{"nil touch", &api.PipelineOp{Op: &api.PipelineOp_Touch{}}, fault.InvalidKey, ""},
		{"contradiction", put(&api.PutRequest{Key: "k", Condition: &api.Condition{MustExist: true, MustNotExist: true}}), fault.InvalidArgument, ""},
		{"key twice", batch(&api.PutRequest{Key: "a"}, &api.PutRequest{Key: "b"}, &api.PutRequest{Key: "a"}), fault.InvalidArgument, "first=0, key=a, second=2"},
		{"item", batch(&api.PutRequest{Key: "a"}, &api.PutRequest{}), fault.InvalidKey, "item=1"},
		{"nil item", batch(nil), fault.InvalidArgument, "item=0"},
		{"another namespace", batch(&api.PutRequest{Key: "a", Namespace: "x"}), fault.InvalidArgument, "item_namespace=x"},
		{"empty batch", batch(), "", ""},
		{"staleness", &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: "k", Consistency: 1}}}, fault.InvalidArgument, "limit_min=1"},
		{"consistency", &api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: "k", Consistency: 9}}}, fault.InvalidArgument, "actual=9"},
		{"nothing", &api.PipelineOp{}, fault.InvalidArgument, ""},
		{"nil put", &api.PipelineOp{Op: &api.PipelineOp_Put{}}, fault.InvalidKey, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := validate(c.op)
			wantCode(t, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.details) {
				t.Fatalf("%v does not say %q", err, c.details)
			}
		})
	}
}

func TestNamespaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		put := func(ns, identity string) error {
			c := putCall(ns, "k", "v")
			c.Identity = identity
			f.Do(t.Context(), c)
			return c.Err
		}
		wantCode(t, put("app", ""), "")
		wantCode(t, put("gone", ""), fault.NamespaceDeleting)
		wantCode(t, put("gone", SystemIdentity), "")
		wantCode(t, put("_system", "alice"), fault.PermissionDenied)
		wantCode(t, put("_system", SystemIdentity), "")
		wantCode(t, put("nowhere", ""), fault.NamespaceNotFound)
		if f.dir.calls != 2 {
			t.Fatalf("%d reads of the directory for two misses", f.dir.calls)
		}
		f.dir.refresh = func(m *Map) error {
			m.Namespaces = map[string]Namespace{"new": {ID: 18}}
			return nil
		}
		wantCode(t, put("new", ""), "")
		if f.host.data["18/k"] == nil {
			t.Fatal("write did not use the id that was just read")
		}
	})
}

// A copy of the metadata that is too old is not used for named namespaces: the
// name may have another id by now.
func TestOldDirectoryIsReadAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.dir.m.ValidUntil = 0
		f.dir.refresh = func(*Map) error { return fault.New(fault.Unavailable, "no quorum") }
		c := putCall("app", "k", "v")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, fault.Unavailable)
		c = putCall("default", "k", "v")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		f.dir.refresh = func(m *Map) error {
			m.Namespaces, m.ValidUntil = map[string]Namespace{"app": {ID: 40}}, 1<<62
			return nil
		}
		c = putCall("app", "k", "v")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		if f.host.data["40/k"] == nil {
			t.Fatal("write used the old id")
		}
	})
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		items := []*api.PutRequest{}
		keys := []string{}
		for i := range 40 {
			keys = append(keys, fmt.Sprint("k", i))
			items = append(items, &api.PutRequest{Key: keys[i], Value: []byte(keys[i])})
		}
		_, err := f.BatchPut(t.Context(), &api.BatchPutRequest{Items: items, Atomic: true})
		wantCode(t, err, "")
		synctest.Wait()
		if n := len(f.host.data); n != len(keys) {
			t.Fatalf("%d keys of an atomic batch over groups", n)
		}
		clear(f.host.data)
		resp, err := f.BatchPut(t.Context(), &api.BatchPutRequest{Items: items})
		wantCode(t, err, "")
		for i, r := range resp.Results {
			if r.Status != nil || r.Put.GetVersion() != 1 {
				t.Fatalf("item %d: %v", i, r)
			}
		}
		got, err := f.BatchGet(t.Context(), &api.BatchGetRequest{Keys: append(keys, "missing")})
		wantCode(t, err, "")
		for i, r := range got.Results[:40] {
			if string(r.GetRecord().GetValue()) != keys[i] || r.Record.Key != keys[i] {
				t.Fatalf("item %d: %v", i, r)
			}
		}
		if c := got.Results[40].GetStatus().GetCode(); c != string(fault.NotFound) {
			t.Fatalf("missing key: %q", c)
		}
		one := []*api.PutRequest{
			{Key: "{t}1", Condition: &api.Condition{MustNotExist: true}},
			{Key: "{t}2"},
		}
		if _, err = f.BatchPut(t.Context(), &api.BatchPutRequest{Items: one, Atomic: true}); err != nil {
			t.Fatal(err)
		}
		resp, err = f.BatchPut(t.Context(), &api.BatchPutRequest{Items: one, Atomic: true})
		wantCode(t, err, "")
		if a, b := resp.Results[0].Status.Code, resp.Results[1].Status.Code; a != string(fault.ConditionFailed) || b != string(fault.BatchAborted) {
			t.Fatalf("statuses %s, %s", a, b)
		}
		del, err := f.BatchDelete(t.Context(), &api.BatchDeleteRequest{Items: []*api.DeleteRequest{{Key: "k1"}, {Key: "none"}}})
		wantCode(t, err, "")
		if !del.Results[0].Delete.Existed || del.Results[1].Delete.Existed {
			t.Fatalf("deletes %v", del)
		}
	})
}

// A key of a batch costs no allocation of its own when it is answered.
func TestBatchAnswersAllocateNothing(t *testing.T) {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprint("key", i)
	}
	op := &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: &api.BatchGetRequest{Keys: keys}}}
	rec := &format.Record{Header: format.Header{Version: 1}, Value: make([]byte, 64)}
	for _, encoded := range []bool{false, true} {
		st := &callState{call: &Call{Op: op, Encoded: encoded}}
		st.prepareResult()
		a := batchAnswer{}
		for i := range keys {
			a.at = append(a.at, want{&part{st: st}, i})
			a.at[i].part = a.at[0].part
		}
		next := 0
		n := testing.AllocsPerRun(900, func() {
			a.add(next, rec, nil)
			next++
		})
		if n > 0 {
			t.Fatalf("encoded %v: %v allocations", encoded, n)
		}
	}
}

// Whatever the number of groups, each has one part with its items in order.
func TestBatchesAreSplitByGroup(t *testing.T) {
	const items = 500
	b := &api.BatchGetRequest{}
	for i := range items {
		b.Keys = append(b.Keys, fmt.Sprint("key", i))
	}
	for _, groups := range []int{1, 2, 31, 32, 33, 200, 1000} {
		m := &Map{Groups: groups}
		st := &callState{call: &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: b}}}, kind: kindBatchGet, ns: 1}
		st.split(m)
		seen := map[keyspace.GroupID]bool{}
		total := 0
		for _, p := range st.parts {
			last := -1
			for n := range p.size() {
				i := p.item(n)
				if g, _ := m.GroupOfKey(1, b.Keys[i]); g != p.group || i <= last {
					t.Fatalf("%d groups: item %d of group %d after %d in group %d", groups, i, g, last, p.group)
				}
				last = i
				total++
			}
			if seen[p.group] {
				t.Fatalf("%d groups: two parts of group %d", groups, p.group)
			}
			seen[p.group] = true
		}
		if total != items || int(st.open.Load()) != len(st.parts) {
			t.Fatalf("%d groups: %d items in %d parts", groups, total, len(st.parts))
		}
	}
}

// The answer of a batch stays within what a message may carry; the item that
// does not fit says so.
func TestBatchGetIsBoundedInBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		keys := []string{}
		for i := range 3 {
			keys = append(keys, fmt.Sprint("k", i))
			f.host.data[dataKey(1, keys[i])] = &format.Record{
				Header: format.Header{Version: 1, Revision: 1}, Value: make([]byte, 7<<20)}
		}
		resp, err := f.BatchGet(t.Context(), &api.BatchGetRequest{Keys: keys})
		wantCode(t, err, "")
		left := 0
		for _, r := range resp.Results {
			if r.GetStatus().GetCode() == string(fault.MessageTooLarge) {
				left++
			}
		}
		if left != 1 || proto.Size(resp) > MaxMessageBytes {
			t.Fatalf("%d items left out of %d bytes", left, proto.Size(resp))
		}
	})
}

func TestBoundedStaleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.data[dataKey(1, "k")] = &format.Record{Header: format.Header{Version: 1, Revision: 5}}
		f.host.stale = func(g keyspace.GroupID, maxAge time.Duration) (host.ReadPoint, error) {
			if maxAge < time.Second {
				return host.ReadPoint{}, fault.New(fault.Unavailable, "too far behind")
			}
			return host.ReadPoint{Group: g, Rev: 6, Level: host.BoundedStaleness, Age: 1500 * time.Microsecond}, nil
		}
		req := &api.GetRequest{Key: "k", Consistency: api.Consistency_CONSISTENCY_BOUNDED_STALENESS, MaxStalenessMs: 1000}
		resp, err := f.Get(t.Context(), req)
		wantCode(t, err, "")
		if resp.Consistency != req.Consistency || resp.AgeMs != 2 || len(f.host.reads) != 0 {
			t.Fatalf("%v after %d ReadIndex", resp, len(f.host.reads))
		}
		req.MaxStalenessMs = 10
		resp, err = f.Get(t.Context(), req)
		wantCode(t, err, "")
		if resp.Consistency != api.Consistency_CONSISTENCY_LINEARIZABLE || len(f.host.reads) != 1 {
			t.Fatalf("%v after %d ReadIndex", resp, len(f.host.reads))
		}
		req.MaxStalenessMs = math.MaxInt64 // of any age
		resp, err = f.Get(t.Context(), req)
		wantCode(t, err, "")
		if resp.Consistency != req.Consistency || len(f.host.reads) != 1 {
			t.Fatalf("%v after %d ReadIndex", resp, len(f.host.reads))
		}
		list, err := f.List(t.Context(), &api.ListRequest{Consistency: req.Consistency, MaxStalenessMs: math.MaxInt64})
		wantCode(t, err, "")
		if list.Consistency != req.Consistency {
			t.Fatalf("a list at %v", list.Consistency)
		}
	})
}

func TestReadAtRevision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.floor = 10
		f.host.data[dataKey(1, "k")] = &format.Record{Header: format.Header{Version: 1, Revision: 20}}
		for at, code := range map[uint64]fault.Code{5: fault.OutOfRange, 15: fault.NotFound, 25: "", 1 << 40: fault.OutOfRange} {
			_, err := f.Get(t.Context(), &api.GetRequest{Key: "k", AtRevision: at})
			if fault.CodeOf(err) != code {
				t.Errorf("at %d: %v, want %q", at, err, code)
			}
		}
	})
}

func TestTooManyOperationsAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(o *Options) { o.MaxInflight = 2 })
		a, b, c := putCall("", "a", ""), putCall("", "b", ""), putCall("", "c", "")
		f.Do(t.Context(), a, b, c)
		for _, call := range []*Call{a, b, c} {
			wantCode(t, call.Err, fault.Overloaded)
			if call.Result.Status.RetryAfterMs == 0 {
				t.Fatal("no retry hint")
			}
		}
		f.Do(t.Context(), a)
		wantCode(t, a.Err, "")
	})
}

// Nothing executed: repeated until the deadline, then said so before it.
func TestNoLeaderUntilTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "", false }
		f.host.read = func(_ keyspace.GroupID, done func(host.ReadPoint, error)) bool {
			done(host.ReadPoint{}, fault.New(fault.Unavailable, "no leader"))
			return true
		}
		began := time.Now()
		w, g := putCall("", "k", "v"), getCall("", "k")
		w.Op.TimeoutMs, g.Op.TimeoutMs = 3000, 2000
		f.Do(t.Context(), w, g)
		wantCode(t, w.Err, fault.Unavailable)
		wantCode(t, g.Err, fault.Unavailable)
		if took := time.Since(began); took > 3*time.Second || took < 2*time.Second {
			t.Fatalf("took %v", took)
		}
	})
}

// A node that is cut off does not keep callers who can ask others.
func TestGivenBackToCallersWhoCanAskOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "", false }
		w, alone := putCall("", "k", "v"), putCall("", "k", "v")
		w.Elsewhere = true
		w.Op.TimeoutMs, alone.Op.TimeoutMs = 5000, 5000
		began := time.Now()
		f.Do(t.Context(), w)
		wantCode(t, w.Err, fault.Unavailable)
		if took := time.Since(began); took > GiveBackAfter {
			t.Errorf("given back after %v", took)
		}
		f.Do(t.Context(), alone)
		wantCode(t, alone.Err, fault.Unavailable)
		if took := time.Since(began); took < 4*time.Second {
			t.Errorf("a caller with no other node was told after %v", took)
		}
	})
}

func TestLeaderAppears(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		began := time.Now()
		f.host.leaders = func(keyspace.GroupID) (keyspace.NodeID, bool) { return "a", time.Since(began) > time.Second }
		c := putCall("", "k", "v")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		if took := time.Since(began); took > 2*time.Second {
			t.Fatalf("took %v", took)
		}
	})
}

func TestUnknownOutcomeIsNeverRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.submit = func(rs []*replica.Request) bool {
			for _, q := range rs {
				q.Err = fault.New(fault.UnknownOutcome, "leader changed")
				q.Done(q)
			}
			return true
		}
		c := putCall("", "k", "v")
		f.Do(t.Context(), c)
		wantCode(t, c.Err, fault.UnknownOutcome)
		if n := len(f.host.submits); n != 1 {
			t.Fatalf("submitted %d times", n)
		}
	})
}

func TestCanceledCallerEndsReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.read = func(_ keyspace.GroupID, done func(host.ReadPoint, error)) bool {
			done(host.ReadPoint{}, fault.New(fault.Unavailable, "no leader"))
			return true
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		c := getCall("", "k")
		f.Do(ctx, c)
		wantCode(t, c.Err, fault.Canceled)
	})
}
