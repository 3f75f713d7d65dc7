package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
	"kvstore/internal/replica"
)

func thenPut(key, value string) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Key: key, Value: []byte(value)}}}
}

func thenGet(key string) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Key: key}}}
}

func thenDelete(key string) *api.TransactionOp {
	return &api.TransactionOp{Op: &api.TransactionOp_Delete{Delete: &api.DeleteRequest{Key: key}}}
}

func checkVersion(key string, v uint64) *api.TransactionCheck {
	return &api.TransactionCheck{Key: key, Condition: &api.Condition{VersionMatch: &v}}
}

// told is a transaction's answer in words.
func told(r *api.TransactionResponse) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v", r.GetSucceeded())
	for _, res := range r.GetResults() {
		switch {
		case res.Status != nil:
			fmt.Fprintf(&b, " %s", res.Status.Code)
		case res.GetGet() != nil:
			fmt.Fprintf(&b, " %s=%s", res.GetGet().Key, res.GetGet().Value)
		case res.GetDelete() != nil:
			fmt.Fprintf(&b, " deleted:%v", res.GetDelete().Existed)
		default:
			fmt.Fprintf(&b, " put:%d", res.GetPut().GetVersion())
		}
	}
	return b.String()
}

// S3.9, ASKS F5: compare, then one of two lists; reads see what was there before.
func TestTransaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		steps := []struct {
			q       *api.TransactionRequest
			want    string
			written bool
		}{
			{&api.TransactionRequest{Then: []*api.TransactionOp{thenPut("{t}a", "1"), thenPut("{t}b", "1"), thenGet("{t}a")}}, "true put:1 put:1 not_found", true},
			{&api.TransactionRequest{Checks: []*api.TransactionCheck{checkVersion("{t}a", 1)},
				Then: []*api.TransactionOp{thenGet("{t}a"), thenPut("{t}a", "2"), thenDelete("{t}b"), thenGet("{t}b")}}, "true {t}a=1 put:2 deleted:true {t}b=1", true},
			{&api.TransactionRequest{Checks: []*api.TransactionCheck{checkVersion("{t}a", 1)},
				Then: []*api.TransactionOp{thenPut("{t}a", "3")}, Otherwise: []*api.TransactionOp{thenGet("{t}a"), thenGet("{t}b")}}, "false {t}a=2 not_found", false},
			{&api.TransactionRequest{Checks: []*api.TransactionCheck{checkVersion("{t}a", 1)}, Then: []*api.TransactionOp{thenPut("{t}a", "3")}}, "false", false},
		}
		for i, s := range steps {
			resp, err := f.Transaction(t.Context(), s.q)
			if err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
			if got := told(resp); got != s.want {
				t.Fatalf("step %d: %s, want %s", i, got, s.want)
			}
			if (resp.Revision != 0) != s.written {
				t.Fatalf("step %d: revision %d", i, resp.Revision)
			}
		}
		if n := len(f.host.submits); n != len(steps) {
			t.Fatalf("%d requests for %d transactions", n, len(steps))
		}
	})
}

