// Command KVClient is kvctl under the name of S0.7: `KVClient 10.0.0.4:8085`
// is `kvctl 10.0.0.4:8085`.
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
