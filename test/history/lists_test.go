package history

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func appendTo(key string, e int32) ListOp       { return ListOp{Key: key, Append: e} }
func readOf(key string, list ...int32) ListOp   { return ListOp{Key: key, Read: list} }
func committed(at int64, ops ...ListOp) ListTxn { return ListTxn{Span: Span{at, at + 5}, Ops: ops} }
func during(s Span, ops ...ListOp) ListTxn      { return ListTxn{Span: s, Ops: ops} }
func unanswered(at int64, ops ...ListOp) ListTxn {
	return ListTxn{Outcome: Unknown, Span: Span{at, Forever}, Ops: ops}
}
func aborted(at int64, ops ...ListOp) ListTxn {
	return ListTxn{Outcome: Aborted, Span: Span{at, at + 5}, Ops: ops}
}

// together is a span that overlaps with all others of its kind.
var together = Span{0, 1000}

// TestListAnomalies: each anomaly is found and named, and what is allowed is not.
func TestListAnomalies(t *testing.T) {
	for _, tc := range []struct {
		name string
		want string // "" for none
		txns []ListTxn
	}{
		{"serial", "", []ListTxn{committed(0, appendTo("x", 1)), committed(10, readOf("x", 1), appendTo("x", 2)), committed(20, readOf("x", 1, 2))}},
		{"concurrent read before or after", "", []ListTxn{during(together, appendTo("x", 1)), during(together, readOf("x")), during(together, readOf("x", 1))}},
		{"dirty write", WriteCycle, []ListTxn{
			during(together, appendTo("x", 1), appendTo("y", 1)), during(together, appendTo("x", 2), appendTo("y", 2)),
			during(together, readOf("x", 1, 2)), during(together, readOf("y", 2, 1)),
		}},
		{"aborted read", AbortedRead, []ListTxn{aborted(0, appendTo("x", 1)), committed(10, readOf("x", 1))}},
		{"aborted and not seen", "", []ListTxn{aborted(0, appendTo("x", 1)), committed(10, readOf("x"))}},
		{"intermediate read", IntermediateRead, []ListTxn{during(together, appendTo("x", 1), appendTo("x", 2)), during(together, readOf("x", 1)), committed(2000, readOf("x", 1, 2))}},
		{"circular information flow", CircularFlow, []ListTxn{
			during(together, appendTo("x", 1), readOf("y", 1)), during(together, appendTo("y", 1), readOf("x", 1)),
		}},
		{"read skew", SingleAntiCycle, []ListTxn{
			during(together, readOf("x"), readOf("y", 1)), during(together, appendTo("x", 1), appendTo("y", 1)), during(together, readOf("x", 1)),
		}},
		{"lost update", SingleAntiCycle, []ListTxn{
			during(together, readOf("x"), appendTo("x", 1)), during(together, readOf("x"), appendTo("x", 2)), during(together, readOf("x", 1, 2)),
		}},
		{"lost update that nobody read", AntiCycle, []ListTxn{during(together, readOf("x"), appendTo("x", 1)), during(together, readOf("x"), appendTo("x", 2))}},
		{"write skew", AntiCycle, []ListTxn{
			during(together, readOf("x"), appendTo("y", 1)), during(together, readOf("y"), appendTo("x", 1)),
			during(together, readOf("x", 1), readOf("y", 1)),
		}},
		{"write order against real time", WriteCycle + realtimeSuffix, []ListTxn{committed(0, appendTo("x", 1)), committed(10, appendTo("x", 2)), committed(20, readOf("x", 2, 1))}},
		{"read of the future", CircularFlow + realtimeSuffix, []ListTxn{committed(0, readOf("x", 1)), committed(10, appendTo("x", 1))}},
		{"stale read", SingleAntiCycle + realtimeSuffix, []ListTxn{committed(0, appendTo("x", 1)), committed(10, readOf("x")), committed(20, readOf("x", 1))}},
		{"lost append", SingleAntiCycle + realtimeSuffix, []ListTxn{committed(0, appendTo("x", 1)), committed(10, readOf("x"))}},
		{"readers disagree about real time", AntiCycle + realtimeSuffix, []ListTxn{
			during(Span{0, 100}, readOf("x"), readOf("y", 1)), during(Span{0, 100}, appendTo("y", 1)),
			during(Span{10, 20}, appendTo("x", 1)), during(Span{30, 40}, readOf("y")),
		}},
		{"incompatible orders", Incompatible, []ListTxn{
			during(together, appendTo("x", 1)), during(together, appendTo("x", 2)), during(together, readOf("x", 1)), during(together, readOf("x", 2)),
		}},
		{"lost and found", Incompatible, []ListTxn{
			during(together, appendTo("x", 1)), during(together, appendTo("x", 2)), during(together, readOf("x", 1, 2)), during(together, readOf("x", 2)),
		}},
		{"appended twice", Duplicate, []ListTxn{committed(0, appendTo("x", 1)), committed(10, readOf("x", 1, 1))}},
		{"from nowhere", Garbage, []ListTxn{committed(0, readOf("x", 7))}},
		{"own append not seen", Internal, []ListTxn{committed(0, appendTo("x", 1), readOf("x"))}},
		{"own append seen", "", []ListTxn{committed(0, appendTo("x", 1), readOf("x", 1), appendTo("x", 2), readOf("x", 1, 2))}},
		{"list changed meanwhile", Internal, []ListTxn{committed(0, readOf("x"), readOf("x", 1)), during(Span{0, 5}, appendTo("x", 1))}},
		{"unknown, never seen", "", []ListTxn{unanswered(0, appendTo("x", 1)), committed(10, readOf("x"))}},
		{"unknown, seen late", "", []ListTxn{unanswered(0, appendTo("x", 1)), committed(10, readOf("x")), committed(20, readOf("x", 1))}},
		{"unknown, seen and gone", SingleAntiCycle + realtimeSuffix, []ListTxn{unanswered(0, appendTo("x", 1)), committed(10, readOf("x", 1)), committed(20, readOf("x"))}},
		{"unknown, half of it happened", SingleAntiCycle, []ListTxn{unanswered(0, appendTo("x", 1), appendTo("y", 1)), committed(10, readOf("x", 1), readOf("y"))}},
		{"unknown, seen by another unknown that was seen", SingleAntiCycle, []ListTxn{
			unanswered(0, appendTo("x", 1), appendTo("z", 1)), unanswered(0, readOf("x", 1), appendTo("y", 1)), committed(10, readOf("y", 1), readOf("z")),
		}},
		{"unknown, not before it began", CircularFlow + realtimeSuffix, []ListTxn{committed(0, readOf("x", 1)), unanswered(10, appendTo("x", 1))}},
	} {
		found := CheckLists(tc.txns)
		switch {
		case tc.want == "" && len(found) > 0:
			t.Errorf("%s: found in what is allowed: %s", tc.name, Report(found))
		case tc.want != "" && (len(found) == 0 || found[0].Kind != tc.want):
			t.Errorf("%s: want %s, found %s", tc.name, tc.want, Report(found))
		}
	}
}

// TestCounterexample: it names the transactions and why each comes before the next.
func TestCounterexample(t *testing.T) {
	found := CheckLists([]ListTxn{
		committed(0, appendTo("x", 1)), committed(10, readOf("x", 1), appendTo("x", 2)), committed(20, readOf("x", 1)), committed(30, readOf("x", 1, 2)),
	})
	want := `G-single-realtime: 2 transactions, each of which must come before the next, and the last before the first
  T2 of client 0, committed, [20ns, 25ns]: read x [1]
  T1 of client 0, committed, [10ns, 15ns]: read x [1], append x 2
  T2 before T1: T2 read x up to the element before T1's 2
  T1 before T2: T1 had ended when T2 began
`
	if got := Report(found); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}

// TestSerialLists: what a serial store answers to overlapping clients has no
// anomaly, whatever is lost.
func TestSerialLists(t *testing.T) {
	for seed := range uint64(20) {
		txns := optimistic{seed: seed, txns: 1000, validate: true}.run()
		if found := CheckLists(txns); len(found) > 0 {
			t.Fatalf("seed %d: %s", seed, Report(found))
		}
	}
}

// TestUnvalidatedReads: a store that forgets to compare what was only read has
// write skew, and one that also reads at different moments has read skew.
func TestUnvalidatedReads(t *testing.T) {
	for seed := range uint64(5) {
		txns := optimistic{seed: seed, txns: 1000}.run()
		if found := CheckLists(txns); len(found) == 0 {
			t.Errorf("seed %d: nothing was found", seed)
		}
	}
}

