package bench

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"
)

// defaultWidth is that of a terminal which does not say.
const defaultWidth = 80

// live shows each interval while a run goes on: a chart that redraws itself on
// a terminal, a line each elsewhere. It writes to standard error, so that a
// result on standard output stays whole.
type live struct {
	out      io.Writer
	cfg      *Config
	terminal bool
	size     func() (width, height int)
	chart    chart
}

func newLive(out io.Writer, quiet bool, cfg *Config) *live {
	l := &live{out: out, cfg: cfg, size: func() (int, int) { return defaultWidth, 24 }}
	if quiet {
		l.out = io.Discard
		return l
	}
	f, ok := out.(*os.File)
	l.terminal = ok && term.IsTerminal(int(f.Fd())) && os.Getenv("TERM") != "dumb"
	if !l.terminal {
		return l
	}
	l.chart.color = os.Getenv("NO_COLOR") == ""
	l.size = func() (int, int) {
		w, h, err := term.GetSize(int(f.Fd()))
		if err != nil || w <= 0 {
			return defaultWidth, 24
		}
		return w, h
	}
	return l
}

func (l *live) width() int {
	w, _ := l.size()
	return w
}

func (l *live) warmup() {
	if l.cfg.Warmup > 0 {
		_, _ = fmt.Fprintf(l.out, "warming up for %s\n", l.cfg.Warmup)
	}
}

// point shows one interval.
func (l *live) point(p Point) {
	if !l.terminal {
		_, _ = fmt.Fprintln(l.out, pointLine(p))
		return
	}
	l.chart.add(p)
	w, h := l.size()
	_, _ = io.WriteString(l.out, l.chart.draw(w, h, l.title(p)))
}

func pointLine(p Point) string {
	line := fmt.Sprintf("%6.1fs %9.0f ops/s  p50 %8.3f ms  p99 %8.3f ms", p.Seconds, p.PerSecond, p.P50, p.P99)
	if p.Errors > 0 {
		line += fmt.Sprintf("  %d errors", p.Errors)
	}
	return line
}

func (l *live) title(p Point) string {
	at := fmt.Sprintf("%.0f s", p.Seconds)
	if l.cfg.Duration < maxDuration {
		at = fmt.Sprintf("%.0f of %s", p.Seconds, l.cfg.Duration.Round(time.Second))
	}
	text := fmt.Sprintf("%s, %d clients, %s", l.cfg.Workload, l.cfg.Clients, at)
	if p.Errors > 0 {
		text += fmt.Sprintf(", %d errors in this second", p.Errors)
	}
	return text
}

// end leaves the chart on the terminal.
func (l *live) end() {
	if l.terminal {
		_, _ = fmt.Fprintln(l.out)
	}
}
