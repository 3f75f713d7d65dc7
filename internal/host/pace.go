package host

import "time"

// chunkPace bounds how fast the chunks of large values enter the log, so that
// what is synced together stays small and small writes do not wait behind large
// ones. The disk says how much it takes: the rate falls while syncs are slow and
// rises while they are fast (additive increase, multiplicative decrease), within
// bounds that let a value of the largest size through in seconds on any disk.
type chunkPace struct {
	rate   float64 // bytes per second
	tokens float64
	at     time.Duration // when tokens was right
	cut    time.Duration // when the rate was lowered last
	// waiting: chunks wait for tokens.
	waiting bool
}

const (
	paceFirst = 32 << 20
	paceLeast = 8 << 20
	paceMost  = 1 << 30
	paceStep  = 512 << 10
	paceBurst = 256 << 10
	// slowSync lowers the rate, once per paceHold; fastSync raises it.
	slowSync = 2 * time.Millisecond
	fastSync = time.Millisecond
	paceHold = 20 * time.Millisecond
)

// observe takes the duration of a sync.
func (p *chunkPace) observe(took, now time.Duration) {
	switch {
	case took > slowSync && now-p.cut > paceHold:
		p.rate, p.cut = max(paceLeast, 0.8*p.rate), now
	case took < fastSync:
		p.rate = min(paceMost, p.rate+paceStep)
	}
}

// ready reports whether a chunk may be proposed now.
func (p *chunkPace) ready(now time.Duration) bool {
	if p.rate == 0 {
		p.rate, p.tokens, p.at = paceFirst, paceBurst, now
	}
	p.tokens = min(paceBurst, p.tokens+p.rate*(now-p.at).Seconds())
	p.at = now
	return p.tokens > 0
}

// spend counts a chunk. What it takes too much is paid before the next one.
func (p *chunkPace) spend(bytes int) { p.tokens -= float64(bytes) }

// due is how long it takes until a chunk that waits may be proposed, 0 when none
// waits.
func (p *chunkPace) due() time.Duration {
	const least = time.Millisecond
	if !p.waiting {
		return 0
	}
	return max(least, time.Duration(-p.tokens/p.rate*float64(time.Second)))
}
