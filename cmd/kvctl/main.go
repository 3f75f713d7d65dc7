// Command kvctl reads, writes and looks after a kvstore cluster.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"kvstore/internal/ctl"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	code := ctl.Run(ctx, os.Args[1:], ctl.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}
