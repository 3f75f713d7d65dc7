package router

import "time"

// breaker keeps operations away from a peer that fails: after
// DefaultBreakerTrips failures in a row it opens for a pause that doubles with
// each further failure; then a single stream may try. The link's mutex guards
// it.
type breaker struct {
	failures int
	until    time.Duration // env.Clock.Mono; open before it
}

// allows reports whether an attempt may be made now.
func (b *breaker) allows(now time.Duration) bool { return now >= b.until }

// failed counts a failure; random is any random number.
func (b *breaker) failed(now time.Duration, random uint64) {
	b.failures++
	if b.failures < DefaultBreakerTrips {
		return
	}
	pause := DefaultBreakerMax
	if shift := b.failures - DefaultBreakerTrips; shift < 6 {
		pause = min(pause, 100*time.Millisecond<<shift)
	}
	b.until = now + pause/2 + time.Duration(random%uint64(pause/2+1))
}

// worked closes the breaker.
func (b *breaker) worked() { b.failures, b.until = 0, 0 }