// Namespaces may differ; the group may not.
func TestTransactionGroups(t *testing.T) {
	put := func(ns, key string) *api.TransactionOp {
		return &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{Namespace: ns, Key: key}}}
	}
	// Keys of both namespaces in one group, and one of another group.
	same := map[string]string{}
	var other string
	m := testMap()
	for _, key := range keysNamed(200) {
		if g, _ := m.GroupOfKey(16, key); g == 1 && same["app"] == "" {
			same["app"] = key
		}
		switch g, _ := m.GroupOfKey(1, key); {
		case g == 1 && same["default"] == "":
			same["default"] = key
		case g == 2:
			other = key
		}
	}
	for name, c := range map[string]struct {
		q    *api.TransactionRequest
		code fault.Code
	}{
		"two namespaces":  {&api.TransactionRequest{Namespace: "app", Then: []*api.TransactionOp{put("", same["app"]), put("default", same["default"])}}, ""},
		"two groups":      {&api.TransactionRequest{Then: []*api.TransactionOp{put("", same["default"]), put("", other)}}, ""},
		"a check":         {&api.TransactionRequest{Checks: []*api.TransactionCheck{checkVersion(other, 0)}, Then: []*api.TransactionOp{put("", same["default"])}}, ""},
		"otherwise":       {&api.TransactionRequest{Then: []*api.TransactionOp{put("", same["default"])}, Otherwise: []*api.TransactionOp{thenGet(other)}}, ""},
		"of the cluster":  {&api.TransactionRequest{Then: []*api.TransactionOp{put("_system", "k")}}, fault.PermissionDenied},
		"unknown":         {&api.TransactionRequest{Then: []*api.TransactionOp{put("", "k"), put("nowhere", "k")}}, fault.NamespaceNotFound},
		"being deleted":   {&api.TransactionRequest{Namespace: "gone", Then: []*api.TransactionOp{put("", "k")}}, fault.NamespaceDeleting},
		"same by default": {&api.TransactionRequest{Then: []*api.TransactionOp{put("", "k"), put("default", "k")}}, fault.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				_, err := f.Transaction(t.Context(), c.q)
				wantCode(t, err, c.code)
				synctest.Wait() // commits follow the answer
				if c.code == "" && (name == "two namespaces" && f.host.data[dataKey(16, same["app"])] == nil || f.host.data[dataKey(1, same["default"])] == nil) {
					t.Fatal("not written")
				}
				if c.code != "" && len(f.host.submits) > 0 {
					t.Fatal("it was executed")
				}
			})
		})
	}
}

// ASKS A2: bounds are bytes and a large number of items; errors say where.
func TestTransactionValidation(t *testing.T) {
	large := strings.Repeat("v", 9<<20)
	many := make([]*api.TransactionOp, MaxBatchItems+1)
	for i := range many {
		many[i] = thenGet("k")
	}
	stale := thenGet("k")
	stale.GetGet().AtRevision = 7
	for name, c := range map[string]struct {
		q       *api.TransactionRequest
		code    fault.Code
		details []string
	}{
		"empty":           {&api.TransactionRequest{}, fault.InvalidArgument, nil},
		"no condition":    {&api.TransactionRequest{Checks: []*api.TransactionCheck{{Key: "k"}}}, fault.InvalidArgument, []string{"list=checks", "item=0"}},
		"empty condition": {&api.TransactionRequest{Checks: []*api.TransactionCheck{{Key: "k", Condition: &api.Condition{}}}}, fault.InvalidArgument, nil},
		"no kind":         {&api.TransactionRequest{Then: []*api.TransactionOp{thenGet("k"), {}}}, fault.InvalidArgument, []string{"list=then", "item=1"}},
		"nil":             {&api.TransactionRequest{Otherwise: []*api.TransactionOp{nil}}, fault.InvalidArgument, []string{"list=otherwise", "item=0"}},
		"bad key":         {&api.TransactionRequest{Otherwise: []*api.TransactionOp{thenDelete("")}}, fault.InvalidKey, []string{"list=otherwise"}},
		"twice":           {&api.TransactionRequest{Then: []*api.TransactionOp{thenPut("k", ""), thenDelete("k")}}, fault.InvalidArgument, []string{"first=0", "second=1", "key=k"}},
		"at a revision":   {&api.TransactionRequest{Then: []*api.TransactionOp{stale}}, fault.InvalidArgument, nil},
		"too large": {&api.TransactionRequest{Then: []*api.TransactionOp{thenPut("{t}a", large)}, Otherwise: []*api.TransactionOp{thenPut("{t}a", large)}},
			fault.MessageTooLarge, []string{fmt.Sprint("limit_bytes=", MaxBatchBytes), fmt.Sprint("actual_bytes=", 2*len(large)+8)}},
		"too many":              {&api.TransactionRequest{Then: many}, fault.InvalidArgument, []string{fmt.Sprint("limit=", MaxBatchItems), fmt.Sprint("actual=", MaxBatchItems+1)}},
		"read and written":      {&api.TransactionRequest{Then: []*api.TransactionOp{thenGet("k"), thenPut("k", ""), thenGet("k")}}, "", nil},
		"written in both lists": {&api.TransactionRequest{Then: []*api.TransactionOp{thenPut("k", "")}, Otherwise: []*api.TransactionOp{thenDelete("k")}}, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				_, err := f.Transaction(t.Context(), c.q)
				wantCode(t, err, c.code)
				var e *fault.Error
				errors.As(err, &e)
				for _, want := range c.details {
					k, v, _ := strings.Cut(want, "=")
					if e.Details[k] != v {
						t.Errorf("%s: %v", want, e.Details)
					}
				}
			})
		})
	}
}

