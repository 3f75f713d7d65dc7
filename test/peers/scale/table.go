package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kvstore/test/peers/figures"
	"kvstore/test/peers/samples"
)

// table is the Markdown output.
func (r *report) table() string {
	var b strings.Builder
	t := &tables{b: &b, report: r}
	t.head()
	t.growth()
	t.costs()
	t.parts()
	return b.String()
}

type tables struct {
	*report
	b *strings.Builder
}

func (t *tables) line(format string, args ...any) { _, _ = fmt.Fprintf(t.b, format+"\n", args...) }

func (t *tables) head() {
	s := t.Settings
	t.line("%s. %d rounds of %s, %s keys of %d bytes with values of %d bytes on each node, %d clients per node, %d groups of %d replicas. kvstore %s, %s; %s, %s CPUs, %s memory, %s, %s.\n",
		t.StartedAt.Format(time.DateOnly), s.Rounds, s.Duration, figures.Thousands(float64(s.Keys)), s.KeySize, s.ValueSize, s.Clients, s.Groups, factor,
		t.KVStore, t.Go, t.Machine["cpu"], t.Machine["cpus"], t.Machine["memory"], t.Machine["kernel"], t.Machine["filesystem"])
	t.line("Each node has %g CPUs, the generator %g (control groups %s, period %s). Medians; in brackets the lowest and highest ratio of a round.\n",
		s.NodeCPUs, s.GeneratorCPUs, t.Control, s.Period)
}

// growth is a line per workload.
func (t *tables) growth() {
	sizes, base := t.Settings.Sizes, t.Settings.Sizes[0]
	head, rule := "| workload |", "| --- |"
	for _, n := range sizes {
		head += fmt.Sprintf(" %d nodes /s |", n)
		rule += " ---: |"
	}
	for _, n := range sizes[1:] {
		head += fmt.Sprintf(" %d:%d (ideal %.2f) |", n, base, float64(n)/float64(base))
		rule += " ---: |"
	}
	t.line("%s S3.18's ratios | wanted |\n%s ---: | --- |", head, rule)
	for _, row := range t.Rows {
		text := "| " + row.Title + " |"
		for _, s := range row.Sizes {
			text += " " + figures.Thousands(s.PerSecond.Median) + " |"
		}
		var stated []string
		for _, s := range row.Sizes[1:] {
			text += fmt.Sprintf(" %s, %.0f %% of ideal |", s.Ratio, 100*s.Ratio.Median/row.ideal(s.Nodes))
			stated = append(stated, fmt.Sprintf("%.2f", row.stated(s.Nodes)))
		}
		t.line("%s %s | %s |", text, strings.Join(stated, ", "), row.verdict())
	}
}

// costs is a line per workload and size.
func (t *tables) costs() {
	t.line("\n| workload | nodes | p50, p99 ms | CPU of nodes, of their limit | periods throttled | CPU of generator, of its limit | machine busy | node CPU us per operation | log syncs /s | elections | errors | limited by |")
	t.line("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |")
	for _, row := range t.Rows {
		for _, s := range row.Sizes {
			least, most := s.nodes()
			t.line("| %s | %d | %.1f, %.1f | %.0f %% [%.0f, %.0f] | %.0f %% | %.0f %% | %.0f %% | %.0f | %s | %.0f | %d | %s |",
				row.Title, s.Nodes, s.P50.Median, s.P99.Median,
				100*s.median(func(m *measurement) float64 { return m.Nodes.Mean }), 100*least, 100*most,
				100*s.median(throttled), 100*s.median(func(m *measurement) float64 { return m.Generator }),
				100*s.median(func(m *measurement) float64 { return m.Machine }),
				s.median(func(m *measurement) float64 { return m.NodeCPU }),
				figures.Thousands(s.median(func(m *measurement) float64 { return m.LogSyncs })),
				s.sum(func(m *measurement) float64 { return m.Elections }), s.errors(), s.Limit)
		}
	}
	t.line("\nSyncs are of all nodes together, elections and errors of all rounds; the generator's work is the same machine's.")
	var idle []string
	for _, i := range t.Idle {
		idle = append(idle, fmt.Sprintf("%.1f %% of %d", 100*i.Share.Median, i.Nodes))
	}
	if len(idle) > 0 {
		t.line("Without load a node uses, of its limit: %s.", strings.Join(idle, ", "))
	}
}

// parts is a line per component, where profiles were taken.
func (t *tables) parts() {
	all := map[samples.Component]float64{}
	head, rule := "| component, us per operation |", "| --- |"
	for _, row := range t.Rows {
		for _, s := range row.Sizes {
			for part := range s.components() {
				all[part] += s.part(part)
			}
			head += fmt.Sprintf(" %s %d |", row.Name, s.Nodes)
			rule += " ---: |"
		}
	}
	if len(all) == 0 {
		return
	}
	t.line("\n%s\n%s", head, rule)
	order := slices.SortedFunc(maps.Keys(all), func(a, b samples.Component) int {
		return cmp.Or(cmp.Compare(all[b], all[a]), cmp.Compare(a, b))
	})
	for _, part := range order {
		text := "| " + string(part) + " |"
		for _, row := range t.Rows {
			for _, s := range row.Sizes {
				text += fmt.Sprintf(" %.1f |", s.part(part))
			}
		}
		t.line("%s", text)
	}
}

func throttled(m *measurement) float64 {
	return float64(m.Throttle.Throttled) / float64(max(m.Throttle.Periods, 1))
}

func (s *sizeReport) median(figure func(*measurement) float64) float64 { return s.of(figure).Median }

func (s *sizeReport) sum(figure func(*measurement) float64) (sum float64) {
	for _, m := range s.Rounds {
		sum += figure(m)
	}
	return sum
}

// nodes is the least and the most that any node used in any round.
func (s *sizeReport) nodes() (least, most float64) {
	for i, m := range s.Rounds {
		if i == 0 || m.Nodes.Min < least {
			least = m.Nodes.Min
		}
		most = max(most, m.Nodes.Max)
	}
	return least, most
}

func (s *sizeReport) errors() (n int64) {
	for _, m := range s.Rounds {
		for _, c := range m.Errors {
			n += c
		}
	}
	return n
}

// components are those of any round.
func (s *sizeReport) components() map[samples.Component]bool {
	all := map[samples.Component]bool{}
	for _, m := range s.Rounds {
		for part := range m.Parts {
			all[part] = true
		}
	}
	return all
}

func (s *sizeReport) part(c samples.Component) float64 {
	return s.median(func(m *measurement) float64 { return m.Parts[c] })
}
