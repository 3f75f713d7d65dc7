package main

import (
	"errors"
	"flag"
	"fmt"
	"math"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"kvstore/internal/dev"
	"kvstore/test/cgroup"
)

// factor is the replication factor of all clusters.
const factor = 3

// settings of a run; part of the JSON output.
type settings struct {
	Sizes    []int         `json:"sizes"`
	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"duration_ns"`
	Warmup   time.Duration `json:"warmup_ns"`
	Settle   time.Duration `json:"settle_ns"`
	// NodeCPUs and GeneratorCPUs are shares of CPU time: of each node, and of
	// the load generator.
	NodeCPUs      float64       `json:"node_cpus"`
	GeneratorCPUs float64       `json:"generator_cpus"`
	Period        time.Duration `json:"period_ns"`
	Groups        int           `json:"groups"`
	// Clients are per node.
	Clients int `json:"clients_per_node"`
	// Keys are per node, copies included: a cluster has Keys*nodes/factor.
	Keys      int    `json:"keys_per_node"`
	KeySize   int    `json:"key_size"`
	ValueSize int    `json:"value_size"`
	Profile   string `json:"profile"`
	Only      string `json:"only,omitempty"`
	Smoke     bool   `json:"smoke,omitempty"`

	sizes, bin, work, json, markdown, doc, pprof string
	limit                                        time.Duration
	rows                                         []row
}

func (s *settings) flags(f *flag.FlagSet) {
	f.StringVar(&s.sizes, "sizes", "3,5,7", "numbers of nodes, ascending; ratios are to the first")
	f.IntVar(&s.Rounds, "rounds", 3, "rounds of every size, 1 to 100")
	f.DurationVar(&s.Duration, "duration", 8*time.Second, "measured time of one run")
	f.DurationVar(&s.Warmup, "warmup", 2*time.Second, "before each run, at least 100ms")
	f.DurationVar(&s.Settle, "settle", 2*time.Second, "pause before the first run of a cluster; what idle nodes use is measured in it")
	f.Float64Var(&s.NodeCPUs, "node-cpus", 0.15, "CPUs of each node")
	f.Float64Var(&s.GeneratorCPUs, "generator-cpus", 0.8, "CPUs of the load generator")
	f.DurationVar(&s.Period, "period", 10*time.Millisecond, "how often the kernel gives a share of CPU time, 1ms to 1s")
	f.IntVar(&s.Groups, "groups", 35, "Raft groups, the same at all sizes")
	f.IntVar(&s.Clients, "clients", 128, "clients per node, each with one outstanding operation")
	f.IntVar(&s.Keys, "keys", 60_000, "keys that a node holds copies of, the same at all sizes")
	f.IntVar(&s.KeySize, "key-size", 16, "bytes of a key")
	f.IntVar(&s.ValueSize, "value-size", 256, "bytes of a value")
	f.StringVar(&s.Profile, "profile", "standard", "profile of the nodes")
	f.StringVar(&s.Only, "only", "", "regular expression of the workloads to run, such as ^get-")
	f.BoolVar(&s.Smoke, "smoke", false, "one short round that checks the form of the output; skipped where control groups cannot be made")
	f.StringVar(&s.pprof, "pprof", "", "directory that gets the CPU profile of all nodes of each run; adds a table of components")
	f.DurationVar(&s.limit, "timeout", time.Hour, "of everything")
	f.StringVar(&s.bin, "bin", "", "directory of kvstore and kvbench")
	f.StringVar(&s.work, "work", "", "directory for the data; a new one inside is used and removed")
	f.StringVar(&s.json, "json", "", "file for the results; standard output when empty")
	f.StringVar(&s.markdown, "markdown", "", "file for the tables")
	f.StringVar(&s.doc, "doc", "", "document that gets the tables between its nodes markers")
}

// smoke makes everything as short as it can be.
func (s *settings) smoke() {
	s.Rounds, s.Duration, s.Warmup, s.Settle = 1, 500*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	s.Keys, s.Clients = 1000, 8
}

// complete fills in what derives from flags and reports all that is wrong.
func (s *settings) complete() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Smoke {
		s.smoke()
	}
	if s.Smoke && s.doc != "" {
		bad("--smoke, --doc %s: figures of a smoke run mean nothing", s.doc)
	}
	for field := range strings.SplitSeq(s.sizes, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || !slices.Contains(dev.NodeCounts, n) || n < factor {
			bad("--sizes %q: %q is no size; want some of 3, 5 and 7", s.sizes, field)
			continue
		}
		s.Sizes = append(s.Sizes, n)
	}
	if !slices.IsSorted(s.Sizes) || len(slices.Compact(slices.Clone(s.Sizes))) != len(s.Sizes) {
		bad("--sizes %q: want ascending numbers", s.sizes)
	}
	if s.Rounds < 1 || s.Rounds > 100 {
		bad("--rounds %d: want 1 to 100", s.Rounds)
	}
	if s.Duration < 500*time.Millisecond || s.Warmup < 100*time.Millisecond || s.Settle < 0 {
		bad("--duration %s, --warmup %s, --settle %s: want at least 500ms, 100ms and 0", s.Duration, s.Warmup, s.Settle)
	}
	if s.pprof != "" && s.Duration < 2*time.Second {
		bad("--duration %s: profiles want at least 2s", s.Duration)
	}
	if s.Keys < 1 || s.Keys > 100_000_000 {
		bad("--keys %d: want 1 to 100000000", s.Keys)
	}
	if s.Groups < 1 || s.Groups > 1024 || s.Clients < 1 || s.Clients > 4096 {
		bad("--groups %d, --clients %d: want 1 to 1024 and 1 to 4096", s.Groups, s.Clients)
	}
	if s.bin == "" || s.work == "" {
		bad("--bin and --work are needed; scripts/bench-nodes sets them")
	}
	errs = append(errs, s.completeShares(), s.completeRows(), s.completePaths())
	return errors.Join(errs...)
}

// completeShares refuses more than the machine has: then shares would not be
// what they say.
func (s *settings) completeShares() error {
	if err := errors.Join(s.nodeLimit().Validate(), s.generatorLimit().Validate()); err != nil {
		return fmt.Errorf("--node-cpus, --generator-cpus, --period: %w", err)
	}
	most := 0
	for _, n := range s.Sizes {
		most = max(most, n)
	}
	if all := float64(most)*s.NodeCPUs + s.GeneratorCPUs; all > float64(runtime.NumCPU()) {
		return fmt.Errorf("--node-cpus %g, --generator-cpus %g: %d nodes and the generator need %.2f CPUs, the machine has %d",
			s.NodeCPUs, s.GeneratorCPUs, most, all, runtime.NumCPU())
	}
	return nil
}

func (s *settings) completeRows() error {
	only, err := regexp.Compile(s.Only)
	if err != nil {
		return fmt.Errorf("--only: %w", err)
	}
	for _, r := range rows() {
		if only.MatchString(r.Name) {
			s.rows = append(s.rows, r)
		}
	}
	if len(s.rows) == 0 {
		return fmt.Errorf("--only %q matches no workload", s.Only)
	}
	return nil
}

func (s *settings) completePaths() (err error) {
	for _, path := range []*string{&s.bin, &s.work} {
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) nodeLimit() cgroup.Limit {
	return cgroup.Limit{CPUs: s.NodeCPUs, Period: s.Period}
}

func (s *settings) generatorLimit() cgroup.Limit {
	return cgroup.Limit{CPUs: s.GeneratorCPUs, Period: s.Period}
}

// procs is GOMAXPROCS under a limit: the same at all sizes, and no more
// threads than the share can keep busy.
func procs(l cgroup.Limit) string {
	return "GOMAXPROCS=" + strconv.Itoa(int(math.Ceil(l.CPUs)))
}
