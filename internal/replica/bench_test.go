package replica

import (
	"fmt"
	"testing"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// benchEvaluate evaluates what waits again and again: raft drops every entry.
func benchEvaluate(b *testing.B, r *rig) {
	b.Helper()
	b.ReportAllocs()
	for b.Loop() {
		if r.core.Evaluate(r.now).Payload == nil {
			b.Fatal("nothing was written")
		}
		r.core.Dropped()
	}
}

func benchPuts() (ops []Op) {
	for i := range 5 {
		ops = append(ops, put(fmt.Sprint("some/longer/key/", i), string(make([]byte, 100))))
	}
	return ops
}

// A transaction of puts under a request id, with what is kept of it.
func BenchmarkEvaluateTransaction(b *testing.B) {
	r := newRig(b)
	r.elect()
	kept := make([]byte, 200)
	a := r.once(aTxn(1).ID, &TxnOp{Then: benchPuts()})
	a.req.Encode = func(*Request) []byte { return kept }
	benchEvaluate(b, r)
}

// Many puts of their own share an entry.
func BenchmarkEvaluatePuts(b *testing.B) {
	r := newRig(b)
	r.core.cfg.MaxQueueOps = 1000
	r.elect()
	for i := range 64 {
		r.submit(put(fmt.Sprint("some/longer/key/", i), string(make([]byte, 100))))
	}
	benchEvaluate(b, r)
}

// A participant of a transaction prepares a put.
func BenchmarkEvaluatePrepare(b *testing.B) {
	r := newRig(b)
	r.elect()
	r.prepareTxn(aTxn(1), TxnOp{Then: benchPuts()[:1]})
	benchEvaluate(b, r)
}

// An entry prepares a transaction and another one ends it, beside others that stay.
func BenchmarkApplyTransactions(b *testing.B) {
	r := newRig(b)
	var others format.Entry
	for i := range uint64(64) {
		others.Prepared = append(others.Prepared, &format.Prepared{Key: aTxn(2 * i)})
	}
	r.core.applyTxns(&others, 2)
	p := &format.Prepared{Key: aTxn(63)}
	prepare, end := format.Entry{Prepared: []*format.Prepared{p}}, format.Entry{Ended: []keyspace.TxnKey{p.Key}}
	b.ReportAllocs()
	for b.Loop() {
		r.core.applyTxns(&prepare, 3)
		r.core.applyTxns(&end, 4)
	}
}

// A transaction of puts is evaluated with few allocations, and keeps nothing of what
// it has seen.
func TestEvaluationAllocations(t *testing.T) {
	r := newRig(t)
	r.elect()
	kept := make([]byte, 200)
	r.once(aTxn(1).ID, &TxnOp{Then: benchPuts()}).req.Encode = func(*Request) []byte { return kept }
	n := testing.AllocsPerRun(100, func() {
		r.core.Evaluate(r.now)
		r.core.Dropped()
	})
	if n > 20 { // 17 without the race detector
		t.Errorf("%v allocations, want at most 20", n)
	}
	for _, cur := range r.core.seen[:cap(r.core.seen)] {
		if cur.fetch != nil || cur.value != nil {
			t.Fatalf("kept %+v", cur)
		}
	}
}
