// Package deadline has contexts whose deadline costs a timer only where
// somebody waits for it. Nearly all requests end long before: they ask for the
// deadline and whether it has passed, and never for Done.
package deadline

import (
	"context"
	"sync"
	"time"
)

// WithTimeout is context.WithTimeout without the timer: it is made by the first
// call of Done, which deriving a context that can be canceled implies. Err
// reports the end also before that. Causes are those of parent.
func WithTimeout(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	at := time.Now().Add(d)
	if earlier, ok := parent.Deadline(); ok && earlier.Before(at) {
		at = earlier
	}
	c := &lazy{Context: parent, at: at}
	return c, c.end
}

type lazy struct {
	context.Context // the parent
	at              time.Time

	mu     sync.Mutex
	timed  context.Context // guarded by mu: what Done made, nil before
	cancel context.CancelFunc
	ended  bool // guarded by mu: end was called
}

func (c *lazy) Deadline() (time.Time, bool) { return c.at, true }

func (c *lazy) Done() <-chan struct{} { return c.withTimer().Done() }

// withTimer returns the context with a timer.
func (c *lazy) withTimer() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timed == nil {
		c.timed, c.cancel = context.WithDeadline(c.Context, c.at)
		if c.ended {
			c.cancel()
		}
	}
	return c.timed
}

func (c *lazy) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.timed != nil:
		return c.timed.Err()
	case c.Context.Err() != nil:
		return c.Context.Err()
	case c.ended:
		return context.Canceled
	case !time.Now().Before(c.at):
		return c.expire()
	}
	return nil
}

// expire makes Done agree with what Err has said; mu must be held.
func (c *lazy) expire() error {
	c.timed, c.cancel = context.WithDeadline(c.Context, c.at)
	return c.timed.Err()
}

// Value lets contexts derived from c find the one with the timer, so that they
// need no goroutine to follow it.
func (c *lazy) Value(key any) any {
	c.mu.Lock()
	timed := c.timed
	c.mu.Unlock()
	if timed != nil {
		return timed.Value(key)
	}
	return c.Context.Value(key)
}

func (c *lazy) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}
