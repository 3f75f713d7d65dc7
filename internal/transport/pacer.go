package transport

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"kvstore/internal/env/system"
)

// pacer bounds bytes per second over all its users. It lets a burst of a tenth
// of a second pass.
type pacer struct {
	perSecond atomic.Int64 // not positive: no limit

	mu sync.Mutex
	// next is when everything granted so far is paid for; mu must be held.
	next time.Time
}

const pacerBurst = 100 * time.Millisecond

func newPacer(perSecond int64) *pacer {
	p := &pacer{}
	p.perSecond.Store(perSecond)
	return p
}

// wait returns when n more bytes may be sent, or with the error of ctx.
func (p *pacer) wait(ctx context.Context, n int) error {
	perSecond := p.perSecond.Load()
	if perSecond <= 0 {
		return ctx.Err()
	}
	pause := time.Until(p.reserve(n, perSecond))
	if pause <= 0 {
		return ctx.Err()
	}
	return system.Pause(ctx, pause)
}

// reserve takes n bytes and returns when they may be sent.
func (p *pacer) reserve(n int, perSecond int64) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if oldest := time.Now().Add(-pacerBurst); p.next.Before(oldest) {
		p.next = oldest
	}
	p.next = p.next.Add(time.Duration(float64(n) / float64(perSecond) * float64(time.Second)))
	return p.next
}
