package router

import "sync"

// drivers are goroutines that drive one frame after the other. Reads go deep: a new
// goroutine for each would grow its stack several times on the way down, which costs
// as much as a look at a page of the disk's cache.
type drivers struct {
	mu     sync.Mutex
	idle   []chan *frame // the latest to rest is the first to go on
	closed bool
	ended  sync.WaitGroup
}

// maxIdleDrivers bounds the memory of stacks that are kept for nothing.
const maxIdleDrivers = 64

// start has f driven. The caller holds the router's wg for it.
func (d *drivers) start(f *frame) {
	d.mu.Lock()
	if last := len(d.idle) - 1; last >= 0 {
		next := d.idle[last]
		d.idle = d.idle[:last]
		d.mu.Unlock()
		next <- f
		return
	}
	d.mu.Unlock()
	d.ended.Add(1)
	go d.run(f)
}

func (d *drivers) run(f *frame) {
	defer d.ended.Done()
	next := make(chan *frame, 1)
	for f != nil {
		wg := &f.r.wg
		f.drive()
		f = nil // what it holds may go
		more := d.rest(next)
		wg.Done()
		if more {
			f = <-next
		}
	}
}

// rest says that whoever reads from next has nothing to do; more is false when nothing
// will come.
func (d *drivers) rest(next chan *frame) (more bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.idle) == maxIdleDrivers {
		return false
	}
	d.idle = append(d.idle, next)
	return true
}

// close ends all when nothing is left to be driven.
func (d *drivers) close() {
	d.mu.Lock()
	d.closed = true
	for _, next := range d.idle {
		close(next)
	}
	d.idle = nil
	d.mu.Unlock()
	d.ended.Wait()
}
