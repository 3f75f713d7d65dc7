package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"kvstore/internal/ctl/target"
	"kvstore/internal/version"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // could not run, or no operation succeeded
	exitUsage = 2
)

// Main executes one command line (without the program's name) and returns the
// exit code. extra adds drivers to kvstore.
func Main(ctx context.Context, args []string, out, errOut io.Writer, extra map[string]Opener) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	cmd := newCommand(out, errOut, extra)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errOut)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(errOut, "kvbench: %v\n", err)
	if errors.As(err, new(target.UsageError)) {
		return exitUsage
	}
	return exitError
}

func newCommand(out, errOut io.Writer, extra map[string]Opener) *cobra.Command {
	drivers, names := map[string]Opener{"kvstore": openKVStore}, []string{"kvstore"}
	for name, open := range extra {
		drivers[name], names = open, append(names, name)
	}
	cfg := Default()
	var output string
	var quiet bool
	cmd := &cobra.Command{
		Use: "kvbench [flags]", Short: "Measure throughput and latency of a kvstore cluster",
		Example:      "  kvbench --workload put --clients 256\n  kvbench --workload mixed --read-ratio 0.9 --zipf 1.1 --duration 60s -o json > result.json\n  kvbench --workload get --mode unary --connections 16 --rate 5000",
		SilenceUsage: true, SilenceErrors: true, Version: version.Full("kvbench"),
		Args: func(cmd *cobra.Command, args []string) error {
			if err := cobra.NoArgs(cmd, args); err != nil {
				return target.UsageError{Err: err}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("duration") && cfg.Ops > 0 {
				cfg.Duration = maxDuration // the count ends the run
			}
			err := cfg.Validate(names)
			if output != "text" && output != "json" {
				err = errors.Join(err, fmt.Errorf("--output %q: want text or json", output))
			}
			if err != nil {
				return target.UsageError{Err: err}
			}
			progress := errOut
			if quiet {
				progress = io.Discard
			}
			res, err := measure(cmd.Context(), &cfg, drivers[cfg.Driver], newLive(progress))
			if err != nil {
				return err
			}
			return show(out, res, output)
		},
	}
	cmd.SetVersionTemplate("{{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return target.UsageError{Err: err} })
	flags(cmd, &cfg)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "no live progress")
	return cmd
}

func flags(cmd *cobra.Command, c *Config) {
	f := cmd.Flags()
	c.Target.Add(f)
	f.StringVar(&c.Driver, "driver", c.Driver, "store to measure")
	f.StringVarP(&c.Workload, "workload", "w", c.Workload, "put, get, mixed, list, batch-put or batch-get")
	f.StringVar(&c.Mode, "mode", c.Mode, "pipeline (the SDK) or unary (plain gRPC calls)")
	f.IntVar(&c.Clients, "clients", c.Clients, "clients, each with one outstanding operation")
	f.IntVar(&c.Connections, "connections", c.Connections, "connections: per node (pipeline, at most 64) or in all, over --endpoints (unary)")
	f.IntVar(&c.KeySize, "key-size", c.KeySize, "bytes of a key")
	f.IntVar(&c.ValueSize, "value-size", c.ValueSize, "bytes of a value; values do not compress")
	f.IntVar(&c.Keys, "keys", c.Keys, "different keys")
	f.StringVar(&c.Prefix, "prefix", c.Prefix, "text all keys begin with")
	f.Float64Var(&c.Zipf, "zipf", c.Zipf, "skew of the keys: more than 1; 0 is uniform")
	f.Float64Var(&c.ReadRatio, "read-ratio", c.ReadRatio, "share of gets in mixed, 0 to 1")
	f.IntVar(&c.Batch, "batch", c.Batch, "keys of a batch")
	f.IntVar(&c.ListLimit, "list-limit", c.ListLimit, "keys of a list")
	f.Float64Var(&c.Rate, "rate", c.Rate, "operations per second over all clients (open loop); 0: as fast as answers come")
	f.DurationVar(&c.Duration, "duration", c.Duration, "time to measure")
	f.Int64Var(&c.Ops, "ops", c.Ops, "stop after this many operations; 0: after --duration")
	f.DurationVar(&c.Warmup, "warmup", c.Warmup, "time before measuring")
	f.BoolVar(&c.Preload, "preload", c.Preload, "write every key first, for workloads that read")
	f.Uint64Var(&c.Seed, "seed", c.Seed, "of keys and values")
}

// measure connects, preloads and runs.
func measure(ctx context.Context, cfg *Config, open Opener, l *live) (res *Result, err error) {
	d, err := open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if cfg.Preload && cfg.reads() {
		if err := preload(ctx, cfg, d, l); err != nil {
			return nil, fmt.Errorf("preload: %w", err)
		}
	}
	if cfg.Warmup > 0 {
		l.message("warming up for %s", cfg.Warmup)
	}
	res = Run(ctx, cfg, d, l.point)
	l.end()
	return res, nil
}

func preload(ctx context.Context, cfg *Config, d Driver, l *live) error {
	l.message("writing %d keys", cfg.Keys)
	var written, shown atomic.Int64
	started := time.Now()
	step := max(int64(cfg.Keys)/20, 1)
	return Preload(ctx, cfg, d, func(n int) {
		now := written.Add(int64(n))
		if last := shown.Load(); now-last >= step && shown.CompareAndSwap(last, now) {
			l.message("wrote %d of %d keys, %.0f keys/s", now, cfg.Keys, float64(now)/time.Since(started).Seconds())
		}
	})
}

func show(out io.Writer, res *Result, output string) error {
	var err error
	if output == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		err = e.Encode(res)
	} else {
		err = res.Print(out)
	}
	if err == nil && res.Operations == 0 {
		err = fmt.Errorf("no operation succeeded, %d failed", res.failures())
	}
	return err
}
