package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kvstore/test/peers/samples"
)

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// table is the Markdown output: microseconds by operation, most first.
func (s *settings) table(columns []*column) string {
	var b strings.Builder
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(&b, format+"\n", args...) }
	line("CPU of three nodes together, %d clients, %s, values of %d bytes, profiled for %s.\n", s.clients, s.mode, s.valueSize, s.duration)
	head, rule := "| component |", "| --- |"
	all := map[samples.Component]time.Duration{}
	for _, c := range columns {
		head += fmt.Sprintf(" %s us | %s share |", c.workload, c.workload)
		rule += " ---: | ---: |"
		for part, d := range c.parts {
			all[part] += d
		}
	}
	line("%s\n%s", head, rule)
	parts := slices.SortedFunc(maps.Keys(all), func(a, b samples.Component) int {
		return cmp.Or(cmp.Compare(all[b], all[a]), cmp.Compare(a, b))
	})
	row := func(name string, figure func(*column) time.Duration) {
		text := "| " + name + " |"
		for _, c := range columns {
			text += fmt.Sprintf(" %.2f | %.0f %% |", us(figure(c)), 100*float64(figure(c))/float64(max(c.total, 1)))
		}
		line("%s", text)
	}
	for _, part := range parts {
		row(string(part), func(c *column) time.Duration { return c.parts[part] })
	}
	row("**all nodes**", func(c *column) time.Duration { return c.total })
	text := "| load generator, by the kernel |"
	for _, c := range columns {
		text += fmt.Sprintf(" %.2f | |", us(c.clientCPU))
	}
	line("%s\n", text)
	for _, c := range columns {
		line("- %s: %.0f/s while profiled, p50 %.2f ms, p99 %.2f ms", c.workload, c.perSecond, c.p50, c.p99)
	}
	return b.String()
}
