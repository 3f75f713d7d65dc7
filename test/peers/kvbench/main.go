// Command kvbench is the product's kvbench with one more driver: etcd.
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
	code := bench.Main(ctx, os.Args[1:], os.Stdout, os.Stderr, map[string]bench.Opener{"etcd": openEtcd})
	stop()
	os.Exit(code)
}
