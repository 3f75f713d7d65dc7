package meta

import (
	"context"
	"sync"
	"sync/atomic"

	"kvstore/internal/fault"
	"kvstore/internal/router"
)

// Directory is this node's copy of the cluster's metadata (router.Directory).
// It exists before the router and the service, which fills it.
type Directory struct {
	current atomic.Pointer[state]
	seed    Seed

	mu     sync.Mutex
	load   func(ctx context.Context) error // nil before the service starts
	base   context.Context
	wg     *sync.WaitGroup
	next   *round // the read that has not begun
	active bool   // a goroutine works off next
}

// round is one read of the metadata that several callers wait for.
type round struct {
	done chan struct{}
	err  error
}

// NewDirectory returns a directory that knows what seed says.
func NewDirectory(seed Seed) *Directory {
	d := &Directory{seed: seed}
	d.current.Store(build(seed, nil, 0))
	return d
}

// Plant replaces the seed of a directory that was made before its node knew
// its cluster. It comes before the service's Start.
func (d *Directory) Plant(seed Seed) {
	d.seed = seed
	d.current.Store(build(seed, nil, 0))
}

// Map implements router.Directory.
func (d *Directory) Map() *router.Map { return &d.current.Load().view }

// Refresh implements router.Directory. Callers that come while a read runs
// share the next one, since the running one may have begun before their cause.
func (d *Directory) Refresh(ctx context.Context) error {
	d.mu.Lock()
	if d.load == nil {
		d.mu.Unlock()
		return fault.New(fault.Unavailable, "node is starting")
	}
	if d.next == nil {
		d.next = &round{done: make(chan struct{})}
	}
	r := d.next
	if !d.active {
		d.active = true
		d.wg.Add(1)
		go func() {
			defer d.wg.Done()
			d.run()
		}()
	}
	d.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return fault.Wrap(fault.DeadlineExceeded, ctx.Err(), "cluster metadata could not be read in time")
	}
}

func errStopping() error { return fault.New(fault.Unavailable, "node is stopping") }

// run reads until nobody waits. Those who waited when the node began to stop are told.
func (d *Directory) run() {
	for {
		d.mu.Lock()
		r := d.next
		d.next = nil
		if r == nil {
			d.active = false
			d.mu.Unlock()
			return
		}
		load, base := d.load, d.base
		d.mu.Unlock()
		if r.err = errStopping(); load != nil {
			ctx, cancel := context.WithTimeout(base, loadTimeout)
			r.err = load(ctx)
			cancel()
		}
		close(r.done)
	}
}

// attach makes Refresh work until detach.
func (d *Directory) attach(ctx context.Context, wg *sync.WaitGroup, load func(context.Context) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.base, d.wg, d.load = ctx, wg, load
}

func (d *Directory) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.load = nil
}
