package bench

import (
	"fmt"
	"html/template"
	"math"
	"strings"
)

// Size of a plot in SVG units, and what the axes take of it.
const (
	plotWidth, plotHeight = 640.0, 280.0
	wideWidth             = 1316.0 // of a plot that is as wide as two
	plotLeft, plotRight   = 62.0, 14.0
	plotTop, plotBottom   = 10.0, 30.0
	// maxMarks is up to how many points a line has marks with tooltips.
	maxMarks = 400
)

// series is one line.
type series struct {
	name, class string
	x, y        []float64
	label       []string // what the tooltip calls x
}

func (s *series) add(x, y float64, label string) {
	s.x, s.y, s.label = append(s.x, x), append(s.y, y), append(s.label, label)
}

func (s *series) has(y float64) bool { return len(s.y) > 0 && s.y[len(s.y)-1] == y }

func (s *series) highest() float64 { return highest64(s.y) }

// axis marks values of x.
type axis func(most float64) []mark

type mark struct {
	at   float64
	text string
}

// plot is a line chart.
type plot struct {
	title    string
	lines    []series
	x        axis
	fromZero bool // x begins at 0
	logY     bool
	wide     bool
	format   func(float64) string // of y
}

func (p plot) width() float64 {
	if p.wide {
		return wideWidth
	}
	return plotWidth
}

// svg draws the plot; all text in it is escaped.
func (p plot) svg() template.HTML {
	xs, ys := p.scales()
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %.0f %.0f" role="img" aria-label="%s">`, p.width(), plotHeight, template.HTMLEscapeString(p.title))
	for _, m := range ys.marks {
		y := ys.at(m.at)
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, plotLeft, p.width()-plotRight, y, y)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="end" dy="0.32em">%s</text>`, plotLeft-8, y, template.HTMLEscapeString(m.text))
	}
	bottom := plotHeight - plotBottom
	for _, m := range xs.marks {
		x := xs.at(m.at)
		fmt.Fprintf(&b, `<line class="tick" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, x, x, bottom, bottom+4)
		fmt.Fprintf(&b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, x, bottom+18, template.HTMLEscapeString(m.text))
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, plotLeft, p.width()-plotRight, bottom, bottom)
	for _, l := range p.lines {
		p.line(&b, l, xs, ys)
	}
	b.WriteString(`</svg>`)
	return template.HTML(b.String()) //nolint:gosec // numbers, and texts that were escaped
}

// line draws one series, with invisible marks that carry tooltips.
func (p plot) line(b *strings.Builder, l series, xs, ys scale) {
	fmt.Fprintf(b, `<polyline class="line %s" points="`, l.class)
	for i := range l.x {
		fmt.Fprintf(b, "%.1f,%.1f ", xs.at(l.x[i]), ys.at(l.y[i]))
	}
	b.WriteString(`"/>`)
	if len(l.x) > maxMarks {
		return
	}
	for i := range l.x {
		fmt.Fprintf(b, `<circle class="mark %s" cx="%.1f" cy="%.1f" r="4"><title>%s</title></circle>`, l.class, xs.at(l.x[i]), ys.at(l.y[i]),
			template.HTMLEscapeString(fmt.Sprintf("%s at %s: %s", l.name, l.label[i], p.format(l.y[i]))))
	}
}

// scale maps values to places on the page.
type scale struct {
	low, high float64 // values
	from, to  float64 // places
	log       bool
	marks     []mark
}

func (s scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		low, high, v = math.Log10(low), math.Log10(high), math.Log10(max(v, s.low))
	}
	return s.from + (v-low)/(high-low)*(s.to-s.from)
}

func (p plot) scales() (x, y scale) {
	left, right := math.Inf(1), 0.0
	least, most := math.Inf(1), 0.0
	for _, l := range p.lines {
		for i := range l.x {
			left, right = min(left, l.x[i]), max(right, l.x[i])
			most = max(most, l.y[i])
			if l.y[i] > 0 {
				least = min(least, l.y[i])
			}
		}
	}
	if p.fromZero || right <= left {
		left, right = 0, max(right, 1)
	}
	x = scale{low: left, high: right, from: plotLeft, to: p.width() - plotRight}
	for _, m := range p.x(right) {
		if m.at >= left && m.at <= right {
			x.marks = append(x.marks, m)
		}
	}
	y = scale{high: most, from: plotHeight - plotBottom, to: plotTop, log: p.logY}
	if p.logY {
		y.low, y.high = logStep(least, false), logStep(most*1.0001, true)
		y.marks = p.logMarks(y.low, y.high)
		return x, y
	}
	step := niceStep(most / 4)
	y.high = math.Ceil(most/step) * step
	for v := 0.0; v <= y.high+step/2; v += step {
		y.marks = append(y.marks, mark{v, p.format(v)})
	}
	return x, y
}

// logStep is the next of 1, 2 and 5 times a power of ten, up or down.
func logStep(v float64, up bool) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	steps := []float64{1, 2, 5, 10}
	for i, s := range steps[1:] {
		if v < s*power {
			if up {
				return s * power
			}
			return steps[i] * power
		}
	}
	return 10 * power
}

// logMarks are powers of ten, and 2 and 5 times them while there is room.
func (p plot) logMarks(low, high float64) (marks []mark) {
	factors := []float64{1, 2, 5}
	if math.Log10(high/low) > 2.5 {
		factors = []float64{1}
	}
	for power := math.Pow(10, math.Floor(math.Log10(low))); power <= high*1.001; power *= 10 {
		for _, f := range factors {
			if v := f * power; v >= low*0.999 && v <= high*1.001 {
				marks = append(marks, mark{v, fmt.Sprintf("%g", roundTo(v))})
			}
		}
	}
	return marks
}

// roundTo takes away what binary fractions add.
func roundTo(v float64) float64 { return math.Round(v*1e6) / 1e6 }

// niceStep is the next of 1, 2 and 5 times a power of ten.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	return logStep(v*0.9999, true)
}

// timeAxis is in seconds.
func timeAxis(most float64) (marks []mark) {
	step := max(niceStep(most/7), 1)
	for v := 0.0; v <= most; v += step {
		marks = append(marks, mark{v, fmt.Sprintf("%.0f s", v)})
	}
	return marks
}

// quantileAxis marks 0 %, 50 % and the nines.
func quantileAxis(most float64) []mark {
	marks := []mark{{0, "0"}, {nines(50), "50"}, {1, "90"}, {2, "99"}}
	for n := 3.0; n <= most; n++ {
		marks = append(marks, mark{n, "99." + strings.Repeat("9", int(n)-2)})
	}
	return marks
}
