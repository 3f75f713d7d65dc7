//go:build unix

package dev

import (
	"context"
	"os"
	"time"
)

// WatchGoRun returns a context that also ends when this program was started by
// `go run` and that process is gone: it does not pass SIGTERM on.
func WatchGoRun(ctx context.Context) context.Context {
	exe, err := os.Executable()
	if err != nil || !BuiltByGoRun(exe) {
		return ctx
	}
	parent := os.Getppid()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for os.Getppid() == parent {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
		}
	}()
	return ctx
}
