package guard

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"kvstore/internal/fault"
)

// limiter bounds operations and bytes in progress. What does not fit waits in
// a queue of bounded length and time, first come first served: a large request
// at the head is not overtaken by small ones for ever.
type limiter struct {
	name     string
	maxOps   int
	maxBytes int64 // 0 means no limit
	maxQueue int
	maxWait  time.Duration

	mu    sync.Mutex
	ops   int       // guarded by mu, >= 0
	bytes int64     // guarded by mu, >= 0
	queue list.List // of *waiter, guarded by mu
}

// waiter is closed when its amounts have been taken for it.
type waiter struct {
	ops   int
	bytes int64
	ready chan struct{}
}

func newLimiter(name string, maxOps int, maxBytes int64, maxQueue int, maxWait time.Duration) *limiter {
	return &limiter{name: name, maxOps: maxOps, maxBytes: maxBytes, maxQueue: maxQueue, maxWait: maxWait}
}

func (l *limiter) load() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ops * 100 / l.maxOps
}

// clamp lets a request that is larger than the limit run alone.
func (l *limiter) clamp(ops int, bytes int64) (int, int64) {
	if l.maxBytes == 0 {
		return min(ops, l.maxOps), 0
	}
	return min(ops, l.maxOps), min(bytes, l.maxBytes)
}

func (l *limiter) acquire(ctx context.Context, ops int, bytes int64) error {
	ops, bytes = l.clamp(ops, bytes)
	l.mu.Lock()
	if l.queue.Len() == 0 && l.fits(ops, bytes) {
		l.take(ops, bytes)
		l.mu.Unlock()
		return nil
	}
	if l.queue.Len() >= l.maxQueue {
		err := l.overloaded()
		l.mu.Unlock()
		return err
	}
	w := &waiter{ops: ops, bytes: bytes, ready: make(chan struct{})}
	place := l.queue.PushBack(w)
	l.mu.Unlock()
	return l.wait(ctx, w, place)
}

func (l *limiter) wait(ctx context.Context, w *waiter, place *list.Element) error {
	timer := time.NewTimer(l.maxWait)
	defer timer.Stop()
	select {
	case <-w.ready:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-w.ready:
		return nil // it was given just now
	default:
	}
	l.queue.Remove(place)
	l.admit() // a smaller one behind may fit
	if errors.Is(ctx.Err(), context.Canceled) {
		return fault.New(fault.Canceled, "the caller went away")
	}
	return l.overloaded()
}

// overloaded says which limit is reached; mu must be held.
func (l *limiter) overloaded() error {
	if l.maxBytes > 0 && l.ops < l.maxOps {
		return fault.New(fault.Overloaded, "too many bytes of "+l.name+" are in progress",
			"limit_bytes", l.maxBytes, "actual_bytes", l.bytes).WithRetry(retryHint)
	}
	return fault.New(fault.Overloaded, "too many "+l.name+" are in progress",
		"limit", l.maxOps, "actual", l.ops).WithRetry(retryHint)
}

func (l *limiter) release(ops int, bytes int64) {
	ops, bytes = l.clamp(ops, bytes)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops -= ops
	l.bytes -= bytes
	if l.ops < 0 || l.bytes < 0 {
		panic("guard: released more than was acquired: " + l.name)
	}
	l.admit()
}

// admit gives way to the head of the queue as long as it fits; mu must be held.
func (l *limiter) admit() {
	for front := l.queue.Front(); front != nil; front = l.queue.Front() {
		w := front.Value.(*waiter)
		if !l.fits(w.ops, w.bytes) {
			return
		}
		l.queue.Remove(front)
		l.take(w.ops, w.bytes)
		close(w.ready)
	}
}

func (l *limiter) fits(ops int, bytes int64) bool {
	return l.ops+ops <= l.maxOps && (l.maxBytes == 0 || l.bytes+bytes <= l.maxBytes)
}

func (l *limiter) take(ops int, bytes int64) {
	l.ops += ops
	l.bytes += bytes
}

// sampler lets a few log lines through per second.
type sampler struct {
	perSecond int
	mu        sync.Mutex
	second    int64 // guarded by mu
	count     int   // guarded by mu
}

func (s *sampler) take(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if second := now.Unix(); second != s.second {
		s.second, s.count = second, 0
	}
	s.count++
	return s.count <= s.perSecond
}
