package node

import (
	"errors"
	"syscall"
	"time"

	"kvstore/internal/dirlock"
)

// A process that was just killed may hold its ports and its lock for a moment
// longer, while its last threads end. Whoever starts the node again at once
// should not be refused for that.
const (
	releaseTimeout  = 3 * time.Second
	releaseInterval = 50 * time.Millisecond
)

// patiently repeats open while it fails for what another process holds.
func patiently(open func() error) error {
	look := time.NewTicker(releaseInterval)
	defer look.Stop()
	give := time.NewTimer(releaseTimeout)
	defer give.Stop()
	for {
		err := open()
		if !errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, dirlock.ErrHeld) {
			return err
		}
		select {
		case <-look.C:
		case <-give.C:
			return err
		}
	}
}
