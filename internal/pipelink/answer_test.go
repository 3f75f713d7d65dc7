package pipelink

import (
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// encodedGet is g as those answer who have its bytes.
func encodedGet(t *testing.T, g *api.GetResponse) *api.GetResponse {
	t.Helper()
	b, err := proto.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	out := new(api.GetResponse)
	out.ProtoReflect().SetUnknown(b)
	return out
}

// What is written by hand is what the generated code reads as the same, in the size that
// was measured.
func TestAnswers(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	var a answers
	byHand := 0
	for range 3000 {
		q, want := new(api.PipelineResponse), new(api.PipelineResponse)
		for range rng.IntN(6) {
			r := new(api.PipelineResult)
			randomMessage(rng, r.ProtoReflect(), 4)
			if rng.IntN(2) == 0 { // one of those that are many
				r = &api.PipelineResult{Id: rng.Uint64() >> rng.IntN(64)}
				put, get := new(api.PutResponse), new(api.GetResponse)
				randomMessage(rng, put.ProtoReflect(), 2)
				randomMessage(rng, get.ProtoReflect(), 3)
				if r.Result = (&api.PipelineResult_Put{Put: put}); rng.IntN(2) == 0 {
					r.Result = &api.PipelineResult_Get{Get: get}
				}
			}
			want.Results = append(want.Results, proto.CloneOf(r))
			if get := r.GetGet(); get != nil && rng.IntN(2) == 0 {
				r.Result = &api.PipelineResult_Get{Get: encodedGet(t, get)}
			}
			q.Results = append(q.Results, r)
		}
		a.measure(q)
		for _, inner := range a.inner {
			if inner > 0 {
				byHand++
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
	if byHand < 500 {
		t.Errorf("only %d results were written by hand", byHand)
	}
}

// A full frame of gets costs no memory but its buffer.
func TestAnswersAllocations(t *testing.T) {
	q := new(api.PipelineResponse)
	for i := range 100 {
		get := encodedGet(t, &api.GetResponse{ReadRevision: 7, Record: &api.Record{Key: "key", Value: make([]byte, 256)}})
		q.Results = append(q.Results, &api.PipelineResult{Id: uint64(i), Result: &api.PipelineResult_Get{Get: get}})
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