// TestOneMistakeAmongMany: one answer of a long history is changed.
func TestOneMistakeAmongMany(t *testing.T) {
	for seed := range uint64(10) {
		txns := optimistic{seed: seed, txns: 2000, validate: true}.run()
		r := rand.New(rand.NewPCG(seed, 2))
		var at []int // read-only transactions that saw something
		for i, tx := range txns {
			if tx.Outcome == Committed && i > 100 && len(tx.Ops[0].Read) > 2 && !slices.ContainsFunc(tx.Ops, func(o ListOp) bool { return o.Append != 0 }) {
				at = append(at, i)
			}
		}
		op := &txns[at[r.IntN(len(at))]].Ops[0]
		op.Read = op.Read[:len(op.Read)/3] // long ago
		found := CheckLists(txns)
		if len(found) != 1 || strings.Count(found[0].Text, "\n") > 12 {
			t.Errorf("seed %d: a read of the past is\n%s", seed, Report(found))
		}
	}
}

// TestManyLists: 100,000 transactions take seconds at most.
func TestManyLists(t *testing.T) {
	txns := optimistic{seed: 1, txns: 100_000, validate: true}.run()
	began := time.Now()
	if found := CheckLists(txns); len(found) > 0 {
		t.Error(Report(found))
	}
	t.Logf("%d transactions in %v", len(txns), time.Since(began).Round(time.Millisecond))
}

// optimistic makes the history of a store that compares at the commit what
// transactions have read, all of it with validate and only what they write
// without. Clients overlap.
type optimistic struct {
	seed     uint64
	txns     int
	validate bool
}

const (
	serialClients = 16
	serialKeys    = 8
	serialLength  = 24 // of a list, before its key is left
)

type optimisticClient struct {
	next   int64 // when it does the next step
	txn    *ListTxn
	commit bool
}

func (o optimistic) run() (out []ListTxn) {
	r := rand.New(rand.NewPCG(o.seed, 1))
	store, element := map[string][]int32{}, map[string]int32{}
	names := make([]int, serialKeys)
	clients := make([]optimisticClient, serialClients)
	for len(out) < o.txns {
		at := 0
		for i := range clients {
			if clients[i].next < clients[at].next {
				at = i
			}
		}
		c := &clients[at]
		now := c.next
		c.next += 1 + r.Int64N(1000)
		switch {
		case c.txn == nil:
			c.txn, c.commit = &ListTxn{Client: at, Span: Span{Call: now}}, false
		case !c.commit: // reads, at one moment
			for _, k := range r.Perm(serialKeys)[:1+r.IntN(4)] {
				key := fmt.Sprintf("%c%d", 'a'+k, names[k])
				c.txn.Ops = append(c.txn.Ops, ListOp{Key: key, Read: slices.Clone(store[key])})
				if r.IntN(2) == 0 {
					element[key]++
					c.txn.Ops = append(c.txn.Ops, appendTo(key, element[key]))
				}
				if len(store[key]) > serialLength {
					names[k]++
				}
			}
			c.commit = true
		default:
			out = append(out, o.end(c, now, store, r))
			c.txn = nil
			c.next++
		}
	}
	return out
}

// end commits, refuses, or loses a transaction's answer.
func (o optimistic) end(c *optimisticClient, now int64, store map[string][]int32, r *rand.Rand) ListTxn {
	t := c.txn
	t.Return = now + r.Int64N(300)
	c.next = t.Return + 1
	for i, op := range t.Ops {
		writes := i+1 < len(t.Ops) && t.Ops[i+1].Append != 0
		if op.Append == 0 && (writes || o.validate) && !slices.Equal(op.Read, store[op.Key]) {
			t.Outcome = Aborted
		}
	}
	lost := r.IntN(20) == 0
	if lost && t.Outcome == Committed && r.IntN(2) == 0 { // it happens
		o.apply(t, store)
	}
	if lost {
		t.Outcome, t.Return = Unknown, Forever
	}
	if t.Outcome == Committed {
		o.apply(t, store)
	}
	return *t
}

func (o optimistic) apply(t *ListTxn, store map[string][]int32) {
	for _, op := range t.Ops {
		if op.Append != 0 {
			store[op.Key] = append(slices.Clip(store[op.Key]), op.Append)
		}
	}
}
