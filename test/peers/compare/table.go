package main

import (
	"fmt"
	"strings"
	"time"

	"kvstore/test/peers/figures"
)

// table is the Markdown output.
func (r *report) table() string {
	var b strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	s := r.Settings
	line("%s. %d rounds of %s, %s keys of %d bytes, values of %d bytes. kvstore %s, etcd %s, gRPC %s, %s; %s, %s CPUs, %s memory, %s, %s.\n",
		r.StartedAt.Format(time.DateOnly), s.Rounds, s.Duration, figures.Thousands(float64(s.Keys)), s.KeySize, s.ValueSize,
		r.Versions["kvstore"], r.Versions["etcd"], r.Versions["grpc"], r.Versions["go"],
		r.Machine["cpu"], r.Machine["cpus"], r.Machine["memory"], r.Machine["kernel"], r.Machine["filesystem"])
	line("Medians; in brackets the lowest and highest ratio of a round. Ratios are kvstore by etcd.\n")
	line("| workload | etcd /s | kvstore /s | throughput | p50 | p99 | wanted, aim |")
	line("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
	for _, row := range r.Rows {
		line("| %s | %s | %s | %s | %s | %s | %s |", row.Title, figures.Thousands(row.Etcd.PerSecond.Median), figures.Thousands(row.KVStore.PerSecond.Median),
			row.Throughput, row.P50, row.P99, row.verdict())
	}
	r.putTable(line)
	line("\n| workload | etcd p50, p99 ms | kvstore p50, p99 ms | connections etcd, kvstore | log syncs /s etcd, kvstore | operations per log sync | server CPU us per operation | disk bytes per operation | errors |")
	line("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
	for _, row := range r.Rows {
		e, k := &row.Etcd, &row.KVStore
		line("| %s | %.2f, %.2f | %.2f, %.2f | %d, %d | %s, %s | %.1f, %.1f | %.0f, %.0f | %s, %s | %d, %d |", row.Title,
			e.P50.Median, e.P99.Median, k.P50.Median, k.P99.Median, row.EtcdConnections, row.Connections,
			figures.Thousands(e.LogSyncs), figures.Thousands(k.LogSyncs), e.OpsPerSync, k.OpsPerSync, e.CPU, k.CPU,
			figures.Thousands(e.Written), figures.Thousands(k.Written), e.errors(), k.errors())
	}
	line("\nSyncs, CPU and bytes are of three nodes together, bytes as the disk counts them. etcd also commits its backend, kvstore flushes deltas (`engine_syncs_per_second` in the JSON).")
	line("The store that was not loaded used at most %.2f CPUs during a run (etcd %.2f, kvstore %.2f).", max(r.idle(true), r.idle(false)), r.idle(true), r.idle(false))
	return b.String()
}

// putTable compares transactions with puts.
func (r *report) putTable(line func(string, ...any)) {
	head := false
	for _, row := range r.Rows {
		if row.ByPut.Median == 0 {
			continue
		}
		if !head {
			line("\n| kvstore | p50 by that of a put | wanted |")
			line("| --- | ---: | --- |")
		}
		head = true
		wanted := "-"
		switch most := row.row.ByPut; {
		case most != 0 && row.ByPut.Median <= most:
			wanted = fmt.Sprintf("at most %g: met", most)
		case most != 0:
			wanted = fmt.Sprintf("at most %g: missed", most)
		}
		line("| %s | %s | %s |", row.Title, row.ByPut, wanted)
	}
}

// verdict compares with what is required: throughput, or p50 of latency rows,
// and p99 no worse than etcd's.
func (r *rowReport) verdict() string {
	if r.Required == 0 {
		return "-"
	}
	word := "x"
	met, aim := r.Throughput.Median >= r.Required, r.Throughput.Median >= r.Aim
	if r.Latency {
		word, met, aim = "x p50", r.P50.Median <= r.Required, r.P50.Median <= r.Aim
	}
	state := "missed"
	switch {
	case aim && r.Aim != 0:
		state = "aim reached"
	case met:
		state = "met"
	}
	if r.P99.Median > 1 {
		state += ", p99 missed"
	}
	if r.Aim == 0 {
		return fmt.Sprintf("%g%s: %s", r.Required, word, state)
	}
	return fmt.Sprintf("%g%s, %g: %s", r.Required, word, r.Aim, state)
}

func (p *peerReport) errors() (n int64) {
	for _, m := range p.Rounds {
		for _, c := range m.Errors {
			n += c
		}
	}
	return n
}

// idle is the most that etcd, or kvstore, used while the other was loaded.
func (r *report) idle(etcd bool) (most float64) {
	for _, row := range r.Rows {
		loaded := row.Etcd.Rounds
		if etcd {
			loaded = row.KVStore.Rounds
		}
		for _, m := range loaded {
			most = max(most, m.IdleCPU)
		}
	}
	return most
}
