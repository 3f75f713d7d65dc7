package router

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/internal/deadline"
	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// frame is a set of calls on their way. Everything that may block or wait (a
// read of the engine, a backoff, a read of the directory) is an event in ready
// and runs on the one goroutine that drives the frame: the caller's own in Do,
// one of drivers, and only while there are events, in Execute.
type frame struct {
	r      *Router
	ctx    context.Context
	done   func(*Call)
	states []callState
	// open counts the calls that were not answered, and begin itself.
	open atomic.Int32
	// async frames have no goroutine of their own while nothing is ready.
	async bool
	// own frames hold orders of this node.
	own bool
	// wake has room for one signal to the waiting driver.
	wake chan struct{}

	mu      sync.Mutex
	ready   []event // guarded by mu
	delayed []*part // guarded by mu
	// misrouted were refused by a group that does not own their slots; guarded by mu.
	misrouted []*part
	driving   bool // guarded by mu; async only
}

// event is one thing for the driver to do.
type event func(f *frame)

// answer reports a call whose parts are all answered.
func (f *frame) answer(st *callState) {
	f.done(st.asked())
	f.r.inflight.Add(-1)
	f.release()
}

// release gives up one hold of the frame.
func (f *frame) release() {
	switch left := f.open.Add(-1); {
	case left > 0:
	case left == 0:
		f.r.wg.Done()
		f.signal()
	default:
		panic(fmt.Sprintf("router: frame of %d calls was answered %d times too often", len(f.states), -left))
	}
}

func (f *frame) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// push makes e run on the driver.
func (f *frame) push(e event) {
	f.mu.Lock()
	f.ready = append(f.ready, e)
	start := f.startLocked()
	f.mu.Unlock()
	f.run(start)
}

// delay makes p dispatch again when it is due.
func (f *frame) delay(p *part) {
	f.mu.Lock()
	f.delayed = append(f.delayed, p)
	start := f.startLocked()
	f.mu.Unlock()
	f.run(start)
}

// startLocked reports whether the caller has to start a driver.
func (f *frame) startLocked() bool {
	if !f.async || f.driving {
		return false
	}
	f.driving = true
	return true
}

// run starts a driver, or wakes the one that is there. The frame is open, so
// the router's Close waits for the goroutine's work.
func (f *frame) run(start bool) {
	if start {
		f.r.wg.Add(1)
		f.r.drivers.start(f)
		return
	}
	f.signal()
}

// drive runs events until none is left (async) or all calls are answered.
func (f *frame) drive() {
	for {
		events, due, wait, more := f.next()
		if !more {
			return
		}
		for _, e := range events {
			e(f)
		}
		if len(due) > 0 {
			f.dispatch(due)
		}
		if len(events) == 0 && len(due) == 0 {
			f.await(wait)
		}
	}
}

// next takes what is ready. wait is the time to the next delayed part, 0 for
// none; more is false when this driver ends.
func (f *frame) next() (events []event, due []*part, wait time.Duration, more bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open.Load() == 0 {
		f.driving = false
		return nil, nil, 0, false
	}
	events, f.ready = f.ready, nil
	if len(f.delayed) > 0 {
		now := f.r.o.Clock.Mono()
		kept := f.delayed[:0]
		for _, p := range f.delayed {
			switch left := p.due - now; {
			case left <= 0:
				due = append(due, p)
			default:
				kept = append(kept, p)
				if wait == 0 || left < wait {
					wait = left
				}
			}
		}
		clear(f.delayed[len(kept):])
		f.delayed = kept
	}
	if f.async && len(events) == 0 && len(due) == 0 && len(f.delayed) == 0 {
		f.driving = false
		return nil, nil, 0, false
	}
	return events, due, wait, true
}

// await blocks until a signal or for the given time.
func (f *frame) await(wait time.Duration) {
	if wait == 0 {
		<-f.wake
		return
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-f.wake:
	case <-timer.C:
	}
}

// unresolved plans a call again once the directory was read again.
func (f *frame) unresolved(st *callState) {
	f.push(func(f *frame) {
		ctx, cancel := f.within(st.deadline)
		err := f.r.o.Directory.Refresh(ctx)
		cancel()
		if err != nil {
			f.refuse(st, err)
			return
		}
		ready, err := f.plan(st)
		switch {
		case err != nil:
			f.refuse(st, err)
		case !ready:
			f.refuse(st, f.r.missing(st.nsName))
		default:
			f.dispatch(st.parts)
		}
	})
}

// within returns the frame's context with a deadline on env.Clock.Mono.
func (f *frame) within(until time.Duration) (context.Context, context.CancelFunc) {
	return deadline.WithTimeout(f.ctx, until-f.r.o.Clock.Mono())
}

// errCrossGroup names the groups of an atomic batch or a transaction.
func errCrossGroup(groups []keyspace.GroupID) error {
	const named = 16
	var b strings.Builder
	for i, g := range groups[:min(len(groups), named)] {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, g)
	}
	if len(groups) > named {
		b.WriteString(",...")
	}
	return fault.New(fault.CrossGroup,
		"the cluster's own namespace takes part in no transaction over several groups",
		"namespace", keyspace.SystemNamespaceName, "groups", b.String())
}
