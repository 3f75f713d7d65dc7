package history

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// StoreKeys is how many keys a window has.
const StoreKeys = 6

// StoreCall is a transaction on the keys of one window: a range of time with keys
// of its own, so that a search for an order of its transactions ends.
type StoreCall struct {
	Client int
	Window int
	Span
	Checks          []StoreCheck
	Then, Otherwise []StoreOp
	Answer          StoreAnswer
}

// StoreCheck compares a key's version, 0 for absent.
type StoreCheck struct {
	Key     int
	Version uint64
}

// StoreVerb is what a StoreOp does.
type StoreVerb uint8

// Verbs. A get sees the state before the transaction's own writes.
const (
	StoreGet StoreVerb = iota
	StorePut
	StoreDelete
)

// StoreOp is one operation of a transaction; a list writes a key once.
type StoreOp struct {
	Verb  StoreVerb
	Key   int
	Value string
}

// StoreAnswer is how a transaction ended. Those certainly without effect are no
// part of a history.
type StoreAnswer struct {
	Unknown   bool
	Succeeded bool
	// Results are of the list that was taken: what a get found, what a put made,
	// what a delete found to delete (without a value).
	Results []StoreResult
}

// StoreResult is a key's state; a get of nothing has version 0.
type StoreResult struct {
	Version uint64
	Value   string
}

// storeState is all keys of a window.
type storeState [StoreKeys]StoreResult

func (s storeState) holds(checks []StoreCheck) bool {
	for _, c := range checks {
		if s[c.Key].Version != c.Version {
			return false
		}
	}
	return true
}

// step judges one transaction at its place in an order.
func (s storeState) step(c *StoreCall) (bool, storeState) {
	taken, ops := s.holds(c.Checks), c.Otherwise
	if taken {
		ops = c.Then
	}
	next := s
	if !c.Answer.Unknown && (taken != c.Answer.Succeeded || len(ops) != len(c.Answer.Results)) {
		return false, s
	}
	for i, op := range ops {
		want := s[op.Key]
		switch op.Verb {
		case StoreGet:
		case StorePut:
			next[op.Key] = StoreResult{s[op.Key].Version + 1, op.Value}
			want = StoreResult{Version: next[op.Key].Version}
		case StoreDelete:
			next[op.Key] = StoreResult{}
			want = StoreResult{Version: min(1, want.Version)}
		}
		if !c.Answer.Unknown && c.Answer.Results[i] != want {
			return false, s
		}
	}
	return true, next
}

var storeModel = porcupine.Model{
	Init: func() any { return storeState{} },
	Step: func(s, in, _ any) (bool, any) {
		ok, next := s.(storeState).step(in.(*StoreCall))
		return ok, next
	},
}

// CheckStore judges every window for itself against a model of the whole store,
// each for at most limit; undecided are the windows for which that was too short.
func CheckStore(calls []*StoreCall, limit time.Duration) (found []Violation, undecided int) {
	windows := map[int][]*StoreCall{}
	for _, c := range calls {
		windows[c.Window] = append(windows[c.Window], c)
	}
	var v violations
	for w, calls := range windows {
		switch porcupine.CheckOperationsTimeout(storeModel, operations(calls, math.MaxInt64), limit) {
		case porcupine.Ok:
		case porcupine.Unknown:
			undecided++
		case porcupine.Illegal:
			v.add("not linearizable", "window %d has no order; it has one without the last answer of\n%s", w, earliest(calls, limit))
		}
	}
	return v.found, undecided
}

// operations are what was seen until a moment: what had no answer then may have
// happened.
func operations(calls []*StoreCall, until int64) (out []porcupine.Operation) {
	for _, c := range calls {
		if c.Call > until {
			continue
		}
		seen, to := *c, c.Return
		if seen.Answer.Unknown || to > until {
			seen.Answer, to = StoreAnswer{Unknown: true}, Forever
		}
		out = append(out, porcupine.Operation{ClientId: c.Client, Input: &seen, Call: c.Call, Return: to})
	}
	return out
}

// earliest is the shortest beginning of a history that has no order.
func earliest(calls []*StoreCall, limit time.Duration) string {
	var ends []int64
	for _, c := range calls {
		if !c.Answer.Unknown {
			ends = append(ends, c.Return)
		}
	}
	slices.Sort(ends)
	at := sort.Search(len(ends), func(i int) bool {
		return porcupine.CheckOperationsTimeout(storeModel, operations(calls, ends[i]), limit) == porcupine.Illegal
	})
	until := ends[min(at, len(ends)-1)]
	var b strings.Builder
	slices.SortFunc(calls, func(a, b *StoreCall) int { return int(min(1, max(-1, a.Call-b.Call))) })
	for _, c := range calls {
		if c.Call <= until {
			fmt.Fprintf(&b, "  %s\n", c.describe(until))
		}
	}
	return b.String()
}

// describe is a call as it was known at a moment.
func (c *StoreCall) describe(until int64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "client %d %s:", c.Client, c.Span)
	for _, check := range c.Checks {
		fmt.Fprintf(&b, " if %d has version %d", check.Key, check.Version)
	}
	list := func(name string, ops []StoreOp) {
		if len(ops) > 0 {
			fmt.Fprintf(&b, " %s", name)
		}
		for _, op := range ops {
			fmt.Fprintf(&b, " %s %d %s", [...]string{"get", "put", "delete"}[op.Verb], op.Key, op.Value)
		}
	}
	list("then", c.Then)
	list("else", c.Otherwise)
	switch {
	case c.Answer.Unknown:
		b.WriteString(" -> unknown")
	case c.Return > until:
		b.WriteString(" -> no answer yet")
	default:
		fmt.Fprintf(&b, " -> succeeded %t %v", c.Answer.Succeeded, c.Answer.Results)
	}
	return b.String()
}
