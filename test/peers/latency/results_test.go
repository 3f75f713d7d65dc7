package main

import (
	"strings"
	"testing"

	"kvstore/test/peers/experiment"
)

func sample() *results {
	l := &latency{Rounds: 3, Keys: 1000, Clients: 256, PutRate: 2000, GetRate: 5000, BatchRate: 500, TxnRate: 500}
	r := &results{settings: l, Rows: l.rows()}
	for _, row := range r.Rows {
		for round := range 3 {
			w := row.Wanted // medians are exactly that
			m := &run{Run: experiment.Run{PerSecond: float64(row.Rate), P50: w[0] * float64(round), P95: w[1], P99: w[2], P999: w[3]}}
			m.Split = split{Request: row.Wanted, Turn: four{0.1, 0.1, 0.1, 0.1}, Sync: four{0.05, 0.05, 0.05, 0.05}}
			row.Runs = append(row.Runs, m)
		}
		row.summarize()
	}
	return r
}

func TestCells(t *testing.T) {
	r := sample()
	for _, row := range r.Rows {
		for _, c := range row.Cells {
			if !c.Met || c.Part != "" {
				t.Errorf("%s, %s: %.2f of %.2f is missed: %s", row.Title, c.Quantile, c.Measured, c.Wanted, c.Part)
			}
		}
	}
	put := r.Rows[0]
	for _, m := range put.Runs {
		m.P999 += 0.1
	}
	put.summarize()
	if c := put.Cells[3]; c.Met || c.Part != "waiting for turns and other nodes" {
		t.Errorf("%+v", c)
	}
}

func TestLargestPart(t *testing.T) {
	for want, r := range map[string]row{
		"client and network":                {Latency: four{10}, Split: split{Request: four{2}, Turn: four{1}, Sync: four{1}}},
		"waiting for turns and other nodes": {Latency: four{10}, Split: split{Request: four{9}, Turn: four{2}, Sync: four{1}}},
		"loop beside the sync":              {Latency: four{10}, Split: split{Request: four{9}, Turn: four{8}, Sync: four{1}}},
		"sync":                              {Latency: four{10}, Split: split{Request: four{9}, Turn: four{8}, Sync: four{7}}},
		"the nodes counted no request":      {Latency: four{10}},
	} {
		if got := r.largest(0); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestTables(t *testing.T) {
	r := sample()
	r.Rows[1].Rated = 4000
	r.Rows[1].Runs[0].Errors = map[string]int64{"overloaded": 1200}
	text := r.Tables()
	if err := experiment.CheckTables(text, 2); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"| put | 2,000 | 2,000 | 0.50 of 0.5: met |", "4,000: rate not reached", "overloaded 1,200", "| transaction of 5 | p99.9 | 50.00 | 50.00 | - | 0.10 | 0.05 | - |"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
