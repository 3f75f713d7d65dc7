// Command depth shows what many outstanding operations do to three nodes:
// throughput, tail latency and memory from tens to thousands of clients, and
// what large values do to small ones beside them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"kvstore/test/peers/experiment"
)

// depth is the settings and, while it runs, the experiment.
type depth struct {
	experiment.Common

	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"duration_ns"`
	Warmup   time.Duration `json:"warmup_ns"`
	Keys     int           `json:"keys"`
	Clients  counts        `json:"clients"`
	// Base is the number of clients that larger ones are judged by.
	Base int `json:"base_clients"`
	// What runs in the mix: small values alone and beside large ones.
	MixClients   int `json:"mix_clients"`
	LargeClients int `json:"large_clients"`
	LargeBytes   int `json:"large_bytes"`
	LargeKeys    int `json:"large_keys"`
}

// counts is a flag: numbers, ascending.
type counts []int

func (c *counts) String() string {
	words := make([]string, len(*c))
	for i, n := range *c {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",")
}

// Set replaces all.
func (c *counts) Set(text string) error {
	*c = nil
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil {
			return err
		}
		*c = append(*c, n)
	}
	slices.Sort(*c)
	return nil
}

func (d *depth) Flags(f *flag.FlagSet) {
	d.Clients = counts{64, 256, 1024, 4096}
	f.IntVar(&d.Rounds, "rounds", 3, "rounds of everything")
	f.DurationVar(&d.Duration, "duration", 5*time.Second, "measured time of one run")
	f.DurationVar(&d.Warmup, "warmup", 2*time.Second, "before each run")
	f.IntVar(&d.Keys, "keys", 100_000, "different keys")
	f.Var(&d.Clients, "clients", "numbers of clients, with commas between")
	f.IntVar(&d.Base, "base", 256, "number of clients that larger ones are judged by, one of --clients")
	f.IntVar(&d.MixClients, "mix-clients", 64, "clients of the small puts in the mix")
	f.IntVar(&d.LargeClients, "large-clients", 4, "clients of the large puts in the mix")
	f.IntVar(&d.LargeBytes, "large-size", 16<<20, "bytes of a large value")
	f.IntVar(&d.LargeKeys, "large-keys", 8, "different keys of large values")
}

func (d *depth) Check() error {
	errs := []error{
		experiment.Within("rounds", d.Rounds, 1, 100),
		experiment.Lasting("duration", d.Duration, 100*time.Millisecond, time.Hour),
		experiment.Lasting("warmup", d.Warmup, 100*time.Millisecond, time.Minute),
		experiment.Within("keys", d.Keys, 1, 100_000_000),
		experiment.Within("mix-clients", d.MixClients, 1, 65536),
		experiment.Within("large-clients", d.LargeClients, 1, 64),
		experiment.Within("large-size", d.LargeBytes, 1, 16<<20),
		experiment.Within("large-keys", d.LargeKeys, 1, 1000),
	}
	for _, n := range d.Clients {
		errs = append(errs, experiment.Within("clients", n, 1, 65536))
	}
	if !slices.Contains(d.Clients, d.Base) {
		errs = append(errs, fmt.Errorf("--base %d: is not one of --clients %s", d.Base, &d.Clients))
	}
	return errors.Join(errs...)
}

func main() {
	os.Exit(experiment.Main("depth", &depth{Common: experiment.Common{Timeout: 30 * time.Minute}}))
}

// Measure does the rounds. Whether numbers of clients rise or fall, and what
// of the mix comes first, alternates.
func (d *depth) Measure(ctx context.Context, s *experiment.Session) (experiment.Results, error) {
	experiment.Say("writing %d keys", d.Keys)
	if err := s.Preload(ctx, 0, d.Keys); err != nil {
		return nil, err
	}
	res := newResults(d)
	for round := range d.Rounds {
		order := slices.Clone(res.Steps)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		for _, step := range order {
			if err := d.step(ctx, s, step, round); err != nil {
				return nil, err
			}
		}
		if err := d.mix(ctx, s, res, round); err != nil {
			return nil, err
		}
	}
	res.summarize()
	return res, nil
}
