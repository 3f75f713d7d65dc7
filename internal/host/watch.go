package host

import (
	"context"
	"slices"
	"sync/atomic"
	"time"

	"kvstore/internal/replica"
)

// loopWatch sees a loop that does not come back.
//
// The loop waits for the disk itself where it writes a frame, or syncs what must
// not be overtaken; on a disk that hangs it may wait for as long as the disk
// likes. Its leaderships go by themselves (fitness), since it sends no
// heartbeats, but it can tell nobody: callers here would wait with it, and this
// node would go on to name itself as the leader. So beside the loop somebody
// looks, at every tick, how long an iteration has taken. After StallAfter, what
// has not reached the loop is refused, nothing of it was executed, and the node
// knows no leaders, so that the router asks others.
type loopWatch struct {
	// began is when the running iteration did, 0 between two.
	began   atomic.Int64
	blocked atomic.Bool
}

func (h *Host) watch(ctx context.Context) {
	ticker := time.NewTicker(h.opt.TickInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			h.lookAtLoop()
		case <-ctx.Done():
			return
		}
	}
}

func (h *Host) lookAtLoop() {
	w := &h.watched
	began, mono := time.Duration(w.began.Load()), h.opt.Clock.Mono()
	if began == 0 || mono-began <= h.opt.StallAfter {
		if w.blocked.Swap(false) {
			h.opt.Logger.Warn("the loop goes on")
		}
		return
	}
	if !w.blocked.Swap(true) {
		h.opt.Logger.Warn("the loop does not come back, as on a disk that hangs; this node refuses requests", "iteration_runs_for", mono-began)
		if hook := h.opt.Hooks.Stall; hook != nil && !h.hanging.Load() {
			hook()
		}
	}
	requests, reads := h.inbox.withdraw()
	for _, r := range requests {
		r.Fail(errUnfit(r.Group))
	}
	for _, r := range reads {
		r.done(ReadPoint{}, errUnfit(r.group))
	}
}

// withdraw takes requests and reads out of the mail, except for those of which
// the loop keeps something.
func (b *inbox) withdraw() (requests []*replica.Request, reads []*readWaiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	reads, b.in.reads = b.in.reads, nil
	for _, r := range b.in.requests {
		if !r.Uploading() {
			requests = append(requests, r)
		}
	}
	b.in.requests = slices.DeleteFunc(b.in.requests, func(r *replica.Request) bool { return !r.Uploading() })
	return requests, reads
}