// Elsewhere led: the whole transaction goes there and its answer comes back.
func TestTransactionIsForwarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		leader := newFixture(t)
		q := &api.TransactionRequest{Checks: []*api.TransactionCheck{checkVersion("{t}a", 0)}, Then: []*api.TransactionOp{thenPut("{t}a", "1"), thenGet("{t}b")}}
		refusals := 2
		f.remote("b", func(_ string, op *api.PipelineOp) *api.PipelineResult {
			if refusals--; refusals >= 0 {
				return &api.PipelineResult{Status: ErrorStatus(fault.New(fault.WrongLeader, "not here"))}
			}
			if !proto.Equal(op.GetTransaction(), q) {
				t.Errorf("forwarded %v", op)
			}
			c := &Call{Op: op, Forwarded: true}
			leader.Do(context.Background(), c)
			return c.Result
		})
		resp, err := f.Transaction(t.Context(), q)
		wantCode(t, err, "")
		if got := told(resp); got != "true put:1 not_found" || resp.Revision == 0 {
			t.Fatal(got)
		}
	})
}

// What may be repeated is what is certainly not executed.
func TestTransactionRetries(t *testing.T) {
	for code, c := range map[fault.Code]struct {
		want  fault.Code
		tries int
	}{
		fault.Unavailable:      {"", 2},
		fault.WrongLeader:      {"", 2},
		fault.WrongGroup:       {"", 2},
		fault.UnknownOutcome:   {fault.UnknownOutcome, 1},
		fault.DeadlineExceeded: {fault.DeadlineExceeded, 1},
		fault.Overloaded:       {fault.Overloaded, 1},
	} {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				tries := f.failsFirst(code)
				resp, err := f.Transaction(t.Context(), &api.TransactionRequest{Then: []*api.TransactionOp{thenPut("k", "1")}})
				wantCode(t, err, c.want)
				if *tries != c.tries {
					t.Fatalf("tried %d times, want %d", *tries, c.tries)
				}
				if err == nil && told(resp) != "true put:1" {
					t.Fatal(told(resp))
				}
			})
		})
	}
}

// failsFirst has the first write end with a code, and counts the tries.
func (f *fixture) failsFirst(code fault.Code) (tries *int) {
	tries = new(int)
	f.host.submit = func(rs []*replica.Request) bool {
		if *tries++; *tries > 1 {
			return false
		}
		rs[0].Err = fault.New(code, "made by the test")
		rs[0].Done(rs[0])
		return true
	}
	return tries
}

// One that only reads is repeated like any read, also when its answer was lost.
func TestReadingTransactionIsRepeated(t *testing.T) {
	for _, code := range []fault.Code{fault.UnknownOutcome, fault.DeadlineExceeded, fault.Unavailable} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t)
			tries := f.failsFirst(code)
			_, err := f.Transaction(t.Context(), &api.TransactionRequest{Then: []*api.TransactionOp{thenGet("k")}})
			wantCode(t, err, "")
			if *tries != 2 {
				t.Fatalf("tried %d times after %s", tries, code)
			}
		})
	}
}

// A version that is gone before its value was read, or a replica that is: what
// wrote nothing is executed again, what wrote says so.
func TestTransactionValueIsGone(t *testing.T) {
	for _, moved := range []bool{false, true} {
		for _, writes := range []bool{false, true} {
			t.Run(fmt.Sprintf("moved %v, writes %v", moved, writes), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { valueIsGone(t, moved, writes) })
			})
		}
	}
}

