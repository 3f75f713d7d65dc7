// Command latency measures what operations take at a moderate load, in an
// open loop, against the latencies that are wanted (S3.17), and where that
// time goes as far as the nodes' metrics say.
package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"time"

	"kvstore/test/peers/experiment"
)

// latency is the settings and, while it runs, the experiment.
type latency struct {
	experiment.Common

	Rounds   int           `json:"rounds"`
	Duration time.Duration `json:"duration_ns"`
	Warmup   time.Duration `json:"warmup_ns"`
	Keys     int           `json:"keys"`
	Clients  int           `json:"clients"`
	// Rates are in operations per second; a batch is one.
	PutRate   int `json:"put_rate"`
	GetRate   int `json:"get_rate"`
	BatchRate int `json:"batch_rate"`
	TxnRate   int `json:"transaction_rate"`
}

func (l *latency) Flags(f *flag.FlagSet) {
	f.IntVar(&l.Rounds, "rounds", 3, "rounds of every row")
	f.DurationVar(&l.Duration, "duration", 15*time.Second, "measured time of one run")
	f.DurationVar(&l.Warmup, "warmup", 2*time.Second, "before each run")
	f.IntVar(&l.Keys, "keys", 100_000, "different keys")
	f.IntVar(&l.Clients, "clients", 256, "clients: the most operations that are outstanding")
	f.IntVar(&l.PutRate, "put-rate", 2000, "puts per second")
	f.IntVar(&l.GetRate, "get-rate", 5000, "linearizable gets per second")
	f.IntVar(&l.BatchRate, "batch-rate", 500, "batches per second, of puts and of gets")
	f.IntVar(&l.TxnRate, "transaction-rate", 500, "transactions per second")
}

func (l *latency) Check() error {
	return errors.Join(
		experiment.Within("rounds", l.Rounds, 1, 100),
		experiment.Lasting("duration", l.Duration, 100*time.Millisecond, time.Hour),
		experiment.Lasting("warmup", l.Warmup, 100*time.Millisecond, time.Minute),
		experiment.Within("keys", l.Keys, 10, 100_000_000),
		experiment.Within("clients", l.Clients, 1, 65536),
		experiment.Within("put-rate", l.PutRate, 1, 1_000_000),
		experiment.Within("get-rate", l.GetRate, 1, 1_000_000),
		experiment.Within("batch-rate", l.BatchRate, 1, 1_000_000),
		experiment.Within("transaction-rate", l.TxnRate, 1, 1_000_000),
	)
}

func main() {
	os.Exit(experiment.Main("latency", &latency{Common: experiment.Common{Timeout: 30 * time.Minute}}))
}

// Measure does the rounds: every row once in each.
func (l *latency) Measure(ctx context.Context, s *experiment.Session) (experiment.Results, error) {
	experiment.Say("writing %d keys", l.Keys)
	if err := s.Preload(ctx, 0, l.Keys); err != nil {
		return nil, err
	}
	res := &results{settings: l, Rows: l.rows()}
	for round := range l.Rounds {
		for _, r := range res.Rows {
			if err := l.run(ctx, s, r, round); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range res.Rows {
		r.summarize()
	}
	return res, nil
}
