package metrics

import (
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"kvstore/internal/fault"
)

// Requests counts and times what clients ask. Methods are a fixed set of
// names, so that the number of series is bounded; codes are those of
// docs/errors.md, "ok" for success.
type Requests struct {
	duration *prometheus.HistogramVec
	inflight *prometheus.GaugeVec
	bytes    *prometheus.CounterVec
	panics   prometheus.Counter
	// received and sent are the two counters of bytes.
	received, sent prometheus.Counter
	// ok and open cache, by method, the observer of successes (the path of
	// nearly all) and the gauge of what is in flight.
	ok, open sync.Map
}

func newRequests(reg *prometheus.Registry) *Requests {
	q := &Requests{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kvstore_request_duration_seconds", Help: "Requests of clients, by method and code of the answer.",
			Buckets: latencyBuckets,
		}, []string{"method", "code"}),
		inflight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kvstore_requests_in_flight", Help: "Open requests and streams, by method.",
		}, []string{"method"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kvstore_request_bytes_total", Help: "Bytes of requests (received) and answers (sent) of clients.",
		}, []string{"direction"}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kvstore_request_panics_total", Help: "Requests that ended in a panic; each is in the log.",
		}),
	}
	q.received, q.sent = q.bytes.WithLabelValues("received"), q.bytes.WithLabelValues("sent")
	reg.MustRegister(q.duration, q.inflight, q.bytes, q.panics)
	return q
}

// Requests returns the counters of client requests.
func (r *Registry) Requests() *Requests { return r.requests }

// Observe records one answer; the empty code is success.
func (q *Requests) Observe(method string, code fault.Code, d time.Duration) {
	if code != "" {
		q.duration.WithLabelValues(method, string(code)).Observe(d.Seconds())
		return
	}
	o, found := q.ok.Load(method)
	if !found {
		o, _ = q.ok.LoadOrStore(method, q.duration.WithLabelValues(method, "ok"))
	}
	o.(prometheus.Observer).Observe(d.Seconds())
}

// InFlight adds change to the number of requests or streams in progress.
func (q *Requests) InFlight(method string, change int) {
	g, found := q.open.Load(method)
	if !found {
		g, _ = q.open.LoadOrStore(method, q.inflight.WithLabelValues(method))
	}
	g.(prometheus.Gauge).Add(float64(change))
}

// Bytes counts the sizes of requests received and answers sent.
func (q *Requests) Bytes(received, sent int) {
	if received > 0 {
		q.received.Add(float64(received))
	}
	if sent > 0 {
		q.sent.Add(float64(sent))
	}
}

// Panicked counts a request that ended in a panic.
func (q *Requests) Panicked() { q.panics.Inc() }

// MethodName shortens a gRPC method name: "/kvstore.v1.KVStore/Put" is "Put".
func MethodName(full string) string {
	return full[strings.LastIndexByte(full, '/')+1:]
}
