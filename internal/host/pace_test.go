package host

import (
	"testing"
	"time"
)

// TestChunkPace: slow syncs lower the rate to its least and no further, fast
// ones raise it, and what is spent stays within rate and burst.
func TestChunkPace(t *testing.T) {
	const chunk = 128 << 10
	var p chunkPace
	now := time.Duration(0)
	send := func(d time.Duration) (bytes int) {
		for end := now + d; now < end; now += time.Millisecond {
			for p.ready(now) {
				p.spend(chunk)
				bytes += chunk
			}
		}
		return bytes
	}
	for range 200 {
		p.observe(10*time.Millisecond, now)
		now += paceHold + 1
	}
	p.ready(now)
	for range 200 {
		p.observe(10*time.Millisecond, now)
		now += paceHold + 1
	}
	if p.rate != paceLeast {
		t.Fatalf("after slow syncs the rate is %v, want %d", p.rate, paceLeast)
	}
	p.ready(now)
	if got, most := send(time.Second), paceLeast+paceBurst+chunk; got > most || got < paceLeast-chunk {
		t.Errorf("%d bytes in a second, want about %d", got, paceLeast)
	}
	if w := p.due(); w != 0 {
		t.Errorf("waits %v although no chunk does", w)
	}
	p.waiting = true
	if w := p.due(); w < time.Millisecond || w > time.Second {
		t.Errorf("waits %v for the next chunk", w)
	}
	before := p.rate
	p.observe(fastSync/2, now)
	if p.rate <= before {
		t.Error("a fast sync does not raise the rate")
	}
	p.observe(time.Hour, now)
	p.observe(time.Hour, now+1)
	if p.rate < 0.8*before-1 {
		t.Error("two slow syncs in a row lower the rate twice")
	}
}
