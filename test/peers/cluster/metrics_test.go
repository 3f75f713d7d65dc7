package cluster

import "testing"

const exposition = `# TYPE a_total counter
a_total{g="1"} 2
a_total{g="2"} 3.5
# TYPE a_total_more counter
a_total_more 9
# TYPE h_seconds histogram
h_seconds_bucket{m="Put",le="1"} 10
h_seconds_bucket{m="Put",le="2"} 30
h_seconds_bucket{m="Put",le="+Inf"} 40
h_seconds_sum{m="Put"} 60
h_seconds_count{m="Put"} 40
h_seconds_bucket{m="Get",le="1"} 100
h_seconds_bucket{m="Get",le="2"} 100
h_seconds_bucket{m="Get",le="+Inf"} 100
h_seconds_sum{m="Get"} 1
h_seconds_count{m="Get"} 100
`

func mustMetrics(t *testing.T, nodes ...string) (m Metrics) {
	t.Helper()
	for _, text := range nodes {
		families, err := parseMetrics([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		m = append(m, families)
	}
	return m
}

func TestCounter(t *testing.T) {
	m := mustMetrics(t, exposition, exposition)
	for name, want := range map[string]float64{"a_total": 11, "a_total_more": 18, "b": 0} {
		if got := m.Counter(name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	if got := m.Counter("a_total", "g", "2"); got != 7 {
		t.Errorf("with a label: %v, want 7", got)
	}
}

// TestHistogram: series of all nodes add up, and what was there before counts
// no more.
func TestHistogram(t *testing.T) {
	h := mustMetrics(t, exposition, exposition).Histogram("h_seconds", "m", "Put")
	if h.Count != 80 {
		t.Errorf("count %v, want 80", h.Count)
	}
	since := h.Sub(mustMetrics(t, exposition).Histogram("h_seconds", "m", "Put"))
	if since.Count != 40 {
		t.Errorf("count %v since, want 40", since.Count)
	}
	for q, want := range map[float64]float64{0: 0, 0.125: 0.5, 0.25: 1, 0.5: 1.5, 0.75: 2, 0.99: 2} {
		if got := since.Quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if got := (Histogram{}).Quantile(0.5); got != 0 {
		t.Errorf("of nothing: %v, want 0", got)
	}
}
