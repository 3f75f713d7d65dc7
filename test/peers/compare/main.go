// Command compare measures kvstore against etcd: three nodes of each on
// loopback, one loaded at a time, in alternating rounds, by the same load
// generator with the same keys, values, clients and connections.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"kvstore/test/peers/cluster"
	"kvstore/test/peers/facts"
)

// settings of a comparison; part of the JSON output.
type settings struct {
	Rounds    int           `json:"rounds"`
	Duration  time.Duration `json:"duration_ns"`
	Warmup    time.Duration `json:"warmup_ns"`
	Calibrate time.Duration `json:"calibrate_ns"`
	Settle    time.Duration `json:"settle_ns"`
	Keys      int           `json:"keys"`
	KeySize   int           `json:"key_size"`
	ValueSize int           `json:"value_size"`
	// SDKConnections are per node; a unary run uses as many as etcd, in all.
	SDKConnections int    `json:"sdk_connections_per_node"`
	Profile        string `json:"kvstore_profile"`
	Set            string `json:"set"`
	Only           string `json:"only,omitempty"`

	bin, work, json, markdown, doc string
	limit                          time.Duration
}

func (s *settings) flags(f *flag.FlagSet) {
	f.IntVar(&s.Rounds, "rounds", 3, "rounds of every workload, 1 to 100")
	f.DurationVar(&s.Duration, "duration", 5*time.Second, "measured time of one run")
	f.DurationVar(&s.Warmup, "warmup", time.Second, "before each run, at least 100ms")
	f.DurationVar(&s.Calibrate, "calibrate", 2*time.Second, "measured time with each of 1, 16 and 64 connections")
	f.DurationVar(&s.Settle, "settle", time.Second, "pause between runs")
	f.IntVar(&s.Keys, "keys", 100_000, "different keys")
	f.IntVar(&s.KeySize, "key-size", 16, "bytes of a key")
	f.IntVar(&s.ValueSize, "value-size", 256, "bytes of a value")
	f.IntVar(&s.SDKConnections, "sdk-connections", 1, "connections of the SDK to each node")
	f.StringVar(&s.Profile, "profile", "standard", "profile of the kvstore nodes")
	f.StringVar(&s.Set, "set", "peers", "what is compared: "+strings.Join(setNames(), ", "))
	f.StringVar(&s.Only, "only", "", "regular expression of the workloads to run, such as ^put-")
	f.DurationVar(&s.limit, "timeout", time.Hour, "of the whole comparison")
	f.StringVar(&s.bin, "bin", "", "directory of kvstore, etcd and kvbench")
	f.StringVar(&s.work, "work", "", "directory for the data of both stores; a new one inside is used and removed")
	f.StringVar(&s.json, "json", "", "file for the results; standard output when empty")
	f.StringVar(&s.markdown, "markdown", "", "file for the table")
	f.StringVar(&s.doc, "doc", "", "document that gets the table between the markers of the set")
}

func (s *settings) check() (*regexp.Regexp, error) {
	var errs []error
	if s.Rounds < 1 || s.Rounds > 100 {
		errs = append(errs, fmt.Errorf("--rounds %d: want 1 to 100", s.Rounds))
	}
	if s.Warmup < 100*time.Millisecond || s.Duration < 100*time.Millisecond || s.Calibrate < 100*time.Millisecond {
		errs = append(errs, errors.New("--warmup, --duration and --calibrate: want at least 100ms"))
	}
	if s.bin == "" || s.work == "" {
		errs = append(errs, errors.New("--bin and --work are needed; scripts/bench-peers sets them"))
	}
	if _, known := sets[s.Set]; !known {
		errs = append(errs, fmt.Errorf("--set %q: want one of %v", s.Set, setNames()))
	}
	only, err := regexp.Compile(s.Only)
	return only, errors.Join(append(errs, err)...)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "compare: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	s := new(settings)
	s.flags(flag.CommandLine)
	flag.Parse()
	only, err := s.check()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	if s.work, err = filepath.Abs(s.work); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.work, s.Set+"-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l := cluster.NewLauncher()
	defer func() { err = errors.Join(err, l.Close()) }() // before the directory goes
	c := &comparison{settings: s, launcher: l, report: &report{
		Format: 1, Tool: "bench-" + s.Set, StartedAt: time.Now().UTC(), Settings: s, Machine: facts.Machine(dir), Versions: facts.Versions(s.bin),
	}}
	for _, r := range sets[s.Set].rows() {
		if only.MatchString(r.Name) {
			c.report.Rows = append(c.report.Rows, &rowReport{row: r})
		}
	}
	if len(c.report.Rows) == 0 {
		return fmt.Errorf("--only %q matches no workload", s.Only)
	}
	say("starting three nodes of etcd and three of kvstore")
	if c.etcd, err = l.Etcd(ctx, filepath.Join(s.bin, "etcd"), filepath.Join(dir, "etcd")); err != nil {
		return err
	}
	if c.kvstore, err = l.KVStore(ctx, cluster.KVStore{
		Exe: filepath.Join(s.bin, "kvstore"), Dir: filepath.Join(dir, "kvstore"), Nodes: 3, Profile: s.Profile, Env: sets[s.Set].env(),
	}); err != nil {
		return err
	}
	if err := c.run(ctx); err != nil {
		return err
	}
	return c.report.write(s)
}

func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }
