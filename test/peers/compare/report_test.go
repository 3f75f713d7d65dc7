package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kvstore/test/peers/figures"
	"kvstore/test/peers/markers"
)

func peer(rounds ...[2]float64) (p peerReport) {
	for i, r := range rounds {
		p.Rounds = append(p.Rounds, &measurement{Round: i, PerSecond: r[0], P50: r[1], P99: 2 * r[1]})
	}
	return p
}

// TestRatios: ratios are of the same round, not of the medians.
func TestRatios(t *testing.T) {
	r := &rowReport{row: rows()[0]}
	r.Etcd = peer([2]float64{100, 10}, [2]float64{50, 20}, [2]float64{200, 5})
	r.KVStore = peer([2]float64{500, 2}, [2]float64{400, 2}, [2]float64{600, 4})
	r.summarize()
	if want := (figures.Spread{Median: 5, Min: 3, Max: 8}); r.Throughput != want {
		t.Errorf("throughput %v, want %v", r.Throughput, want)
	}
	if want := (figures.Spread{Median: 0.2, Min: 0.1, Max: 0.8}); r.P50 != want || r.P99 != want {
		t.Errorf("latency %v and %v, want %v", r.P50, r.P99, want)
	}
	if want := (figures.Spread{Median: 100, Min: 50, Max: 200}); r.Etcd.PerSecond != want {
		t.Errorf("etcd %v, want %v", r.Etcd.PerSecond, want)
	}
}

func TestVerdict(t *testing.T) {
	throughput := rowReport{row: row{Required: 4, Aim: 8}, Throughput: figures.Spread{Median: 5}, P99: figures.Spread{Median: 1.2}}
	if got, want := throughput.verdict(), "4x, 8: met, p99 missed"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	latency := rowReport{row: row{Latency: true, Required: 0.75, Aim: 0.5}, P50: figures.Spread{Median: 0.8}, P99: figures.Spread{Median: 1}}
	if got, want := latency.verdict(), "0.75x p50, 0.5: missed"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	for median, want := range map[float64]string{2.2: "3x: missed", 3.1: "3x: met"} {
		bare := rowReport{row: row{Required: 3}, Throughput: figures.Spread{Median: median}, P99: figures.Spread{Median: 1}}
		if got := bare.verdict(); got != want {
			t.Errorf("%v times etcd: %q, want %q", median, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	for name := range sets {
		t.Run(name, func(t *testing.T) { tableOf(t, name) })
	}
}

func tableOf(t *testing.T, name string) {
	r := &report{Settings: &settings{Keys: 1234567, Set: name}}
	for _, each := range sets[name].rows() {
		row := &rowReport{row: each}
		row.Etcd, row.KVStore = peer([2]float64{1000, 1}), peer([2]float64{2000, 2})
		row.summarize()
		r.Rows = append(r.Rows, row)
	}
	r.compareWithPuts()
	text := r.table()
	if name == "transactions" && !strings.Contains(text, "| transaction of 5 puts in 5 groups, 200/s | 1.00 [1.00, 1.00] | at most 3: met |") {
		t.Errorf("transactions are not compared with puts in\n%s", text)
	}
	if !strings.Contains(text, "1,234,567 keys") {
		t.Errorf("no separators in\n%s", text)
	}
	for line := range strings.Lines(text) {
		if columns := strings.Count(line, "|"); columns != 0 && columns != 4 && columns != 8 && columns != 10 {
			t.Errorf("%d separators in %q", columns, line)
		}
	}
}

func TestFill(t *testing.T) {
	file := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(file, []byte("a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := markers.Fill(file, "x", "new\n\n"); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(file); string(text) != "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n" {
		t.Errorf("%q", text)
	}
	if err := markers.Fill(file, "y", "new"); err == nil {
		t.Error("a place that is not there was filled")
	}
}
