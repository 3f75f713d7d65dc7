package router

import (
	"context"
	"testing"
	"time"
)

// TestDoAllocations bounds what one operation costs in a frame of its own, the
// fake host's share (about 5) included.
func TestDoAllocations(t *testing.T) {
	h := newHost("a")
	r, err := New(Options{Node: "a", Host: h, Peers: &fakePeers{}, Directory: &fakeDirectory{m: testMap()}, Clock: newClock(), Rand: &countRand{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	put, get := putCall("", "key", "value"), getCall("", "key")
	if n := testing.AllocsPerRun(200, func() { h.submits = h.submits[:0]; r.Do(ctx, put) }); n > 10 {
		t.Errorf("put: %v allocations, want at most 10", n)
	}
	if n := testing.AllocsPerRun(200, func() { h.reads = h.reads[:0]; r.Do(ctx, get) }); n > 13 {
		t.Errorf("get: %v allocations, want at most 13", n)
	}
	// The answer's bytes are written where other answers copy the value.
	get.Encoded = true
	if n := testing.AllocsPerRun(200, func() { h.reads = h.reads[:0]; r.Do(ctx, get) }); n > 17 {
		t.Errorf("encoded get: %v allocations, want at most 17", n)
	}
}

// TestTransactionAllocations bounds what a transaction of 5 puts under a request id
// costs, its record included, and what a participant's prepare does. The race detector
// has pools lose some of what they hold.
func TestTransactionAllocations(t *testing.T) {
	r := benchRouter(t)
	txn, prepare := namedTransaction(r), prepareOfOne()
	if n := testing.AllocsPerRun(200, func() { r.Do(t.Context(), txn) }); n > 20 {
		t.Errorf("transaction: %v allocations, want at most 20", n)
	}
	if n := testing.AllocsPerRun(200, func() { r.Do(t.Context(), prepare) }); n > 13 {
		t.Errorf("prepare: %v allocations, want at most 13", n)
	}
}
