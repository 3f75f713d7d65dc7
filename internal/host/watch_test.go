package host

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"kvstore/internal/env/simfs"
	"kvstore/internal/fault"
)

// While the loop waits, as it does for the disk where a segment of the log is left
// or read, what did not reach it is refused, and the
// node does not name itself as the leader.
func TestBlockedLoopRefuses(t *testing.T) {
	c := newCluster(t, 1, 1)
	n := c.nodes[0]
	h := n.host
	c.settle()
	gate, entered := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(gate) })
	reached := sync.OnceFunc(func() { close(entered) })
	n.disk.Before(func(op simfs.Op) error {
		if op.Kind == simfs.OpWrite {
			reached()
			<-gate
		}
		return nil
	})
	t.Cleanup(release)
	n.host = nil // the loop is its own now
	h.Start(t.Context())
	await := func(what string, done func() bool) {
		t.Helper()
		for end := time.Now().Add(20 * time.Second); !done(); runtime.Gosched() {
			if time.Now().After(end) {
				t.Fatalf("not in time: %s", what)
			}
		}
	}
	caller := &node{c: c, host: h}
	begun, begunAnswers := caller.submit(testOp("k", "v"))
	<-entered // beside the loop
	blocked := make(chan struct{})
	h.control(func() {
		close(blocked)
		<-gate
	})
	<-blocked
	early, earlyAnswers := caller.submit(testOp("k", "w"))
	readErr := make(chan error, 2)
	h.ReadIndex(context.Background(), testGroup, func(_ ReadPoint, err error) { readErr <- err })
	c.elapsed.Add(int64(2 * time.Second))
	await("the write that waits is refused", func() bool { return earlyAnswers.Load() > 0 })
	mustBe(t, early.Err, fault.Unavailable)
	mustBe(t, <-readErr, fault.Unavailable)
	late, lateAnswers := caller.submit(testOp("k", "x"))
	if lateAnswers.Load() == 0 {
		t.Fatal("a later write waits")
	}
	mustBe(t, late.Err, fault.Unavailable)
	if _, _, known := h.Leader(testGroup); known {
		t.Error("it knows the leader")
	}
	if begunAnswers.Load() != 0 {
		t.Error("the write that was begun is answered")
	}
	release()
	await("the write that was begun is answered", func() bool { return begunAnswers.Load() > 0 })
	if begun.Err != nil {
		t.Error(begun.Err)
	}
	await("it is known who leads", func() bool { _, _, known := h.Leader(testGroup); return known })
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
}
