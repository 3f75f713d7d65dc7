package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"kvstore/internal/ctl/progress"
	"kvstore/internal/ctl/target"
	"kvstore/internal/version"
)

// Exit codes.
const (
	exitOK    = 0
	exitError = 1 // could not run, or no operation succeeded
	exitUsage = 2
)

// gcPercent lets the heap of the load generator, which is small whatever the
// driver, grow further between collections: on a machine it shares with the
// nodes each costs them CPU. GOGC overrides it.
const gcPercent = 400

// Main executes one command line (without the program's name) and returns the
// exit code. extra adds drivers to kvstore.
func Main(ctx context.Context, args []string, out, errOut io.Writer, extra map[string]Opener) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	cmd := newCommand(out, errOut, extra)
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errOut)
	err := cmd.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(errOut, "kvbench: %v\n", err)
	if hint := target.Hint(err); hint != "" {
		_, _ = fmt.Fprintf(errOut, "  %s\n", hint)
	}
	if errors.As(err, new(target.UsageError)) {
		return exitUsage
	}
	return exitError
}

// command is one command line.
type command struct {
	cfg         Config
	drivers     map[string]Opener
	names       []string
	output      string
	html        string
	quiet       bool
	preloadOnly bool
	out, errOut io.Writer
}

func newCommand(out, errOut io.Writer, extra map[string]Opener) *cobra.Command {
	c := &command{cfg: Default(), drivers: map[string]Opener{"kvstore": openKVStore}, names: []string{"kvstore"}, out: out, errOut: errOut}
	for name, open := range extra {
		c.drivers[name], c.names = open, append(c.names, name)
	}
	cmd := &cobra.Command{
		Use: "kvbench [flags]", Short: "Measure throughput and latency of a kvstore cluster",
		Example:      "  kvbench --workload put --clients 256 --html put.html\n  kvbench --workload mixed --read-ratio 0.9 --zipf 1.1 --duration 60s -o json > result.json\n  kvbench --workload get --mode unary --connections 16 --rate 5000",
		SilenceUsage: true, SilenceErrors: true, Version: version.Full("kvbench"), Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("duration") && c.cfg.Ops > 0 {
				c.cfg.Duration = maxDuration // the count ends the run
			}
			return c.run(cmd.Context())
		},
	}
	cmd.SetVersionTemplate("{{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return target.UsageError{Err: err} })
	cmd.CompletionOptions.DisableDefaultCmd = true
	flags(cmd, &c.cfg)
	f := cmd.Flags()
	f.StringVarP(&c.output, "output", "o", "text", "text or json")
	f.StringVar(&c.html, "html", "", "also write a report to this file, with charts")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no live chart and no progress")
	f.BoolVar(&c.preloadOnly, "preload-only", false, "write the keys, measure nothing")
	cmd.AddCommand(reportCommand(out), watchCommand(out))
	return cmd
}

// usageArgs makes errors about arguments usage errors.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return target.UsageError{Err: err}
		}
		return nil
	}
}

func (c *command) run(ctx context.Context) error {
	err := c.cfg.Validate(c.names)
	if c.output != "text" && c.output != "json" {
		err = errors.Join(err, fmt.Errorf("--output %q: want text or json", c.output))
	}
	if err != nil {
		return target.UsageError{Err: err}
	}
	res, err := c.measure(ctx)
	if err != nil || res == nil {
		return err
	}
	if c.html != "" {
		if err := writeReport(c.html, []namedResult{{name: c.cfg.Workload, Result: res}}); err != nil {
			return errors.Join(err, show(c.out, res, c.output)) // the figures must not be lost with it
		}
	}
	return show(c.out, res, c.output)
}

// measure connects, preloads and runs; there is no result of a preload alone.
func (c *command) measure(ctx context.Context) (res *Result, err error) {
	d, err := c.drivers[c.cfg.Driver](ctx, &c.cfg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	l := newLive(c.errOut, c.quiet, &c.cfg)
	if c.preloadOnly || c.cfg.Preload && c.cfg.reads() {
		if err := c.preload(ctx, d, l); err != nil {
			return nil, fmt.Errorf("preload: %w", err)
		}
	}
	if c.preloadOnly {
		return nil, nil
	}
	if err := c.cfg.findGroups(ctx, d); err != nil {
		return nil, err
	}
	l.warmup()
	res = Run(ctx, &c.cfg, d, l.point)
	l.end()
	return res, nil
}

// preload writes the keys and shows how far it is.
func (c *command) preload(ctx context.Context, d Driver, l *live) error {
	p := &progress.Progress{}
	if !c.quiet {
		p = progress.New(c.errOut, "writing keys", l.terminal, l.width)
	}
	p.Total(int64(c.cfg.Keys-c.cfg.KeysFrom), 0)
	p.Start()
	bytes, started := int64(c.cfg.KeySize+c.cfg.ValueSize), time.Now()
	err := Preload(ctx, &c.cfg, d, func(n int) { p.Add(int64(n), int64(n)*bytes) })
	p.Stop()
	if err != nil {
		return err
	}
	took, n := time.Since(started).Seconds(), p.Counts().Items
	_, _ = fmt.Fprintf(l.out, "wrote %s keys in %.1f s, %s keys/s\n", amount(float64(n)), took, amount(float64(n)/took))
	return nil
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
