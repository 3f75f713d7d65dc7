package router

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/format"
	"kvstore/internal/host"
	"kvstore/internal/keyspace"
)

// decoded is what a caller gets who receives the bytes of a result.
func decoded(t *testing.T, res *api.PipelineResult) *api.PipelineResult {
	t.Helper()
	b, err := proto.Marshal(res)
	if err != nil {
		t.Fatal(err)
	}
	out := &api.PipelineResult{}
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// Encoded answers are the bytes of the others: from one group and several, read
// here and by peers, with absent keys and values that are too much.
func TestEncodedGets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		var keys []string
		for name, rec := range wireRecords() {
			for i := range 3 {
				key := fmt.Sprint(name, i)
				f.host.data[dataKey(1, key)] = &format.Record{Header: rec.Header, Value: rec.Value, ContentType: rec.ContentType,
					Encoding: rec.Encoding, Tags: rec.Tags, Metadata: rec.Metadata}
				f.host.data[dataKey(1, key)].Revision = 1
				keys = append(keys, key, "missing"+key)
			}
		}
		for i := range 3 {
			keys = append(keys, fmt.Sprint("large", i))
			f.host.data[dataKey(1, keys[len(keys)-1])] = &format.Record{Header: format.Header{Revision: 1}, Value: make([]byte, 7<<20)}
		}
		// Group 2 is on another node.
		there := newFixture(t)
		there.host.data = f.host.data
		f.remote("b", func(identity string, op *api.PipelineOp) *api.PipelineResult {
			c := &Call{Op: proto.CloneOf(op), Identity: identity, Forwarded: true, Encoded: true}
			there.Do(context.Background(), c)
			return decoded(t, c.Result)
		})
		f.host.hosted = func(g keyspace.GroupID) bool { return g != 2 }
		for _, keysOnly := range []bool{false, true} {
			for _, n := range []int{0, 1, 2, 10, len(keys)} {
				rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
				answer := func(encoded bool) *api.PipelineResult {
					c := &Call{Encoded: encoded, Op: &api.PipelineOp{Id: 9, Op: &api.PipelineOp_BatchGet{
						BatchGet: &api.BatchGetRequest{Keys: keys[:n], KeysOnly: keysOnly}}}}
					f.Do(t.Context(), c)
					wantCode(t, c.Err, "")
					if got := len(c.Result.GetBatchGet().GetResults()); encoded && got != 0 || !encoded && got != n {
						t.Fatalf("%d results, encoded %v", got, encoded)
					}
					return decoded(t, c.Result)
				}
				want, got := answer(false), answer(true)
				// Which of the large values is left out depends on the order of the parts.
				for i := range want.GetBatchGet().GetResults() {
					for _, res := range []*api.PipelineResult{want, got} {
						if res.GetBatchGet().Results[i].GetStatus().GetCode() == string(fault.MessageTooLarge) || len(res.GetBatchGet().Results[i].GetRecord().GetValue()) > 1<<20 {
							res.GetBatchGet().Results[i] = nil
						}
					}
				}
				if len(got.GetBatchGet().GetResults()) != n || !proto.Equal(want, got) {
					t.Fatalf("%d keys, keys only %v: got %v, want %v", n, keysOnly, got, want)
				}
			}
		}
	})
}

