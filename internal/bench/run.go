package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

const (
	tick = time.Second
	// points bounds the timeline of a long run.
	points = 3600
	// pauseFirst and pauseMost bound how long a client waits after errors.
	pauseFirst = time.Millisecond
	pauseMost  = 100 * time.Millisecond
)

// run is one measurement.
type run struct {
	cfg     *Config
	driver  Driver
	rec     *recorder
	pool    pool
	begin   time.Time // clients start
	measure time.Time // warm-up ends
	end     time.Time // no operation starts later
	stopped time.Time // all clients have ended
	plan    schedule
	claimed atomic.Int64
	live    func(Point)
}

// Run warms up, measures and returns the result. live gets each interval; it
// may be nil. A canceled context ends the run early with what was measured.
func Run(ctx context.Context, cfg *Config, d Driver, live func(Point)) *Result {
	r := &run{cfg: cfg, driver: d, rec: newRecorder(), pool: poolOf(cfg), live: live}
	r.begin = time.Now()
	r.measure = r.begin.Add(cfg.Warmup)
	r.end = r.measure.Add(cfg.Duration)
	r.plan = schedule{rate: cfg.Rate, begin: r.begin, measure: r.measure, end: r.end}
	// Operations in flight at the end are finished: dropping them would hide
	// the slowest. The deadline of the driver bounds them.
	var clients sync.WaitGroup
	stop := make(chan struct{})
	for i := range cfg.Clients {
		clients.Go(func() { r.client(ctx, i) })
	}
	var watcher sync.WaitGroup
	watcher.Go(func() { r.watch(stop) })
	clients.Wait()
	close(stop)
	watcher.Wait()
	r.stopped = time.Now()
	return r.result()
}

// watch drains the recorder at every tick after the warm-up and once more at
// the end.
func (r *run) watch(stop <-chan struct{}) {
	warm := time.NewTimer(time.Until(r.measure))
	defer warm.Stop()
	select {
	case <-warm.C:
	case <-stop:
	}
	every := max(tick, r.cfg.Duration/points)
	t := time.NewTicker(every)
	defer t.Stop()
	before := r.measure
	for {
		select {
		case <-stop:
			r.lastPoint(time.Now(), before, every)
			return
		case now := <-t.C:
			if now.After(before) {
				r.point(now, before)
				before = now
			}
		}
	}
}

// lastPoint drains what came after the last tick. As a point of the timeline
// it would mislead when the interval is a sliver.
func (r *run) lastPoint(now, before time.Time, every time.Duration) {
	if sliver := now.Sub(before) < every/2; sliver && len(r.rec.timeline) > 0 {
		r.rec.drain(now.Sub(r.measure), now.Sub(before))
		return
	}
	if now.After(before) {
		r.point(now, before)
	}
}

func (r *run) point(now, before time.Time) {
	p := r.rec.drain(now.Sub(r.measure), now.Sub(before))
	r.rec.timeline = append(r.rec.timeline, p)
	if r.live != nil {
		r.live(p)
	}
}

// client is one goroutine with one outstanding operation.
func (r *run) client(ctx context.Context, i int) {
	w, c := newWorker(r.cfg, r.pool, i), r.driver.Client(i)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	pause := time.Duration(0)
	var now time.Time // zero when it is not known
	for {
		due, counts, ok := r.next(ctx, timer, now)
		if !ok {
			return
		}
		kind, keys, err := w.do(ctx, c)
		if err != nil && ctx.Err() != nil {
			return // the operation was ended by us
		}
		now = time.Now()
		if counts {
			r.note(i, kind, keys, due, now, err)
		}
		if err == nil {
			pause = 0
			continue
		}
		now = time.Time{}
		pause = min(max(2*pause, pauseFirst), pauseMost)
		if !wait(ctx, timer, pause) {
			return
		}
	}
}

// next returns when the operation to run now was due, and whether it counts:
// at once in a closed loop, at the next free time of the schedule in an open
// one. now is when the one before ended if that was just now, else zero.
func (r *run) next(ctx context.Context, timer *time.Timer, now time.Time) (due time.Time, counts, ok bool) {
	if r.cfg.Rate > 0 {
		due, counts, ok = r.plan.next(ctx, timer, r.claim)
		return due, counts, ok && ctx.Err() == nil
	}
	if due = now; due.IsZero() {
		due = time.Now()
	}
	if !due.Before(r.end) || ctx.Err() != nil {
		return due, false, false
	}
	counts = !due.Before(r.measure)
	return due, counts, !counts || r.claim()
}

// claim takes one of the operations that --ops allows.
func (r *run) claim() bool { return r.cfg.Ops <= 0 || r.claimed.Add(1) <= r.cfg.Ops }

func wait(ctx context.Context, timer *time.Timer, d time.Duration) bool {
	timer.Reset(d)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *run) note(client int, kind string, keys int, due, now time.Time, err error) {
	at := now.Sub(r.measure)
	if err != nil {
		r.rec.failed(client, r.driver.CodeOf(err), at)
		return
	}
	r.rec.ok(client, kind, keys, at, now.Sub(due))
}
