// Command growth shows what more and more data does to three nodes: load,
// throughput, restarts, memory, disk and amplification at each size, and then
// what overwriting the same keys for long does to those who read them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"

	"kvstore/internal/config"
	"kvstore/test/peers/experiment"
)

// growth is the settings and, while it runs, the experiment.
type growth struct {
	experiment.Common

	// First and Second are sizes that are measured, Keys the last, all in
	// keys; loading stops earlier when Budget is over or the disk is full.
	First  int           `json:"first_keys"`
	Second int           `json:"second_keys"`
	Keys   int           `json:"keys"`
	Chunk  int           `json:"chunk_keys"`
	Budget time.Duration `json:"budget_ns"`
	// MinFree stays free on the disk.
	MinFree config.Size `json:"min_free_bytes"`

	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"duration_ns"`
	Warmup   time.Duration `json:"warmup_ns"`
	Clients  int           `json:"clients"`
	Quiet    quiet         `json:"quiet"`

	Overwrite         time.Duration `json:"overwrite_ns"`
	OverwriteKeys     int           `json:"overwrite_keys"`
	OverwriteClients  int           `json:"overwrite_clients"`
	OverwriteReads    int           `json:"overwrite_reads_per_second"`
	OverwriteInterval time.Duration `json:"overwrite_interval_ns"`
}

func (g *growth) Flags(f *flag.FlagSet) {
	f.IntVar(&g.First, "first", 1_000_000, "keys of the first size, which others are judged by")
	f.IntVar(&g.Second, "second", 10_000_000, "keys of the second size")
	f.IntVar(&g.Keys, "keys", 20_000_000, "keys of the last size")
	f.IntVar(&g.Chunk, "chunk", 1_000_000, "keys that are loaded between looks at time and disk")
	f.DurationVar(&g.Budget, "budget-time", time.Hour, "time for all sizes: loading stops when the next chunk would not fit")
	g.MinFree = 10 * config.GB
	f.Func("min-free", "what stays free on the disk (default 10GB)", func(text string) (err error) {
		g.MinFree, err = config.ParseSize(text)
		return err
	})
	f.IntVar(&g.Rounds, "rounds", 3, "rounds of put and get at each size, after it is quiet")
	f.DurationVar(&g.Duration, "duration", 10*time.Second, "measured time of one run")
	f.DurationVar(&g.Warmup, "warmup", 15*time.Second, "before each run")
	f.IntVar(&g.Clients, "clients", 256, "clients of put and get")
	g.Quiet.flags(f)
	f.DurationVar(&g.Overwrite, "overwrite", 15*time.Minute, "how long to overwrite the same keys at the end; 0: not at all")
	f.IntVar(&g.OverwriteKeys, "overwrite-keys", 100_000, "keys that are overwritten")
	f.IntVar(&g.OverwriteClients, "overwrite-clients", 64, "clients that overwrite")
	f.IntVar(&g.OverwriteReads, "overwrite-reads", 1000, "gets of these keys per second, open loop")
	f.DurationVar(&g.OverwriteInterval, "overwrite-interval", time.Minute, "gets, memory and disk are told for each")
}

func (g *growth) Check() error {
	errs := []error{
		experiment.Within("first", g.First, 100, g.Keys),
		experiment.Within("second", g.Second, 100, 1_000_000_000),
		experiment.Within("keys", g.Keys, 100, 1_000_000_000),
		experiment.Within("chunk", g.Chunk, 100, 100_000_000),
		experiment.Lasting("budget-time", g.Budget, time.Second, 24*time.Hour),
		experiment.Within("rounds", g.Rounds, 1, 100),
		experiment.Lasting("duration", g.Duration, 100*time.Millisecond, time.Hour),
		experiment.Lasting("warmup", g.Warmup, 100*time.Millisecond, time.Minute),
		experiment.Within("clients", g.Clients, 1, 65536),
		g.Quiet.check(),
	}
	if g.Overwrite != 0 {
		errs = append(errs,
			experiment.Lasting("overwrite", g.Overwrite, g.OverwriteInterval, 12*time.Hour),
			experiment.Within("overwrite-keys", g.OverwriteKeys, 1, g.First),
			experiment.Within("overwrite-clients", g.OverwriteClients, 1, 65536),
			experiment.Within("overwrite-reads", g.OverwriteReads, 1, 1_000_000),
			experiment.Lasting("overwrite-interval", g.OverwriteInterval, shortestInterval, time.Hour),
		)
	}
	_, err := g.memoryBudget()
	return errors.Join(append(errs, err)...)
}

// memoryBudget is in bytes; it must be given, because the verdict needs it.
func (g *growth) memoryBudget() (int64, error) {
	if g.MemoryBudget == "" {
		return 0, errors.New("--memory-budget is needed: memory is judged by it")
	}
	size, err := config.ParseSize(g.MemoryBudget)
	if err != nil {
		return 0, fmt.Errorf("--memory-budget: %w", err)
	}
	return int64(size), nil
}

// sizes are those that are measured, ascending.
func (g *growth) sizes() []int {
	all := []int{g.First, g.Keys}
	if g.Second > g.First && g.Second < g.Keys {
		all = []int{g.First, g.Second, g.Keys}
	}
	return slices.Compact(all)
}

// recordBytes is what a user stores with one key.
func (g *growth) recordBytes() int64 { return int64(g.KeySize + g.ValueSize) }

func main() {
	os.Exit(experiment.Main("growth", &growth{Common: experiment.Common{Timeout: 3 * time.Hour, MemoryBudget: "1GB"}}))
}

// Measure grows the data, then overwrites.
func (g *growth) Measure(ctx context.Context, s *experiment.Session) (experiment.Results, error) {
	budget, err := g.memoryBudget()
	if err != nil {
		return nil, err
	}
	res := &results{settings: g, budget: budget}
	if err := g.grow(ctx, s, res); err != nil {
		return nil, err
	}
	if g.Overwrite > 0 {
		if err := g.overwrite(ctx, s, res); err != nil {
			return nil, fmt.Errorf("overwrite: %w", err)
		}
	}
	res.judge()
	return res, nil
}
