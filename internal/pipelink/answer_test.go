package pipelink

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// encoded gives out what those answer who have the bytes of m.
func encoded[M proto.Message](t *testing.T, m, out M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out.ProtoReflect().SetUnknown(b)
	return out
}

// many returns an answer of one of the kinds that are many.
func many(rng *rand.Rand) *api.PipelineResult {
	r := &api.PipelineResult{Id: rng.Uint64() >> rng.IntN(64)}
	switch rng.IntN(4) {
	case 0:
		r.Result = &api.PipelineResult_Put{Put: new(api.PutResponse)}
		randomMessage(rng, r.GetPut().ProtoReflect(), 2)
	case 1:
		r.Result = &api.PipelineResult_Get{Get: new(api.GetResponse)}
		randomMessage(rng, r.GetGet().ProtoReflect(), 3)
	case 2:
		r.Result = &api.PipelineResult_BatchPut{BatchPut: new(api.BatchPutResponse)}
		randomMessage(rng, r.GetBatchPut().ProtoReflect(), 4)
		if rng.IntN(2) == 0 { // all went well
			for _, item := range r.GetBatchPut().Results {
				if item.Status = nil; item.Put == nil {
					item.Put = new(api.PutResponse)
				}
			}
		}
	case 3:
		r.Result = &api.PipelineResult_BatchGet{BatchGet: new(api.BatchGetResponse)}
		randomMessage(rng, r.GetBatchGet().ProtoReflect(), 4)
	}
	return r
}

// What is written by hand is what the generated code reads as the same, in the size that
// was measured.
func TestAnswers(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var a answers
	byHand := make(map[string]int)
	for range 3000 {
		q, want := new(api.PipelineResponse), new(api.PipelineResponse)
		for range rng.IntN(6) {
			r := new(api.PipelineResult)
			randomMessage(rng, r.ProtoReflect(), 4)
			if rng.IntN(2) == 0 {
				r = many(rng)
			}
			want.Results = append(want.Results, proto.CloneOf(r))
			if get := r.GetGet(); get != nil && rng.IntN(2) == 0 {
				r.Result = &api.PipelineResult_Get{Get: encoded(t, get, new(api.GetResponse))}
			}
			if gets := r.GetBatchGet(); gets != nil && rng.IntN(2) == 0 {
				r.Result = &api.PipelineResult_BatchGet{BatchGet: encoded(t, gets, new(api.BatchGetResponse))}
			}
			q.Results = append(q.Results, r)
		}
		a.measure(q)
		for i, inner := range a.inner {
			if inner > 0 {
				byHand[fmt.Sprintf("%T", q.Results[i].Result)]++
			}
		}
		b, err := a.append(nil, q)
		if err != nil {
			t.Fatal(err)
		}
		got := new(api.PipelineResponse)
		if err := proto.Unmarshal(b, got); err != nil || len(b) != a.total {
			t.Fatalf("%d bytes of %d: %v", len(b), a.total, err)
		}
		if !proto.Equal(got, want) {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
	for kind, n := range byHand {
		if n < 100 {
			t.Errorf("only %d results of type %s were written by hand", n, kind)
		}
	}
	if len(byHand) != 4 {
		t.Errorf("written by hand: %v", byHand)
	}
}

// A full frame of answers costs no memory but its buffer.
func TestAnswersAllocations(t *testing.T) {
	q := new(api.PipelineResponse)
	for i := range 100 {
		get := encoded(t, &api.GetResponse{ReadRevision: 7, Record: &api.Record{Key: "key", Value: make([]byte, 256)}}, new(api.GetResponse))
		q.Results = append(q.Results, &api.PipelineResult{Id: uint64(i), Result: &api.PipelineResult_Get{Get: get}})
		puts := &api.BatchPutResponse{Results: []*api.BatchPutResult{{Put: &api.PutResponse{Version: 7}}}}
		q.Results = append(q.Results, &api.PipelineResult{Id: uint64(i), Result: &api.PipelineResult_BatchPut{BatchPut: puts}})
	}
	var a answers
	a.measure(q)
	b := make([]byte, 0, a.total)
	if n := testing.AllocsPerRun(100, func() {
		a.measure(q)
		if _, err := a.append(b, q); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
