package bench

import (
	"fmt"
	"math"
	"strings"
)

const (
	// chartLabel is the width of a row's name and its newest value.
	chartLabel = 22
	// chartRows is how high throughput is drawn; latencies take one row each.
	chartRows = 4
	// chartLeast is the narrowest and chartHigh the lowest terminal with a
	// chart; others get one line.
	chartLeast = chartLabel + 8
	chartHigh  = chartRows + 4
	// chartMost bounds what is kept, and so the widest chart.
	chartMost = 500
)

// Colors of the rows, as SGR parameters.
const (
	colorRate = "36" // cyan
	colorP50  = "32" // green
	colorP99  = "33" // yellow
)

// chart draws the last intervals in block characters over what it drew before.
type chart struct {
	points []Point
	color  bool
	drawn  int // lines above the cursor that are the chart's
}

func (c *chart) add(p Point) {
	c.points = append(c.points, p)
	if len(c.points) > chartMost {
		c.points = c.points[1:]
	}
}

// draw returns what to write to a terminal of a size. No line is as wide as
// the terminal, so that none wraps.
func (c *chart) draw(width, height int, title string) string {
	lines := []string{pointLine(c.points[len(c.points)-1])}
	if width >= chartLeast && height >= chartHigh {
		lines = c.lines(width-1-chartLabel, title)
	}
	var b strings.Builder
	if c.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", c.drawn)
	}
	b.WriteString("\r")
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\n")
		}
		b.WriteString("\x1b[K" + clip(line, width-1))
	}
	b.WriteString("\x1b[J") // what a higher chart left
	c.drawn = len(lines) - 1
	return b.String()
}

// lines are the title, throughput over several rows, and one per latency.
func (c *chart) lines(columns int, title string) []string {
	points := c.points[max(0, len(c.points)-columns):]
	last := points[len(points)-1]
	lines := []string{title}
	rates := values(points, func(p Point) float64 { return p.PerSecond })
	top := highest64(rates)
	for row := chartRows - 1; row >= 0; row-- {
		label := ""
		switch row {
		case chartRows - 1:
			label = fmt.Sprintf("%-6s %12s", "most/s", amount(top))
		case 0:
			label = fmt.Sprintf("%-6s %12s", "now/s", amount(last.PerSecond))
		}
		lines = append(lines, c.row(label, colorRate, bars(rates, top, row, chartRows)))
	}
	for _, l := range []struct {
		name, color string
		of          func(Point) float64
	}{{"p50", colorP50, func(p Point) float64 { return p.P50 }}, {"p99", colorP99, func(p Point) float64 { return p.P99 }}} {
		v := values(points, l.of)
		label := fmt.Sprintf("%-6s %9.3f ms", l.name, l.of(last))
		lines = append(lines, c.row(label, l.color, bars(v, highest64(v), 0, 1)))
	}
	return lines
}

func (c *chart) row(label, color, bar string) string {
	if c.color {
		bar = "\x1b[" + color + "m" + bar + "\x1b[0m"
	}
	return fmt.Sprintf("%-*s%s", chartLabel, label, bar)
}

// bars draws one row (from 0 at the bottom) of a chart that is rows high.
func bars(v []float64, top float64, row, rows int) string {
	glyphs := []rune(" ▁▂▃▄▅▆▇█")
	full := len(glyphs) - 1
	var b strings.Builder
	for _, x := range v {
		level := 0
		if top > 0 {
			level = int(math.Ceil(x/top*float64(rows*full))) - row*full
		}
		b.WriteRune(glyphs[min(max(level, 0), full)])
	}
	return b.String()
}

func values(points []Point, of func(Point) float64) []float64 {
	out := make([]float64, len(points))
	for i, p := range points {
		out[i] = of(p)
	}
	return out
}

func highest64(v []float64) (most float64) {
	for _, x := range v {
		most = max(most, x)
	}
	return most
}

// amount writes a count with commas.
func amount(v float64) string {
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// clip shortens a line to width columns; colors take none.
func clip(line string, width int) string {
	n, escape, reset := 0, false, ""
	for i, r := range line {
		switch {
		case r == '\x1b':
			escape, reset = true, "\x1b[0m"
		case escape:
			escape = r != 'm'
		default:
			if n++; n > width {
				return line[:i] + reset
			}
		}
	}
	return line
}