// So are those of gets, one by one and several together, whatever is prepared.
func TestEncodedSingleGets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.stale = func(g keyspace.GroupID, _ time.Duration) (host.ReadPoint, error) {
			return host.ReadPoint{Group: g, Rev: 5, Level: host.BoundedStaleness, Age: 1500 * time.Microsecond}, nil
		}
		var gets []*api.GetRequest
		for name, rec := range wireRecords() {
			kept := *rec
			kept.Revision = 1
			f.host.data[dataKey(1, name)] = &kept
			for _, key := range []string{name, "missing" + name} {
				gets = append(gets, &api.GetRequest{Key: key}, &api.GetRequest{Key: key, KeysOnly: true},
					&api.GetRequest{Key: key, Consistency: api.Consistency_CONSISTENCY_BOUNDED_STALENESS, MaxStalenessMs: 9})
			}
		}
		for i := range 60 { // more than are read together in each group
			name, id := fmt.Sprint("space", i), keyspace.NamespaceID(100+i)
			f.dir.m.Namespaces[name] = Namespace{ID: id}
			f.host.data[dataKey(id, "k")] = &format.Record{Header: format.Header{Revision: 1, Version: uint64(i)}, Value: []byte(name)}
			q := &api.GetRequest{Namespace: name, Key: "k"}
			gets = append(gets, q, q, &api.GetRequest{Namespace: name, Key: "k", Consistency: api.Consistency_CONSISTENCY_BOUNDED_STALENESS, MaxStalenessMs: 9})
		}
		answers := func(encoded bool) (out []*api.PipelineResult) {
			var calls []*Call
			for i, q := range gets {
				calls = append(calls, &Call{Encoded: encoded, Op: &api.PipelineOp{Id: uint64(i), Op: &api.PipelineOp_Get{Get: q}}})
			}
			f.Do(t.Context(), calls...)
			for i, c := range calls {
				if encoded && !f.host.locked && c.Result.GetGet().GetRecord() != nil {
					t.Fatalf("get %d was not encoded", i)
				}
				out = append(out, decoded(t, c.Result))
			}
			return out
		}
		want := answers(false)
		for _, f.host.locked = range []bool{false, true} {
			f.host.each, f.host.calls = 0, 0
			for i, got := range answers(true) {
				if !proto.Equal(got, want[i]) {
					t.Errorf("%v, something prepared %v:\n got %v\nwant %v", gets[i], f.host.locked, got, want[i])
				}
			}
			if linearizable := len(gets) / 3 * 2; f.host.calls != linearizable {
				t.Errorf("confirmed for %d gets, want %d", f.host.calls, linearizable)
			}
			if together := f.host.each > 0; together == f.host.locked {
				t.Errorf("something prepared %v: %d times together", f.host.locked, f.host.each)
			}
		}
	})
}

// So are those of transactions, with and without a record of their request.
func TestEncodedTransactions(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	encoded := 0
	for n := range 4000 {
		st, q := randomEvaluated(rng, kindTransaction)
		if st.call.Result = (&api.PipelineResult{}); n%2 == 0 {
			st.kept(q)
		}
		if reads(q.Ops, st.takenList(q)) || !st.answerEncoded(q) {
			continue
		}
		encoded++
		want, slots := newTxnAnswer(len(q.Ops)), slotsFor(q.Ops, st.takenList(q))
		want.response.Succeeded, want.response.Revision = q.Txn.Succeeded, revisionOf(q)
		for i := range q.Ops {
			want.response.Results[i], _ = st.frame.opResult(nil, &slots, &q.Ops[i], st.takenList(q)[i])
		}
		got := st.call.Result.GetTransaction()
		if got.Succeeded != want.response.Succeeded || got.Revision != want.response.Revision || len(got.Results) != 0 {
			t.Fatalf("got %v, want %v", got, &want.response)
		}
		if got := decoded(t, st.call.Result).GetTransaction(); !proto.Equal(got, &want.response) || len(got.ProtoReflect().GetUnknown()) > 0 {
			t.Fatalf("got %v, want %v", got, &want.response)
		}
	}
	if encoded < 500 {
		t.Errorf("only %d were encoded", encoded)
	}
}

