package bench

import (
	"context"
	"errors"
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
	slot    atomic.Int64
	claimed atomic.Int64
	last    atomic.Int64 // nanoseconds from measure to the last completion
	live    func(Point)
}

// Run warms up, measures and returns the result. live gets each interval; it
// may be nil. A canceled context ends the run early with what was measured.
func Run(ctx context.Context, cfg *Config, d Driver, live func(Point)) *Result {
	r := &run{cfg: cfg, driver: d, rec: newRecorder(), pool: newPool(cfg.ValueSize, cfg.Seed), live: live}
	r.begin = time.Now()
	r.measure = r.begin.Add(cfg.Warmup)
	r.end = r.measure.Add(cfg.Duration)
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
			if now := time.Now(); now.After(before) {
				r.point(now, before)
			}
			return
		case now := <-t.C:
			if now.After(before) {
				r.point(now, before)
				before = now
			}
		}
	}
}

func (r *run) point(now, before time.Time) {
	p := r.rec.drain(now.Sub(r.measure), now.Sub(before))
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
	for {
		due, ok := r.next(ctx, timer)
		if !ok {
			return
		}
		counts := !due.Before(r.measure)
		if counts && r.cfg.Ops > 0 && r.claimed.Add(1) > r.cfg.Ops {
			return
		}
		kind, keys, err := w.do(ctx, c)
		if err != nil && ctx.Err() != nil {
			return // the operation was ended by us
		}
		if counts {
			r.note(i, kind, keys, due, err)
		}
		if err == nil {
			pause = 0
			continue
		}
		pause = min(max(2*pause, pauseFirst), pauseMost)
		if !wait(ctx, timer, pause) {
			return
		}
	}
}

// next returns when the operation to run now was due: at once in a closed
// loop, at the next free slot of the rate in an open one.
func (r *run) next(ctx context.Context, timer *time.Timer) (due time.Time, ok bool) {
	if r.cfg.Rate <= 0 {
		now := time.Now()
		return now, now.Before(r.end) && ctx.Err() == nil
	}
	n := r.slot.Add(1) - 1
	due = r.begin.Add(time.Duration(float64(n) / r.cfg.Rate * float64(time.Second)))
	if !due.Before(r.end) {
		return due, false
	}
	if d := time.Until(due); d > 0 && !wait(ctx, timer, d) {
		return due, false
	}
	return due, ctx.Err() == nil
}

func wait(ctx context.Context, timer *time.Timer, d time.Duration) bool {
	timer.Reset(d)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *run) note(client int, kind string, keys int, due time.Time, err error) {
	now := time.Now()
	for since := int64(now.Sub(r.measure)); ; {
		last := r.last.Load()
		if since <= last || r.last.CompareAndSwap(last, since) {
			break
		}
	}
	if err != nil {
		r.rec.failed(client, r.driver.CodeOf(err))
		return
	}
	r.rec.ok(client, kind, keys, now.Sub(due))
}

// preloadBatch bounds one request of Preload.
const (
	preloadItems   = 100
	preloadBytes   = 1 << 20
	preloadClients = 32
	preloadTries   = 10
)

// Preload writes every key once. done gets the number of keys written.
func Preload(ctx context.Context, cfg *Config, d Driver, done func(int)) error {
	p := newPool(cfg.ValueSize, cfg.Seed)
	size := max(1, min(preloadItems, preloadBytes/(cfg.KeySize+cfg.ValueSize)))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for i := range preloadClients {
		wg.Go(func() {
			w, c := newWorker(cfg, p, i), d.Client(i)
			for ctx.Err() == nil {
				from := int(next.Add(int64(size))) - size
				if from >= cfg.Keys {
					return
				}
				n := min(size, cfg.Keys-from)
				if err := w.preload(ctx, c, from, n); err != nil {
					cancel(err)
					return
				}
				done(n)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return err
	}
	return nil
}

// preload writes n keys, again when that failed: the values do not matter.
func (w *worker) preload(ctx context.Context, c Client, from, n int) (err error) {
	keys, values := make([]string, n), make([][]byte, n)
	for i := range keys {
		keys[i], values[i] = w.keys.Key(from+i), w.value()
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for try := range preloadTries {
		if err = c.BatchPut(ctx, keys, values); err == nil {
			return nil
		}
		if !wait(ctx, timer, pauseMost<<min(try, 5)) {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	return err
}
