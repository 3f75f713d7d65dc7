package sim

import (
	"cmp"
	"math"
	"slices"

	"github.com/anishathalye/porcupine"
)

// judge decides whether the operations on one key can be put in an order that
// respects time and in which each answered what the model says. It searches as
// porcupine does, and does not try two things that porcupine tries:
//
// An operation whose answer is known and that changes nothing comes first where
// it can: whatever order begins with others still works when it is taken out of
// its place and put in front. Histories in which many clients read, or are
// refused, at the same time are what is hard to judge otherwise.
//
// A write of unknown outcome that would do nothing is left for later, and what is
// left in the end did not happen.
type judge struct {
	ops   []porcupine.Operation // by the time of their calls
	done  []byte                // a bit for each of ops
	open  int                   // those of known outcome that are not done
	first int                   // all before it are done
	// tried are dead ends, or on the way to one.
	tried map[position]struct{}
}

// mostTried bounds the search for one key, at some 100 MB: writes of unknown
// outcome that overlap, as when a leader is cut off in front of many clients, can
// make it exponentially hard. Tests bound how many histories may stay undecided.
const mostTried = 1 << 20

// position is what the rest of a search depends on.
type position struct {
	done  string
	state state
}

// judgeKey judges the operations on one key.
func judgeKey(ops []porcupine.Operation) porcupine.CheckResult {
	j := &judge{ops: slices.Clone(ops), done: make([]byte, (len(ops)+7)/8), tried: make(map[position]struct{})}
	slices.SortStableFunc(j.ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for i := range j.ops {
		if !j.unknown(i) {
			j.open++
		}
	}
	switch {
	case j.from(state{}):
		return porcupine.Ok
	case len(j.tried) >= mostTried:
		return porcupine.Unknown
	}
	return porcupine.Illegal
}

func (j *judge) isDone(i int) bool  { return j.done[i/8]&(1<<(i%8)) != 0 }
func (j *judge) unknown(i int) bool { return j.ops[i].Output.(output).unknown }

// mark notes that an operation is done, or takes that back.
func (j *judge) mark(i int, done bool) {
	n := 1
	if done {
		n = -1
	}
	if !j.unknown(i) {
		j.open += n
	}
	j.done[i/8] ^= 1 << (i % 8)
}

// next are the operations that may be next: none that is not done ended before
// they began.
func (j *judge) next() []int {
	for j.first < len(j.ops) && j.isDone(j.first) {
		j.first++
	}
	var next []int
	end := int64(math.MaxInt64)
	for i := j.first; i < len(j.ops) && j.ops[i].Call <= end; i++ {
		if !j.isDone(i) {
			next = append(next, i)
			end = min(end, j.ops[i].Return)
		}
	}
	return next
}

func (j *judge) step(s state, i int) (bool, state) {
	ok, next := step(s, j.ops[i].Input.(input), j.ops[i].Output.(output))
	return ok, next.(state)
}

// from reports whether what is not done can follow in a state.
func (j *judge) from(s state) bool {
	var taken []int
	var next []int
	for again := true; again; {
		again = false
		next = j.next()
		for _, i := range next {
			if j.unknown(i) {
				continue
			}
			if ok, after := j.step(s, i); ok && after == s {
				j.mark(i, true)
				taken, again = append(taken, i), true
			}
		}
	}
	if j.open == 0 || j.through(s, next) {
		return true
	}
	for _, i := range taken {
		j.mark(i, false)
		j.first = min(j.first, i)
	}
	return false
}

// through tries what may be next, one after the other.
func (j *judge) through(s state, next []int) bool {
	at := position{string(j.done), s}
	if _, ok := j.tried[at]; ok || len(j.tried) >= mostTried {
		return false
	}
	j.tried[at] = struct{}{}
	for _, i := range next {
		ok, after := j.step(s, i)
		if !ok || after == s {
			continue
		}
		j.mark(i, true)
		if j.from(after) {
			return true
		}
		j.mark(i, false)
		j.first = min(j.first, i)
	}
	return false
}

// linearizable judges key after key.
func linearizable(ops []porcupine.Operation) porcupine.CheckResult {
	result := porcupine.Ok
	for _, key := range model.Partition(ops) {
		switch judgeKey(key) {
		case porcupine.Illegal:
			return porcupine.Illegal
		case porcupine.Unknown:
			result = porcupine.Unknown
		case porcupine.Ok:
		}
	}
	return result
}
