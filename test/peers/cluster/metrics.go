package cluster

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"slices"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Metrics are those of every node at one time.
type Metrics []map[string]*dto.MetricFamily

// Metrics reads those of all nodes.
func (c *Cluster) Metrics(ctx context.Context) (Metrics, error) {
	var all Metrics
	for i, n := range c.Nodes {
		text, err := fetch(ctx, "http://"+n.Metrics+"/metrics")
		if err != nil {
			return nil, fmt.Errorf("%s: node %d: %w", c.Name, i+1, err)
		}
		families, err := parseMetrics(text)
		if err != nil {
			return nil, fmt.Errorf("%s: node %d: metrics: %w", c.Name, i+1, err)
		}
		all = append(all, families)
	}
	return all, nil
}

func parseMetrics(text []byte) (map[string]*dto.MetricFamily, error) {
	p := expfmt.NewTextParser(model.UTF8Validation)
	return p.TextToMetricFamilies(bytes.NewReader(text))
}

// each calls f for every series of a family, on all nodes, that has the given
// labels: name, value, name, value.
func (m Metrics) each(name string, labels []string, f func(*dto.Metric)) {
	for _, families := range m {
		for _, s := range families[name].GetMetric() {
			if hasLabels(s, labels) {
				f(s)
			}
		}
	}
}

func hasLabels(s *dto.Metric, labels []string) bool {
	for i := 0; i+1 < len(labels); i += 2 {
		if !slices.ContainsFunc(s.GetLabel(), func(l *dto.LabelPair) bool { return l.GetName() == labels[i] && l.GetValue() == labels[i+1] }) {
			return false
		}
	}
	return true
}

// Counter sums the series of a counter or a gauge.
func (m Metrics) Counter(name string, labels ...string) (sum float64) {
	m.each(name, labels, func(s *dto.Metric) {
		sum += s.GetCounter().GetValue() + s.GetGauge().GetValue() + s.GetUntyped().GetValue()
	})
	return sum
}

// Histogram sums the series of a histogram; the zero value when there is none.
func (m Metrics) Histogram(name string, labels ...string) (h Histogram) {
	m.each(name, labels, func(s *dto.Metric) { h.add(s.GetHistogram()) })
	return h
}

// Histogram counts values, which are in the unit of the metric.
type Histogram struct {
	// bounds are upper ones, ascending, without infinity; counts, those at or
	// below each, cumulative.
	bounds []float64
	counts []float64
	// Count is that of all values.
	Count float64
}

func (h *Histogram) add(s *dto.Histogram) {
	h.Count += float64(s.GetSampleCount())
	i := 0
	for _, b := range s.GetBucket() {
		if math.IsInf(b.GetUpperBound(), 1) {
			continue
		}
		if i == len(h.bounds) { // the first series; all of a family have the same bounds
			h.bounds, h.counts = append(h.bounds, b.GetUpperBound()), append(h.counts, 0)
		}
		h.counts[i] += float64(b.GetCumulativeCount())
		i++
	}
}

// Sub is what was counted since before.
func (h Histogram) Sub(before Histogram) Histogram {
	since := Histogram{bounds: h.bounds, counts: slices.Clone(h.counts), Count: h.Count - before.Count}
	for i := range min(len(since.counts), len(before.counts)) {
		since.counts[i] -= before.counts[i]
	}
	return since
}

// Quantile estimates the value at or below which a part q (0 to 1) of all
// lies, as if they were even within a bucket; the highest bound when it is
// above that, 0 when nothing was counted.
func (h Histogram) Quantile(q float64) float64 {
	if h.Count <= 0 || len(h.bounds) == 0 {
		return 0
	}
	rank := q * h.Count
	i, _ := slices.BinarySearch(h.counts, rank)
	if i == len(h.counts) {
		return h.bounds[i-1]
	}
	low, below := 0.0, 0.0
	if i > 0 {
		low, below = h.bounds[i-1], h.counts[i-1]
	}
	return low + (h.bounds[i]-low)*(rank-below)/max(h.counts[i]-below, 1)
}
