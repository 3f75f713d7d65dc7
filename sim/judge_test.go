package sim

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/anishathalye/porcupine"
)

// drawHistory runs operations on one key in an order, each within its time, and
// maybe changes what one of them answered.
func drawHistory(rng *rand.Rand) []porcupine.Operation {
	type drawn struct {
		at int64
		op porcupine.Operation
	}
	var all []drawn
	for n := range 2 + rng.IntN(9) {
		at := rng.Int64N(60)
		in := input{key: "k", kind: kind(rng.IntN(int(opLedger))), value: fmt.Sprint("v", n), version: rng.Uint64N(3)}
		all = append(all, drawn{at, porcupine.Operation{ClientId: n, Input: in, Call: at - rng.Int64N(20), Return: at + rng.Int64N(20)}})
	}
	slices.SortFunc(all, func(a, b drawn) int { return int(a.at - b.at) })
	var s state
	var ops []porcupine.Operation
	for _, d := range all {
		in := d.op.Input.(input)
		out := output{exists: s.exists, value: s.value, version: s.version}
		if in.kind != opGet {
			next, happens := apply(s, in)
			switch {
			case rng.IntN(3) == 0:
				d.op.Return = math.MaxInt64
				if out = (output{unknown: true}); rng.IntN(2) == 0 {
					next = s
				}
			case !happens:
				out.refused = true
			default:
				out = output{version: next.version}
			}
			s = next
		}
		d.op.Output = out
		ops = append(ops, d.op)
	}
	if i := rng.IntN(len(ops)); rng.IntN(2) == 0 && !ops[i].Output.(output).unknown {
		out := ops[i].Output.(output)
		switch rng.IntN(3) {
		case 0:
			out.version++
		case 1:
			out.refused = !out.refused
		default:
			out.exists, out.value = !out.exists, "v0"
		}
		ops[i].Output = out
	}
	return ops
}

// TestJudge: what is judged here is judged as porcupine does.
func TestJudge(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var verdicts = map[porcupine.CheckResult]int{}
	for range 20_000 {
		ops := drawHistory(rng)
		got, want := linearizable(ops), porcupine.CheckOperationsTimeout(model, ops, 0)
		if got != want {
			t.Fatalf("%v, porcupine says %v:\n%s", got, want, described(ops))
		}
		verdicts[got]++
	}
	if verdicts[porcupine.Ok] < 2000 || verdicts[porcupine.Illegal] < 2000 {
		t.Errorf("verdicts: %v", verdicts)
	}
}

// described is one operation a line.
func described(ops []porcupine.Operation) (text string) {
	for _, op := range ops {
		text += fmt.Sprintf("%d to %d: %+v -> %+v\n", op.Call, op.Return, op.Input, op.Output)
	}
	return text
}
