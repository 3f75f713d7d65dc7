package watch

import (
	"context"
	"testing"
	"time"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// counted runs no goroutines and counts how often is waited.
type counted struct {
	waits int
	until int
	over  func()
}

func (c *counted) Go(func()) {}

func (c *counted) Wait(context.Context, time.Duration, <-chan struct{}) {
	if c.waits++; c.waits == c.until {
		c.over()
	}
}

// nobodys knows a map in which the slots that left a group are still its own.
type nobodys struct {
	Router
	t     *testing.T
	asked int
}

func (r *nobodys) GroupOf(keyspace.SlotID) (keyspace.GroupID, bool) {
	if r.asked++; r.asked > 100 {
		r.t.Fatal("it asks without a pause")
	}
	return 1, true
}

type stoppedClock struct{}

func (stoppedClock) Wall() int64         { return 0 }
func (stoppedClock) Mono() time.Duration { return 0 }

// TestWatchesOfNobodysSlotsWait: looking for the owner of a slot takes a pause
// between two looks.
func TestWatchesOfNobodysSlotsWait(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	tasks := &counted{until: 3, over: func() { cancel(nil) }}
	router := &nobodys{t: t}
	h := &Hub{o: Options{Router: router, Clock: stoppedClock{}}, tasks: tasks}
	src := &source{hub: h, at: 1, ready: make(chan struct{}), index: newIndex(), frontier: 1, owned: format.SlotSet{}}
	close(src.ready)
	s := &Stream{hub: h, ctx: ctx, cancel: cancel, room: make(chan struct{}, 1), catching: true}
	s.behind = []*watch{{stream: s, src: src, pattern: &pattern{single: true}}}
	s.catchUp()
	if router.asked != tasks.until {
		t.Errorf("the map was asked %d times in %d pauses", router.asked, tasks.until)
	}
}