func valueIsGone(t *testing.T, moved, writes bool) {
	f := newFixture(t)
	f.Do(t.Context(), putCall("", "{t}k", "old"))
	f.host.old = nil
	tries := 0
	f.host.submit = func(rs []*replica.Request) bool {
		tries++
		f.host.apply(rs[0])
		if tries == 1 {
			if moved {
				f.host.lost = fault.New(fault.WrongLeader, "not hosted here")
			} else { // replaced before it is read
				f.host.apply(&replica.Request{Group: rs[0].Group, Ops: []replica.Op{{Namespace: 1, Key: "{t}k", Value: []byte("new")}}})
			}
		}
		rs[0].Done(rs[0])
		return true
	}
	q := &api.TransactionRequest{Then: []*api.TransactionOp{thenGet("{t}k")}}
	want, wantTries := "true {t}k=new", 2
	switch {
	case writes:
		q.Then = append(q.Then, thenPut("{t}x", "1"))
		want, wantTries = "true out_of_range put:1", 1
	case moved:
		want = "true {t}k=old"
	}
	resp, err := f.Transaction(t.Context(), q)
	wantCode(t, err, "")
	if got := told(resp); got != want || tries != wantTries {
		t.Fatalf("%s after %d tries, want %s after %d", got, tries, want, wantTries)
	}
}

// Values of a transaction are bounded together, as those of a batch are.
func TestTransactionValuesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		value := strings.Repeat("v", 9<<20)
		f.Do(t.Context(), putCall("", "{t}a", value), putCall("", "{t}b", value))
		resp, err := f.Transaction(t.Context(), &api.TransactionRequest{Then: []*api.TransactionOp{thenGet("{t}a"), thenGet("{t}b")}})
		wantCode(t, err, "")
		if len(resp.Results[0].GetGet().GetValue()) != len(value) || resp.Results[1].GetStatus().GetCode() != string(fault.MessageTooLarge) {
			t.Fatalf("statuses %v and %v", resp.Results[0].Status, resp.Results[1].Status)
		}
	})
}

// Slots move on while it is under way: it follows, or its keys have parted.
func TestTransactionFollowsItsSlots(t *testing.T) {
	var kept, gone string
	moved := half(1)
	for _, k := range keysNamed(400) {
		if slot := keyspace.SlotOf(1, k); moved.Has(slot) {
			gone = k
		} else if g, _ := founded.GroupOf(slot); g == 1 {
			kept = k
		}
	}
	for name, c := range map[string]struct {
		keys []string
		code fault.Code
	}{
		"all went":    {[]string{gone}, ""},
		"all stayed":  {[]string{kept}, ""},
		"they parted": {[]string{kept, gone}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.host.give(1, 5, moved)
				f.follows()
				q := &api.TransactionRequest{}
				for _, k := range c.keys {
					q.Then = append(q.Then, thenPut(k, "1"))
				}
				begin := time.Now()
				_, err := f.Transaction(t.Context(), q)
				wantCode(t, err, c.code)
				synctest.Wait() // commits follow the answer
				for _, k := range c.keys {
					if written := f.host.data[dataKey(1, k)] != nil; written != (c.code == "") {
						t.Fatalf("%s written: %v", k, written)
					}
				}
				if time.Since(begin) > time.Second {
					t.Fatalf("answered after %v", time.Since(begin))
				}
			})
		})
	}
}

// A touch goes the way of a put, alone and in a transaction.
func TestTouch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		if _, err := f.Put(t.Context(), &api.PutRequest{Key: "k", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		put, err := f.Touch(t.Context(), &api.TouchRequest{Key: "k", TtlSeconds: 5})
		if err != nil || put.Version != 2 || put.ExpiresAtMs != put.UpdatedAtMs+5000 || put.Checksum == 0 {
			t.Fatalf("%+v, %v", put, err)
		}
		op := &api.TransactionOp{Op: &api.TransactionOp_Touch{Touch: &api.TouchRequest{Key: "k", TtlSeconds: 7}}}
		res, err := f.Transaction(t.Context(), &api.TransactionRequest{Then: []*api.TransactionOp{op, thenGet("k")}})
		if err != nil || told(res) != "true put:3 k=v" || res.Results[0].GetPut().ExpiresAtMs == 0 {
			t.Fatalf("%s, %v", told(res), err)
		}
		op.GetTouch().TtlSeconds = 0
		_, err = f.Transaction(t.Context(), &api.TransactionRequest{Otherwise: []*api.TransactionOp{op}})
		wantCode(t, err, fault.InvalidArgument)
	})
}
