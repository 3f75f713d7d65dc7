package mover

import (
	"context"
	"sync"
	"time"

	"kvstore/internal/env"
	"kvstore/internal/env/system"
)

// pacer bounds what all moves to this node read of records per second: who has
// taken more than there was waits until it has come in.
type pacer struct {
	clock env.Clock
	mu    sync.Mutex
	rate  int64         // bytes per second; guarded by mu
	free  time.Duration // when all that was taken has come in; guarded by mu
}

// burst is how far behind the clock free may lie: what may be taken at once
// after a pause.
const burst = 100 * time.Millisecond

func (p *pacer) set(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate = rate
}

// take counts bytes and returns how long their taker must wait.
func (p *pacer) take(bytes int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.rate <= 0 {
		return 0
	}
	now := p.clock.Mono()
	p.free = max(p.free, now-burst) + time.Duration(float64(bytes)/float64(p.rate)*float64(time.Second))
	return max(0, p.free-now)
}

// wait takes bytes and waits for them.
func (p *pacer) wait(ctx context.Context, bytes int) error {
	d := p.take(bytes)
	if d == 0 {
		return ctx.Err()
	}
	return system.Pause(ctx, d)
}
