package bench

import (
	"fmt"
	"math"
)

// seriesClass is the CSS class that colors line i.
func seriesClass(i int) string { return fmt.Sprintf("s%d", i%maxRuns+1) }

// percentileLines are the latencies that are drawn over time.
var percentileLines = []struct {
	name string
	of   func(Point) float64
}{
	{"p50", func(p Point) float64 { return p.P50 }},
	{"p95", func(p Point) float64 { return p.P95 }},
	{"p99", func(p Point) float64 { return p.P99 }},
	{"max", func(p Point) float64 { return p.Max }},
}

func perSecond(p Point) float64 { return p.PerSecond }

// singlePlots are those of one run: throughput, latencies over time, the
// distribution by kind of operation, errors when there were any.
func singlePlots(r *Result) []plotView {
	var latency, spread []series
	for i, l := range percentileLines {
		latency = append(latency, overTime(l.name, i, r.Timeline, l.of))
	}
	for i, kind := range sortedKeys(r.ByKind) {
		spread = append(spread, byQuantile(kind, i, r.Distribution[kind]))
	}
	plots := []plot{
		throughputPlot([]series{overTime("operations", 0, r.Timeline, perSecond)}),
		{title: "latency over time, ms", x: timeAxis, fromZero: true, lines: latency, logY: true, format: ms},
		spreadPlot(spread),
	}
	plots[2].wide = r.failures() == 0 // else it has a neighbor
	if r.failures() > 0 {
		plots = append(plots, plot{title: "errors per interval", x: timeAxis, fromZero: true, format: amount,
			lines: []series{overTime("errors", 1, r.Timeline, func(p Point) float64 { return float64(p.Errors) })}})
	}
	return views(plots)
}

// comparePlots lay several runs over each other.
func comparePlots(runs []namedResult) []plotView {
	var rates, spread []series
	latency := make([][]series, len(percentileLines))
	for i, run := range runs {
		rates = append(rates, overTime(run.name, i, run.Timeline, perSecond))
		spread = append(spread, byQuantile(run.name, i, run.Distribution[allKinds]))
		for j, l := range percentileLines {
			latency[j] = append(latency[j], overTime(run.name, i, run.Timeline, l.of))
		}
	}
	plots := []plot{throughputPlot(rates), spreadPlot(spread)}
	for j, l := range percentileLines {
		plots = append(plots, plot{title: l.name + " over time, ms", x: timeAxis, fromZero: true, lines: latency[j], logY: true, format: ms})
	}
	return views(plots)
}

func throughputPlot(lines []series) plot {
	return plot{title: "throughput, operations/s", x: timeAxis, fromZero: true, lines: lines, format: amount}
}

func spreadPlot(lines []series) plot {
	return plot{title: "latency by percentile, ms", x: quantileAxis, lines: lines, logY: true, format: ms}
}

// views draws the plots that have something to show.
func views(plots []plot) (out []plotView) {
	for _, p := range plots {
		p.lines = shown(p.lines)
		if len(p.lines) == 0 {
			continue
		}
		v := plotView{Title: p.title, SVG: p.svg(), Wide: p.wide}
		for _, l := range p.lines {
			if len(p.lines) == 1 {
				break // the title names it
			}
			v.Legend = append(v.Legend, legend{l.name, l.class})
		}
		out = append(out, v)
	}
	return out
}

// shown leaves out lines without a point above 0: results of older programs do
// not have all figures.
func shown(lines []series) (out []series) {
	for _, l := range lines {
		if l.highest() > 0 {
			out = append(out, l)
		}
	}
	return out
}

func overTime(name string, i int, timeline []Point, of func(Point) float64) series {
	s := series{name: name, class: seriesClass(i)}
	for _, p := range timeline {
		s.add(p.Seconds, of(p), fmt.Sprintf("%.0f s", p.Seconds))
	}
	return s
}

// byQuantile stretches the axis towards 100 %: the n-th nine has the same width
// as the first. The maximum ends it, at the place of one more halving.
func byQuantile(name string, i int, d []Quantile) series {
	s := series{name: name, class: seriesClass(i)}
	last := 0.0
	for _, q := range d {
		x := last + math.Log10(2)
		if q.Percent < 100 {
			x = nines(q.Percent)
		} else if s.has(q.Millis) {
			continue
		}
		s.add(x, q.Millis, fmt.Sprintf("%.6g %%", q.Percent))
		last = x
	}
	return s
}

// nines is the place of a percentile on the axis: 0 at 0 %, 1 at 90 %, 2 at 99 %.
func nines(percent float64) float64 { return -math.Log10(1 - percent/100) }
