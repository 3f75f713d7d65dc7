//go:build unix

package harness

import (
	"testing"
	"time"
)

// Patience is how long tests wait for what should take seconds, on a machine
// that is busy with other things.
const Patience = 90 * time.Second

// Eventually polls until f succeeds; it fails the test after Patience.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	Within(t, Patience, f)
}

// A look is followed by a pause of at least leastPause, and of four times as long as
// it took up to mostPause: one that runs kvctl takes as much CPU as what it waits for.
const (
	leastPause = 20 * time.Millisecond
	mostPause  = 400 * time.Millisecond
)

// Within polls until f succeeds, for at most limit.
func Within(t testing.TB, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		began := time.Now()
		err := f()
		if err == nil {
			return
		}
		now := time.Now()
		if now.After(deadline) {
			t.Fatalf("not within %v: %v", limit, err)
		}
		<-time.After(min(max(leastPause, 4*now.Sub(began)), mostPause))
	}
}

// Pass lets time pass: for faults that last, never for waiting on an event.
func Pass(t testing.TB, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
