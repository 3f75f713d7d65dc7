package router

import (
	"sync/atomic"
	"testing"
)

// Drivers go from frame to frame, as many as frames need at a time, and keep no more
// than a bound for later.
func TestDriversRest(t *testing.T) {
	r := &Router{}
	var driven atomic.Int64
	drive := func(events ...event) {
		f := &frame{r: r, async: true, driving: true, ready: events, wake: make(chan struct{}, 1)}
		f.open.Store(1)
		r.wg.Add(1)
		r.drivers.start(f)
	}
	hold, held := make(chan struct{}), make(chan struct{})
	for range 2 * maxIdleDrivers {
		drive(func(*frame) { held <- struct{}{}; <-hold; driven.Add(1) })
	}
	for range 2 * maxIdleDrivers { // all at once
		<-held
	}
	close(hold)
	r.wg.Wait()
	if n := len(r.drivers.idle); n != maxIdleDrivers || driven.Load() != 2*maxIdleDrivers {
		t.Fatalf("%d rest after %d frames", n, driven.Load())
	}
	for range 1000 {
		drive(func(*frame) { driven.Add(1) })
		r.wg.Wait()
	}
	if n := len(r.drivers.idle); n != maxIdleDrivers || driven.Load() != 1000+2*maxIdleDrivers {
		t.Fatalf("%d rest after %d frames", n, driven.Load())
	}
	r.drivers.close()
	if r.drivers.rest(nil) {
		t.Fatal("rests in what is closed")
	}
	drive(func(*frame) { driven.Add(1) }) // a frame that began before
	r.drivers.ended.Wait()
	if driven.Load() != 1001+2*maxIdleDrivers {
		t.Fatal("not driven")
	}
}
