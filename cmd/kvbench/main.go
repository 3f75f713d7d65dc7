// Command kvbench measures throughput and latency of a kvstore cluster.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"kvstore/internal/bench"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	code := bench.Main(ctx, os.Args[1:], os.Stdout, os.Stderr, nil)
	stop()
	os.Exit(code)
}
