// Package progress shows how far long work is: a bar that redraws itself on a
// terminal, plain lines now and then elsewhere.
package progress

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	barEvery  = 200 * time.Millisecond
	lineEvery = 5 * time.Second
	barWidth  = 24
)

// Counts is how far the work is.
type Counts struct {
	Items, Bytes, Failed int64
	// Before is how many of Items were finished before the clock began to run.
	Before int64
	// NoBytes: items have no size.
	NoBytes bool
	// TotalItems and TotalBytes are 0 while unknown.
	TotalItems, TotalBytes int64
}

// Progress counts work and shows it. Its methods may be called by many
// goroutines; the zero value counts and shows nothing.
type Progress struct {
	items, bytes, failed   atomic.Int64
	totalItems, totalBytes atomic.Int64
	before                 atomic.Int64
	noBytes                atomic.Bool

	w        io.Writer
	terminal bool
	width    func() int
	now      func() time.Time
	started  time.Time
	mu       sync.Mutex // guards label, started, drawn and writes to w
	label    string
	drawn    bool
	stop     chan struct{}
	stopped  chan struct{}
}

// New returns a Progress that writes to w. With terminal it draws a bar no
// wider than width says.
func New(w io.Writer, label string, terminal bool, width func() int) *Progress {
	return &Progress{w: w, label: label, terminal: terminal, width: width, now: time.Now}
}

// Start shows the progress until Stop.
func (p *Progress) Start() {
	if p.w == nil {
		return
	}
	p.started = p.now()
	p.stop, p.stopped = make(chan struct{}), make(chan struct{})
	every := lineEvery
	if p.terminal {
		every = barEvery
	}
	go func() {
		defer close(p.stopped)
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				p.Show()
			case <-p.stop:
				return
			}
		}
	}()
}

// Stop ends the showing; on a terminal the last state stays.
func (p *Progress) Stop() {
	if p.stop == nil {
		return
	}
	close(p.stop)
	<-p.stopped
	p.stop = nil
	if !p.terminal {
		return
	}
	p.Show()
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.w, "\n")
	p.drawn = false
}

// Phase starts counting something else, of which there are items with bytes
// (0 while unknown).
func (p *Progress) Phase(label string, items, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.label = label
	if p.now != nil {
		p.started = p.now()
	}
	p.items.Store(0)
	p.bytes.Store(0)
	p.failed.Store(0)
	p.before.Store(0)
	p.Total(items, bytes)
}

// Watch begins to show work without sizes, of which some was finished before.
func (p *Progress) Watch(items int64) {
	p.noBytes.Store(true)
	p.items.Store(items)
	p.before.Store(items)
}

// Reached sets how many items are finished.
func (p *Progress) Reached(items int64) { p.items.Store(items) }

// Total sets how much there is.
func (p *Progress) Total(items, bytes int64) {
	p.totalItems.Store(items)
	p.totalBytes.Store(bytes)
}

// Add counts finished work.
func (p *Progress) Add(items, bytes int64) {
	p.items.Add(items)
	p.bytes.Add(bytes)
}

// Fail counts one failed item.
func (p *Progress) Fail() { p.failed.Add(1) }

// Counts returns how far the work is.
func (p *Progress) Counts() Counts {
	return Counts{
		Items: p.items.Load(), Bytes: p.bytes.Load(), Failed: p.failed.Load(), Before: p.before.Load(), NoBytes: p.noBytes.Load(),
		TotalItems: p.totalItems.Load(), TotalBytes: p.totalBytes.Load(),
	}
}

// Print writes a line above the bar.
func (p *Progress) Print(line string) {
	if p.w == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.drawn {
		_, _ = io.WriteString(p.w, "\r\x1b[K")
		p.drawn = false
	}
	_, _ = io.WriteString(p.w, line+"\n")
}

// Show writes the state once.
func (p *Progress) Show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := Line(p.label, p.Counts(), p.now().Sub(p.started), p.terminal)
	if !p.terminal {
		_, _ = io.WriteString(p.w, line+"\n")
		return
	}
	if w := p.width(); w > 1 && len(line) > w-1 {
		line = line[:w-1]
	}
	_, _ = io.WriteString(p.w, "\r\x1b[K"+line)
	p.drawn = true
}

// Line returns one line about c after elapsed, with a bar or without.
func Line(label string, c Counts, elapsed time.Duration, bar bool) string {
	var b strings.Builder
	b.WriteString(label)
	done := c.Items + c.Failed
	if c.TotalItems > 0 {
		share := min(float64(done)/float64(c.TotalItems), 1)
		if bar {
			n := int(share * barWidth)
			b.WriteString(" [" + strings.Repeat("#", n) + strings.Repeat(".", barWidth-n) + "]")
		}
		fmt.Fprintf(&b, " %3.0f%% %d/%d", share*100, done, c.TotalItems)
	} else {
		fmt.Fprintf(&b, " %d", done)
	}
	b.WriteString(" items")
	if !c.NoBytes {
		b.WriteString(", " + Bytes(c.Bytes))
	}
	if s := elapsed.Seconds(); s > 0 {
		fmt.Fprintf(&b, ", %.0f items/s", float64(c.Items-c.Before)/s)
		if !c.NoBytes {
			fmt.Fprintf(&b, ", %s/s", Bytes(int64(float64(c.Bytes)/s)))
		}
		if left, now := c.TotalItems-done, done-c.Before; left > 0 && now > 0 {
			eta := time.Duration(float64(elapsed) / float64(now) * float64(left))
			fmt.Fprintf(&b, ", %s left", eta.Round(time.Second))
		}
	}
	if c.Failed > 0 {
		fmt.Fprintf(&b, ", %d failed", c.Failed)
	}
	return b.String()
}

// Bytes returns n in binary units with one decimal.
func Bytes(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, units := float64(n)/unit, "KMGTPE"
	i := 0
	for f >= unit && i < len(units)-1 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
