package history

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

const storeLimit = 10 * time.Second

func put(key int, value string) StoreOp { return StoreOp{StorePut, key, value} }
func get(key int) StoreOp               { return StoreOp{StoreGet, key, ""} }

func stored(at Span, then []StoreOp, results ...StoreResult) *StoreCall {
	return &StoreCall{Span: at, Then: then, Answer: StoreAnswer{Succeeded: true, Results: results}}
}

// TestStoreModel: the model knows checks, both lists, versions and what is before a
// transaction's own writes.
func TestStoreModel(t *testing.T) {
	first := stored(Span{0, 5}, []StoreOp{put(0, "a"), put(1, "a")}, StoreResult{Version: 1}, StoreResult{Version: 1})
	lost := &StoreCall{Span: Span{10, Forever}, Then: []StoreOp{put(0, "b"), put(1, "b")}, Answer: StoreAnswer{Unknown: true}}
	read := func(at int64, a, b StoreResult) *StoreCall {
		return stored(Span{at, at + 5}, []StoreOp{get(0), get(1)}, a, b)
	}
	a, b := StoreResult{1, "a"}, StoreResult{2, "b"}
	checked := func(version uint64, succeeded bool, result StoreResult) *StoreCall {
		return &StoreCall{Span: Span{20, 25}, Checks: []StoreCheck{{0, version}}, Then: []StoreOp{put(1, "c")}, Otherwise: []StoreOp{get(0)},
			Answer: StoreAnswer{Succeeded: succeeded, Results: []StoreResult{result}}}
	}
	for _, tc := range []struct {
		name  string
		ok    bool
		calls []*StoreCall
	}{
		{"written and read", true, []*StoreCall{first, read(20, a, a)}},
		{"half of it", false, []*StoreCall{first, read(20, a, StoreResult{})}},
		{"lost", false, []*StoreCall{first, read(20, StoreResult{}, StoreResult{})}},
		{"unknown, not seen", true, []*StoreCall{first, lost, read(20, a, a)}},
		{"unknown, seen later", true, []*StoreCall{first, lost, read(20, a, a), read(30, b, b)}},
		{"unknown, half of it", false, []*StoreCall{first, lost, read(20, b, a)}},
		{"unknown, undone", false, []*StoreCall{first, lost, read(20, b, b), read(30, a, a)}},
		{"check holds", true, []*StoreCall{first, checked(1, true, StoreResult{Version: 2})}},
		{"check that holds is refused", false, []*StoreCall{first, checked(1, false, a)}},
		{"check that does not hold", true, []*StoreCall{first, checked(7, false, a)}},
		{"check that does not hold succeeds", false, []*StoreCall{first, checked(7, true, StoreResult{Version: 2})}},
		{"gets see what was before", true, []*StoreCall{first, stored(Span{10, 15}, []StoreOp{put(0, "b"), get(0)}, StoreResult{Version: 2}, a)}},
		{"gets see own writes", false, []*StoreCall{first, stored(Span{10, 15}, []StoreOp{put(0, "b"), get(0)}, StoreResult{Version: 2}, b)}},
		{"deleted and made again", true, []*StoreCall{first, stored(Span{10, 15}, []StoreOp{{StoreDelete, 0, ""}, {StoreDelete, 2, ""}}, StoreResult{Version: 1}, StoreResult{}),
			stored(Span{20, 25}, []StoreOp{put(0, "c")}, StoreResult{Version: 1})}},
		{"executed twice", false, []*StoreCall{first, read(20, StoreResult{2, "a"}, StoreResult{2, "a"})}},
	} {
		found, undecided := CheckStore(tc.calls, storeLimit)
		if (len(found) == 0) != tc.ok || undecided > 0 {
			t.Errorf("%s: %d undecided, %s", tc.name, undecided, Report(found))
		}
	}
}

