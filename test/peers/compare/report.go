package main

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"time"

	"kvstore/internal/bench"
	"kvstore/test/peers/figures"
	"kvstore/test/peers/markers"
)

// report is the JSON output.
type report struct {
	Format    int               `json:"format"` // of this document, 1
	Tool      string            `json:"tool"`
	StartedAt time.Time         `json:"started_at"`
	Settings  *settings         `json:"settings"`
	Machine   map[string]string `json:"machine"`
	Versions  map[string]string `json:"versions"`
	Rows      []*rowReport      `json:"rows"`
}

type calibration struct {
	Connections int     `json:"connections"`
	PerSecond   float64 `json:"per_second"`
}

type rowReport struct {
	row
	// EtcdConnections are in all; Connections, kvstore's, are per node with
	// the SDK and in all for unary.
	EtcdConnections    int           `json:"etcd_connections"`
	Connections        int           `json:"kvstore_connections"`
	Calibration        []calibration `json:"calibration"` // etcd's
	KVStoreCalibration []calibration `json:"calibration_kvstore,omitempty"`
	Etcd               peerReport    `json:"etcd"`
	KVStore            peerReport    `json:"kvstore"`
	// Ratios are kvstore's figure by etcd's of the same round.
	Throughput figures.Spread `json:"throughput_ratio"`
	P50        figures.Spread `json:"p50_ratio"`
	P99        figures.Spread `json:"p99_ratio"`
	// ByPut is kvstore's p50 by that of its puts in the same round.
	ByPut figures.Spread `json:"p50_by_put"`
}

type peerReport struct {
	Rounds    []*measurement `json:"rounds"`
	PerSecond figures.Spread `json:"per_second"`
	P50       figures.Spread `json:"p50_ms"`
	P99       figures.Spread `json:"p99_ms"`
	// Medians of the costs.
	LogSyncs    float64 `json:"log_syncs_per_second"`
	EngineSyncs float64 `json:"engine_syncs_per_second"`
	OpsPerSync  float64 `json:"operations_per_log_sync"`
	CPU         float64 `json:"server_cpu_us_per_operation"`
	Written     float64 `json:"disk_bytes_per_operation"`
}

// measurement is one run. Costs are of the three nodes together; an operation
// is a request of a client (a batch is one).
type measurement struct {
	Round       int              `json:"round"` // from 0
	PerSecond   float64          `json:"per_second"`
	Operations  int64            `json:"operations"`
	P50         float64          `json:"p50_ms"`
	P95         float64          `json:"p95_ms"`
	P99         float64          `json:"p99_ms"`
	P999        float64          `json:"p99_9_ms"`
	Max         float64          `json:"max_ms"`
	Errors      map[string]int64 `json:"errors,omitempty"`
	LogSyncs    float64          `json:"log_syncs_per_second"`
	EngineSyncs float64          `json:"engine_syncs_per_second"`
	OpsPerSync  float64          `json:"operations_per_log_sync"`
	CPU         float64          `json:"server_cpu_us_per_operation"`
	Written     float64          `json:"disk_bytes_per_operation"`
	// IdleCPU is what the store that was not loaded used, in CPUs.
	IdleCPU float64 `json:"idle_peer_cpus"`
}

func (r *rowReport) measured(round int, res *bench.Result, w *window) *measurement {
	cost, seconds := w.end.Sub(w.begin), w.end.At.Sub(w.begin.At).Seconds()
	ops := max(float64(res.Operations), 1)
	m := &measurement{
		Round: round, PerSecond: r.perSecond(res), Operations: res.Operations, Errors: res.Errors,
		P50: res.Latency.P50, P95: res.Latency.P95, P99: res.Latency.P99, P999: res.Latency.P999, Max: res.Latency.Max,
		LogSyncs: cost.LogSyncs / seconds, EngineSyncs: cost.EngineSyncs / seconds,
		CPU: float64(cost.CPU.Microseconds()) / ops, Written: float64(cost.Written) / ops,
		IdleCPU: (w.idleEnd - w.idleBegin).Seconds() / seconds,
	}
	if cost.LogSyncs > 0 {
		m.OpsPerSync = ops / cost.LogSyncs
	}
	return m
}

func (p *peerReport) of(figure func(*measurement) float64) figures.Spread {
	var values []float64
	for _, m := range p.Rounds {
		values = append(values, figure(m))
	}
	return figures.SpreadOf(values)
}

func (p *peerReport) summarize() {
	p.PerSecond = p.of(func(m *measurement) float64 { return m.PerSecond })
	p.P50 = p.of(func(m *measurement) float64 { return m.P50 })
	p.P99 = p.of(func(m *measurement) float64 { return m.P99 })
	p.LogSyncs = p.of(func(m *measurement) float64 { return m.LogSyncs }).Median
	p.EngineSyncs = p.of(func(m *measurement) float64 { return m.EngineSyncs }).Median
	p.OpsPerSync = p.of(func(m *measurement) float64 { return m.OpsPerSync }).Median
	p.CPU = p.of(func(m *measurement) float64 { return m.CPU }).Median
	p.Written = p.of(func(m *measurement) float64 { return m.Written }).Median
}

func (r *rowReport) summarize() {
	r.Etcd.summarize()
	r.KVStore.summarize()
	ratio := func(figure func(*measurement) float64) figures.Spread {
		var values []float64
		for i, m := range r.KVStore.Rounds {
			if other := figure(r.Etcd.Rounds[i]); other > 0 {
				values = append(values, figure(m)/other)
			}
		}
		return figures.SpreadOf(values)
	}
	r.Throughput = ratio(func(m *measurement) float64 { return m.PerSecond })
	r.P50 = ratio(func(m *measurement) float64 { return m.P50 })
	r.P99 = ratio(func(m *measurement) float64 { return m.P99 })
}

// compareWithPuts takes the ratios of transactions to the puts of as many clients.
func (r *report) compareWithPuts() {
	for _, row := range r.Rows {
		at := slices.IndexFunc(r.Rows, func(put *rowReport) bool { return put.Name == row.put })
		if at < 0 {
			continue
		}
		var values []float64
		for i, m := range row.KVStore.Rounds {
			values = append(values, m.P50/r.Rows[at].KVStore.Rounds[i].P50)
		}
		row.ByPut = figures.SpreadOf(values)
	}
}

// write puts the results where the settings say.
func (r *report) write(s *settings) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	var errs []error
	if s.json == "" {
		_, err = os.Stdout.Write(text)
	} else {
		err = os.WriteFile(s.json, text, 0o644) //nolint:gosec // results are for everybody
	}
	errs = append(errs, err)
	table := r.table()
	say("\n%s", table)
	if s.markdown != "" {
		errs = append(errs, os.WriteFile(s.markdown, []byte(table), 0o644)) //nolint:gosec // results are for everybody
	}
	if s.doc != "" {
		errs = append(errs, markers.Fill(s.doc, s.Set, table))
	}
	return errors.Join(errs...)
}
