// Command chaosnode is `kvstore server` for tests: the same node, by a clock that
// a test sets wrong while it runs. CHAOS_CLOCK_FILE names a file with a duration,
// such as 10m or -10m, that the wall clock is off by; it is read again and again.
// Time that passes, on the monotonic clock, is the machine's.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/grpc/experimental"

	"kvstore/internal/config"
	"kvstore/internal/env"
	"kvstore/internal/env/system"
	"kvstore/internal/node"
	"kvstore/internal/wirebuf"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "chaosnode:", err)
		os.Exit(1)
	}
}

// run is a node until a signal or its failure.
func run() error {
	experimental.SetDefaultBufferPool(wirebuf.Pool)
	c, err := load(os.Args[1:])
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	clock := &skewed{Clock: system.Clock(), file: os.Getenv("CHAOS_CLOCK_FILE")}
	if err := clock.read(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- clock.follow(ctx) }()
	n, err := node.New(c, node.WithClock(clock))
	if err != nil {
		return err
	}
	failed := n.Start(ctx)
	select {
	case <-ctx.Done():
	case err = <-failed:
	case err = <-ended:
	}
	return errors.Join(err, n.Close())
}

// load reads what `kvstore server` would of the same arguments.
func load(args []string) (*config.Config, error) {
	if len(args) > 0 && args[0] == "server" {
		args = args[1:]
	}
	flags := pflag.NewFlagSet("chaosnode", pflag.ContinueOnError)
	file := flags.String("config", "", "configuration file")
	config.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	return config.Load(config.Sources{File: *file, Environ: os.Environ, Flags: flags})
}

// skewed is the machine's clock with a wall clock that is off.
type skewed struct {
	env.Clock
	file string
	by   atomic.Int64 // milliseconds
}

// readEvery is how soon a change of the file is noticed.
const readEvery = 50 * time.Millisecond

func (s *skewed) Wall() int64 { return s.Clock.Wall() + s.by.Load() }

func (s *skewed) read() error {
	text, err := os.ReadFile(s.file)
	if err != nil {
		return err
	}
	by, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	s.by.Store(by.Milliseconds())
	return nil
}

// follow reads the file until ctx ends.
func (s *skewed) follow(ctx context.Context) error {
	ticker := time.NewTicker(readEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := s.read(); err != nil {
			return err
		}
	}
}