// TestStoreCounterexample: it ends with the answer that cannot be.
func TestStoreCounterexample(t *testing.T) {
	calls := []*StoreCall{
		stored(Span{0, 5}, []StoreOp{put(0, "a")}, StoreResult{Version: 1}),
		stored(Span{10, 15}, []StoreOp{get(0)}, StoreResult{}),
		stored(Span{20, 25}, []StoreOp{get(0)}, StoreResult{1, "a"}),
	}
	found, _ := CheckStore(calls, storeLimit)
	if text := Report(found); !strings.Contains(text, "[10ns, 15ns]") || strings.Contains(text, "[20ns, 25ns]") {
		t.Error(text)
	}
}

// TestSerialStore: random transactions executed one after the other, by clients
// that overlap, are accepted; one changed answer is not.
func TestSerialStore(t *testing.T) {
	for seed := range uint64(10) {
		r := rand.New(rand.NewPCG(seed, 3))
		var calls []*StoreCall
		state := storeState{}
		for n := range 120 {
			c := randomCall(r, n)
			c.Window = n / 40
			if n%40 == 0 {
				state = storeState{}
			}
			state = execute(state, c, r.IntN(12) == 0, r)
			calls = append(calls, c)
		}
		if found, undecided := CheckStore(calls, storeLimit); len(found) > 0 || undecided > 0 {
			t.Fatalf("seed %d: %d undecided, %s", seed, undecided, Report(found))
		}
		for i := 60; ; i++ {
			if a := &calls[i].Answer; !a.Unknown && len(a.Results) > 0 {
				a.Results[0].Version += 7
				break
			}
		}
		if found, _ := CheckStore(calls, storeLimit); len(found) != 1 {
			t.Errorf("seed %d: a wrong version is %q", seed, Report(found))
		}
	}
}

func randomCall(r *rand.Rand, n int) *StoreCall {
	at := int64(n) * 10
	c := &StoreCall{Client: n % 4, Span: Span{at - r.Int64N(15), at + 15 + r.Int64N(10)}}
	keys := r.Perm(StoreKeys)
	if r.IntN(2) == 0 {
		c.Checks = []StoreCheck{{keys[0], r.Uint64N(3)}}
		c.Otherwise = []StoreOp{get(keys[0])}
	}
	for i, k := range keys[:1+r.IntN(3)] {
		c.Then = append(c.Then, StoreOp{StoreVerb(r.IntN(3)), k, fmt.Sprintf("%d.%d", n, i)})
	}
	return c
}

// execute answers as the model does; a lost transaction may have happened.
func execute(s storeState, c *StoreCall, lost bool, r *rand.Rand) storeState {
	ops := c.Otherwise
	if c.Answer.Succeeded = s.holds(c.Checks); c.Answer.Succeeded {
		ops = c.Then
	}
	_, next := s.step(&StoreCall{Checks: c.Checks, Then: c.Then, Otherwise: c.Otherwise, Answer: StoreAnswer{Unknown: true}})
	for _, op := range ops {
		res := s[op.Key]
		switch op.Verb {
		case StoreGet:
		case StorePut:
			res = StoreResult{Version: next[op.Key].Version}
		case StoreDelete:
			res = StoreResult{Version: min(1, res.Version)}
		}
		c.Answer.Results = append(c.Answer.Results, res)
	}
	if !lost {
		return next
	}
	c.Answer, c.Return = StoreAnswer{Unknown: true}, Forever
	if r.IntN(2) == 0 {
		return next
	}
	return s
}

// TestBank: the sum, and every account.
func TestBank(t *testing.T) {
	b := Bank{Accounts: []string{"a", "b", "c"}, Total: 30}
	for _, tc := range []struct {
		balances map[string]int
		ok       bool
	}{
		{map[string]int{"a": 10, "b": 15, "c": 5}, true},
		{map[string]int{"a": 10, "b": 15, "c": 6}, false},
		{map[string]int{"a": 10, "b": 20}, false},
		{map[string]int{"a": 10, "b": 15, "c": 5, "d": 0}, false},
	} {
		if got := b.Judge(Sighting{How: "transaction", Balances: tc.balances}); (got == nil) != tc.ok {
			t.Errorf("%v: %v", tc.balances, got)
		}
	}
}
