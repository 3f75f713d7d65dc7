package sim

import (
	"errors"
	"iter"
	"time"
)

// errStopped is what a task finds when its node has crashed.
var errStopped = errors.New("the node is down")

// errLost is what a task finds when an answer did not come.
var errLost = errors.New("no answer")

// task runs code that waits, such as the mover's, on the simulation's one thread:
// as a coroutine that is left whenever it waits for something, and resumed by an
// event. Tasks belong to one life of a node.
type task struct {
	w     *World
	yield func(start func(resume func())) bool
	ended bool
}

// spawn runs f until it waits for the first time, and goes on from there by
// events. The returned function ends it: from then on all waiting fails.
func (w *World) spawn(f func(t *task)) (stop func()) {
	t := &task{w: w}
	next, end := iter.Pull(func(yield func(func(func())) bool) {
		t.yield = yield
		f(t)
	})
	var run func()
	run = func() {
		if t.ended {
			return
		}
		if start, ok := next(); ok {
			start(run)
			return
		}
		t.ended = true
	}
	run()
	return func() {
		if !t.ended {
			t.ended = true
			end()
		}
	}
}

// await starts something and returns once it called done, or after a time.
// Whichever comes first counts.
func (t *task) await(limit time.Duration, start func(done func())) error {
	if t.ended {
		return errStopped
	}
	lost := false
	alive := t.yield(func(resume func()) {
		over := false
		once := func(late bool) func() {
			return func() {
				if over {
					return
				}
				over, lost = true, late
				t.w.after(0, resume) // never from within the host's loop
			}
		}
		t.w.after(limit, once(true))
		start(once(false))
	})
	switch {
	case !alive:
		t.ended = true
		return errStopped
	case lost:
		return errLost
	}
	return nil
}
