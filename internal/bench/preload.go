package bench

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of one request of Preload, and of all that are on their way.
const (
	preloadItems    = 100 // unless the driver takes more
	preloadBytes    = 1 << 20
	preloadClients  = 32
	preloadInFlight = 64 << 20
	preloadTries    = 10
)

// Preload writes every key from cfg.KeysFrom on once. done gets the number of
// keys written.
func Preload(ctx context.Context, cfg *Config, d Driver, done func(int)) error {
	p, size, clients := poolOf(cfg), cfg.preloadSize(d), cfg.preloadClients(d)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	next.Store(int64(cfg.KeysFrom))
	var wg sync.WaitGroup
	for i := range clients {
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
	return context.Cause(ctx)
}

// preloadSize is how many keys one request writes.
func (c *Config) preloadSize(d Driver) int {
	items := preloadItems
	if large, ok := d.(LargeBatches); ok {
		items = large.MaxBatch()
	}
	return max(1, min(items, preloadBytes/(c.KeySize+c.ValueSize)))
}

// preloadClients is how many requests are on their way.
func (c *Config) preloadClients(d Driver) int {
	return max(1, min(preloadClients, preloadInFlight/(c.preloadSize(d)*(c.KeySize+c.ValueSize))))
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