// Callers who may have bytes get them: of what writes only, not of what reads, has an
// error, or is made of something else.
func TestEncodedTransactionCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		get := &api.TransactionOp{Op: &api.TransactionOp_Get{Get: &api.GetRequest{Key: "a"}}}
		fenced := &api.TransactionRequest{Then: []*api.TransactionOp{putOf("a")}, Fence: &api.Fence{Key: "a", Revision: 1}}
		for n, c := range []struct {
			q       *api.TransactionRequest
			encoded bool
		}{
			{&api.TransactionRequest{Then: []*api.TransactionOp{putOf("a")}}, true},
			{&api.TransactionRequest{Then: []*api.TransactionOp{putOf("a")}, RequestId: f.newTxnID().String()}, true},
			{&api.TransactionRequest{Then: []*api.TransactionOp{putOf("a"), get}}, false},
			{&api.TransactionRequest{Then: []*api.TransactionOp{putOf("a"), get}, RequestId: f.newTxnID().String()}, false},
			{fenced, false},
		} {
			for _, allowed := range []bool{false, true} {
				call := &Call{Encoded: allowed, Op: &api.PipelineOp{Id: 9, Op: &api.PipelineOp_Transaction{Transaction: c.q}}}
				f.Do(t.Context(), call)
				if fenced == c.q {
					if len(call.Result.GetTransaction().ProtoReflect().GetUnknown()) > 0 {
						t.Errorf("a fenced transaction is answered with %v", call.Result)
					}
					continue
				}
				wantCode(t, call.Err, "")
				want := len(c.q.Then)
				if c.encoded && allowed {
					want = 0
				}
				if got := len(call.Result.GetTransaction().GetResults()); got != want {
					t.Errorf("transaction %d, encoded %v: %d results, want %d", n, allowed, got, want)
				}
				if got := decoded(t, call.Result).GetTransaction(); len(got.GetResults()) != len(c.q.Then) || got.Results[0].GetPut().GetVersion() == 0 {
					t.Errorf("transaction %d, encoded %v: %v", n, allowed, got)
				}
			}
		}
	})
}

// Reads that fail for good say so in their items' bytes.
func TestEncodedFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.host.read = func(g keyspace.GroupID, done func(host.ReadPoint, error)) bool {
			if g == 2 {
				done(host.ReadPoint{}, fault.New(fault.Overloaded, "too many reads"))
			}
			return g == 2
		}
		var keys []string
		for i := range 20 {
			keys = append(keys, fmt.Sprint("k", i))
			f.host.data[dataKey(1, keys[i])] = &format.Record{Header: format.Header{Revision: 1}, Value: []byte("v")}
		}
		c := &Call{Encoded: true, Op: &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: &api.BatchGetRequest{Keys: keys}}}}
		f.Do(t.Context(), c)
		wantCode(t, c.Err, "")
		for i, res := range decoded(t, c.Result).GetBatchGet().GetResults() {
			want := ""
			if g, _ := testMap().GroupOfKey(1, keys[i]); g == 2 {
				want = string(fault.Overloaded)
			}
			if res.GetStatus().GetCode() != want || (want == "") != (string(res.GetRecord().GetValue()) == "v") {
				t.Fatalf("item %d: %v", i, res)
			}
		}
	})
}

// A batch is read when the last of its groups is confirmed, and others need not
// wait for it.
func TestReadsWaitForTheirOwnGroups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		held := map[keyspace.GroupID]func(host.ReadPoint, error){}
		f.host.read = func(g keyspace.GroupID, done func(host.ReadPoint, error)) bool { held[g] = done; return true }
		var in [testGroups + 1][]string
		for i := range 100 {
			key := fmt.Sprint("k", i)
			g, _ := testMap().GroupOfKey(1, key)
			in[g] = append(in[g], key)
			f.host.data[dataKey(1, key)] = &format.Record{Header: format.Header{Revision: 1}, Value: []byte("v")}
		}
		batch := func(keys ...string) *Call {
			return &Call{Op: &api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: &api.BatchGetRequest{Keys: keys}}}}
		}
		oneTwo, twoThree, three := batch(in[1][0], in[2][0]), batch(in[2][1], in[3][1]), getCall("", in[3][2])
		answered := map[*Call]bool{}
		f.Execute(t.Context(), []*Call{oneTwo, twoThree, three}, func(c *Call) { answered[c] = true })
		steps := []struct {
			group                   keyspace.GroupID
			oneTwo, twoThree, three bool
		}{{1, false, false, false}, {3, false, false, true}, {2, true, true, true}}
		for _, s := range steps {
			held[s.group](host.ReadPoint{Group: s.group, Rev: 5, Clock: 5}, nil)
			synctest.Wait()
			if answered[oneTwo] != s.oneTwo || answered[twoThree] != s.twoThree || answered[three] != s.three {
				t.Fatalf("after group %d: answered %v, %v, %v", s.group, answered[oneTwo], answered[twoThree], answered[three])
			}
		}
	})
}
