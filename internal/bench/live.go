package bench

import (
	"fmt"
	"io"
	"strings"

	"golang.org/x/term"
)

// liveWidth is how many intervals the chart shows.
const liveWidth = 30

// live shows each interval: one line that redraws itself with a small chart
// on a terminal, plain lines elsewhere.
type live struct {
	out      io.Writer
	terminal bool
	rates    []float64
}

func newLive(out io.Writer) *live {
	f, ok := out.(interface{ Fd() uintptr })
	return &live{out: out, terminal: ok && term.IsTerminal(int(f.Fd()))}
}

// message writes something else than an interval.
func (l *live) message(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if l.terminal {
		_, _ = fmt.Fprintf(l.out, "\r\x1b[K%s", text)
		return
	}
	_, _ = fmt.Fprintln(l.out, text)
}

func (l *live) point(p Point) {
	l.rates = append(l.rates, p.PerSecond)
	if len(l.rates) > liveWidth {
		l.rates = l.rates[1:]
	}
	line := fmt.Sprintf("%6.1fs %9.0f ops/s  p50 %8.3f ms  p99 %8.3f ms", p.Seconds, p.PerSecond, p.P50, p.P99)
	if p.Errors > 0 {
		line += fmt.Sprintf("  %d errors", p.Errors)
	}
	if l.terminal {
		line += "  " + spark(l.rates)
	}
	l.message("%s", line)
}

// end leaves the line on the terminal.
func (l *live) end() {
	if l.terminal {
		_, _ = fmt.Fprintln(l.out)
	}
}

// spark draws values as bars relative to their maximum.
func spark(values []float64) string {
	const bars = "▁▂▃▄▅▆▇█"
	glyphs := []rune(bars)
	most := 0.0
	for _, v := range values {
		most = max(most, v)
	}
	var b strings.Builder
	for _, v := range values {
		i := 0
		if most > 0 {
			i = int(v / most * float64(len(glyphs)-1))
		}
		b.WriteRune(glyphs[i])
	}
	return b.String()
}
