package watch

import (
	"context"
	"sync"
	"time"
)

// Tasks runs what a hub does beside its callers, and waits for it. Outside of the
// simulation they are goroutines; the simulation runs everything on one thread, and
// leaves a task wherever it waits.
type Tasks interface {
	// Go runs f beside the caller.
	Go(f func())
	// Wait returns when signal has something, which it takes, when d has passed,
	// unless it is 0, or when ctx ends.
	Wait(ctx context.Context, d time.Duration, signal <-chan struct{})
}

type goroutines struct {
	wg     sync.WaitGroup
	timers sync.Pool
}

func (g *goroutines) Go(f func()) { g.wg.Go(f) }

func (g *goroutines) Wait(ctx context.Context, d time.Duration, signal <-chan struct{}) {
	var over <-chan time.Time
	if d > 0 {
		timer, ok := g.timers.Get().(*time.Timer)
		if ok {
			timer.Reset(d)
		} else {
			timer = time.NewTimer(d)
		}
		defer func() {
			timer.Stop()
			g.timers.Put(timer)
		}()
		over = timer.C
	}
	select {
	case <-signal:
	case <-over:
	case <-ctx.Done():
	}
}

// pause waits for a while, or until ctx ends.
func (h *Hub) pause(ctx context.Context, d time.Duration) { h.tasks.Wait(ctx, d, nil) }
