package sim

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
)

// kind of a recorded operation on one key.
type kind uint8

const (
	opPut kind = iota
	opCreate
	opCAS
	opDelete
	opGet
	opTransfer
	opLedger
)

// input and output are what porcupine sees of one operation on one key.
type input struct {
	key     string
	kind    kind
	value   string
	version uint64 // expected by opCAS and opTransfer
	move    *move  // of opLedger
}

type output struct {
	unknown bool
	refused bool // condition failed, or nothing to delete
	exists  bool
	value   string
	version uint64
	// saw is what opLedger saw; untold that it is not known.
	saw    ledger
	untold bool
}

// state of one key in the model, or of the ledger.
type state struct {
	exists   bool
	value    string
	version  uint64
	accounts ledger
}

// history collects what clients saw.
type history struct {
	ops      []porcupine.Operation
	finished int
	started  int
	values   int
	// versions each client last saw, by client and key.
	versions map[string]uint64
	// open are writes without an answer so far.
	open []*openWrite
	// lists are what was done to the keys of lists, openLists the puts of them.
	lists     []porcupine.Operation
	openLists []*listOp
}

// openWrite is a write under way: when the run ends before its answer, it may
// have happened.
type openWrite struct {
	client int
	ins    []input
	call   time.Duration
	done   bool
}

// closeOpen records what was never answered.
func (h *history) closeOpen() {
	for _, o := range h.open {
		for _, in := range o.ins {
			if !o.done {
				h.add(o.client, in, output{unknown: true}, o.call, 0)
			}
		}
	}
	h.open = nil
}

// begin notes a write; what is done is forgotten now and then.
func (h *history) begin(client int, ins []input, call time.Duration) *openWrite {
	const keep = 256
	if len(h.open) >= keep {
		h.open = slices.DeleteFunc(h.open, func(o *openWrite) bool { return o.done })
	}
	o := &openWrite{client: client, ins: ins, call: call}
	h.open = append(h.open, o)
	return o
}

func (h *history) init() { h.versions = make(map[string]uint64) }

func (h *history) add(client int, in input, out output, call, ret time.Duration) {
	end := int64(ret)
	if out.unknown {
		end = math.MaxInt64
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: int64(call), Return: end})
}

// model is a register per key with versions and conditions.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := make(map[string][]porcupine.Operation)
		for _, op := range history {
			key := op.Input.(input).key
			byKey[key] = append(byKey[key], op)
		}
		keys := make([]string, 0, len(byKey))
		for key := range byKey {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		var out [][]porcupine.Operation
		for _, key := range keys {
			out = append(out, byKey[key])
		}
		return out
	},
	Init:  func() any { return state{} },
	Step:  func(s, in, out any) (bool, any) { return step(s.(state), in.(input), out.(output)) },
	Equal: func(a, b any) bool { return a == b },
	DescribeOperation: func(in, out any) string {
		return fmt.Sprintf("%+v -> %+v", in, out)
	},
}

func step(s state, in input, out output) (bool, any) {
	if in.kind == opLedger {
		return stepLedger(s, in.move, out)
	}
	if in.kind == opGet {
		ok := out.exists == s.exists && (!s.exists || (out.value == s.value && out.version == s.version))
		return ok, s
	}
	next, happens := apply(s, in)
	if out.unknown {
		return true, next
	}
	if out.refused {
		// A transfer that does not happen tells what is there.
		told := in.kind != opTransfer || out.exists == s.exists && out.value == s.value && out.version == s.version
		return !happens && told, s
	}
	return happens && (in.kind == opDelete || out.version == next.version), next
}

// apply is what an operation does to a key, and whether it does anything.
func apply(s state, in input) (state, bool) {
	written := state{exists: true, value: in.value, version: 1}
	if s.exists {
		written.version = s.version + 1
	}
	switch in.kind {
	case opCreate:
		if s.exists {
			return s, false
		}
	case opCAS:
		if !s.exists || s.version != in.version {
			return s, false
		}
	case opTransfer: // 0 expects that nothing is there
		if s.version != in.version {
			return s, false
		}
	case opDelete:
		return state{}, s.exists
	default: // a put has no condition
	}
	return written, true
}

// check judges the history and the replicas.
func (w *World) check() {
	if len(w.problems) > 0 {
		return
	}
	w.resolve()
	w.history.closeOpen()
	switch linearizable(w.history.ops) {
	case porcupine.Ok:
	case porcupine.Illegal:
		w.problem("history is not linearizable (%d operations)", len(w.history.ops))
	case porcupine.Unknown:
		w.stats.Undecided++
	}
	w.checkLists()
	w.checkReplicas()
}
