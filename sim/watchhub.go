package sim

import (
	"context"
	"iter"
	"time"

	"kvstore/internal/router"
	"kvstore/internal/watch"
)

// watchHub runs the real hub of internal/watch for one life of a node. What are
// goroutines there are coroutines here: each is left where it waits and looked at
// again whenever something may have happened on the node. So one thread runs them
// all, in an order that follows from the seed.
//
// It is the hub's tasks, its router and its host.
type watchHub struct {
	watch.Host
	n       *node
	life    int
	hub     *watch.Hub
	known   *router.Map
	tasks   []*hubTask
	current *hubTask
	// looks counts the times at which all tasks were looked at: those that read the
	// hub's streams look once each time, after all others.
	looks   int
	kicked  bool
	serving []*peerStream
}

// hubTask is one coroutine.
type hubTask struct {
	ready func() bool // what it waits for
	yield func(ready func() bool) bool
	next  func() (ready func() bool, ok bool)
	end   func()
	over  bool
}

// Bounds of a hub that make watches fall behind now and then.
const (
	simStreamBytes   = 4 << 10
	simRecentBytes   = 8 << 10
	simFeedBytes     = 16 << 10
	simProgressEvery = 500 * time.Millisecond
)

// startHub serves watches on a node that has booted.
func (n *node) startHub() {
	if n.w.cfg.Watchers == 0 || n.host == nil || n.witness() {
		return
	}
	h := &watchHub{Host: watch.FromHost(n.host), n: n, life: n.life}
	hub, err := watch.New(watch.Options{Host: h, Router: h, Peers: h, Clock: n, Tasks: h, Bugs: n.w.cfg.Bugs,
		StreamBytes: simStreamBytes, RecentBytes: simRecentBytes, ProgressEvery: simProgressEvery})
	if err != nil {
		n.w.problem("node %d: watches: %v", n.index, err)
		return
	}
	h.hub, n.hub = hub, h
	hub.Start()
	n.tasks = append(n.tasks, h.stop)
}

// stop ends the tasks with the node.
func (h *watchHub) stop() {
	h.n.hub = nil
	_ = h.hub.Close() // the tasks find their contexts ended
	for _, t := range h.tasks {
		if !t.over {
			t.over = true
			h.current = t
			t.end()
		}
	}
	h.tasks, h.current = nil, nil
}

// kick has the tasks looked at shortly.
func (h *watchHub) kick() {
	if h.kicked {
		return
	}
	h.kicked = true
	h.n.w.after(h.n.w.between(20*time.Microsecond, 2*time.Millisecond), func() {
		h.n.whenAwake(h.life, func() {
			h.kicked = false
			h.run()
		})
	})
}

// run lets tasks go on until all of them wait.
func (h *watchHub) run() {
	const most = 20
	h.endBroken()
	for range most {
		if !h.pass() {
			h.looks++
			h.pass()
			return
		}
	}
	h.kick()
}

func (h *watchHub) pass() (progress bool) {
	for i := 0; i < len(h.tasks); i++ { // they become more
		t := h.tasks[i]
		if t.ready == nil || !t.ready() {
			continue
		}
		progress = true
		before := h.current
		h.current = t
		if t.ready, _ = t.next(); t.ready == nil {
			t.over = true
		}
		h.current = before
	}
	live := h.tasks[:0]
	for _, t := range h.tasks {
		if !t.over {
			live = append(live, t)
		}
	}
	clear(h.tasks[len(live):])
	h.tasks = live
	return progress
}

// Go implements watch.Tasks.
func (h *watchHub) Go(f func()) {
	t := &hubTask{ready: func() bool { return true }}
	t.next, t.end = iter.Pull(func(yield func(func() bool) bool) {
		t.yield = yield
		f()
	})
	h.tasks = append(h.tasks, t)
	h.kick()
}

// until leaves the running task until it may go on; false when the node is gone.
func (h *watchHub) until(ready func() bool) bool {
	t := h.current
	if !t.over && !t.yield(ready) {
		t.over = true
	}
	return !t.over
}

// Wait implements watch.Tasks.
func (h *watchHub) Wait(ctx context.Context, d time.Duration, signal <-chan struct{}) {
	until := h.n.w.now + d
	if d > 0 {
		h.n.w.after(d, h.kick)
	}
	h.until(func() bool {
		select {
		case <-signal:
			return true
		default:
			return ctx.Err() != nil || d > 0 && h.n.w.now >= until
		}
	})
}

// await starts something and returns once it called done, or after a time.
func (h *watchHub) await(limit time.Duration, start func(done func())) error {
	over, until := false, h.n.w.now+limit
	h.n.w.after(limit, h.kick)
	start(func() {
		over = true
		h.kick()
	})
	switch {
	case !h.until(func() bool { return over || h.n.w.now >= until }):
		return errStopped
	case !over:
		return errLost
	}
	return nil
}
