// Package metrics holds every metric of a node in one registry, and the
// listener's handler that shows them. Nobody else imports Prometheus: the
// parts of a node are given plain functions (Hooks, Requests) or are asked for
// their figures when the page is read (Gauge, GaugeBy, CounterBy).
package metrics

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// latencyBuckets are in seconds; the targets of S3.17 (0.3 ms to 50 ms) and the
// alert of S3.25 (100 ms) lie on or between close ones.
var latencyBuckets = []float64{
	.0001, .0002, .0003, .0005, .001, .002, .003, .005, .008, .01, .02, .03, .05, .1, .25, .5, 1, 2.5, 5, 10, 60,
}

// Registry is the metrics of one node; safe for concurrent use.
type Registry struct {
	reg *prometheus.Registry

	requests  *Requests
	elections *prometheus.CounterVec
	commit    prometheus.Histogram
	fsync     prometheus.Histogram
	batch     prometheus.Histogram
	readBatch prometheus.Histogram
	flush     prometheus.Histogram
	flushed   prometheus.Counter
	merge     prometheus.Histogram
	merged    prometheus.Counter
	move      prometheus.Histogram
	moved     prometheus.Counter
	snapshots *prometheus.CounterVec
	snapBytes *prometheus.CounterVec
	refused   prometheus.Counter
	loop      prometheus.Histogram
	stalls    prometheus.Counter
}

// New returns a registry with the process's and the Go runtime's own figures.
// build names this node's version.
func New(build string) *Registry {
	r := &Registry{reg: prometheus.NewRegistry()}
	r.reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	r.requests = newRequests(r.reg)
	r.registerHost()
	info := r.gaugeVec("kvstore_build_info", "Version of this node; always 1.", "version")
	info.WithLabelValues(build).Set(1)
	return r
}

func (r *Registry) registerHost() {
	r.elections = r.counterVec("kvstore_leader_elections_total",
		"Elections won by this node, by group; planned ones are transfers of leadership.", "group", "planned")
	r.commit = r.histogram("kvstore_commit_latency_seconds", "From proposing an entry to having applied it.", latencyBuckets)
	r.fsync = r.histogram("kvstore_fsync_duration_seconds", "Syncs of the shared log.", latencyBuckets)
	r.batch = r.histogram("kvstore_batch_operations", "Operations in one log entry.", prometheus.ExponentialBuckets(1, 2, 14))
	r.readBatch = r.histogram("kvstore_read_batch_operations", "Reads confirmed by one read index.", prometheus.ExponentialBuckets(1, 2, 14))
	r.flush = r.histogram("kvstore_flush_duration_seconds", "Flushes of a delta to a sorted run.", prometheus.ExponentialBuckets(.01, 2, 12))
	r.flushed = r.counter("kvstore_flush_bytes_total", "Bytes flushed from deltas to sorted runs.")
	r.merge = r.histogram("kvstore_merge_duration_seconds", "Merges of small sorted runs into a larger one.", prometheus.ExponentialBuckets(.1, 2, 15))
	r.merged = r.counter("kvstore_merge_bytes_total", "Bytes of small sorted runs that were merged.")
	r.move = r.histogram("kvstore_move_duration_seconds", "Moves of sorted runs to the engine.", prometheus.ExponentialBuckets(.1, 2, 15))
	r.moved = r.counter("kvstore_move_bytes_total", "Bytes of sorted runs moved to the engine.")
	r.snapshots = r.counterVec("kvstore_snapshots_total", "Snapshots between replicas.", "direction")
	r.snapBytes = r.counterVec("kvstore_snapshot_bytes_total", "Bytes of snapshots between replicas.", "direction")
	r.stalls = r.counter("kvstore_disk_stalls_total", "Times the disk hung for so long that this node lost its leaderships.")
	r.refused = r.counter("kvstore_overloaded_total", "Proposals refused because a queue was full.")
	r.loop = r.histogram("kvstore_host_loop_seconds", "One turn of the host loop over all groups.", latencyBuckets)
}

// Handler serves the metrics in the Prometheus text format.
func (r *Registry) Handler() http.Handler {
	return promhttp.HandlerFor(r.reg, promhttp.HandlerOpts{Registry: r.reg, MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

func (r *Registry) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	r.reg.MustRegister(h)
	return h
}

func (r *Registry) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	r.reg.MustRegister(c)
	return c
}

func (r *Registry) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	r.reg.MustRegister(c)
	return c
}

func (r *Registry) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	r.reg.MustRegister(g)
	return g
}
