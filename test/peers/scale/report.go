package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"kvstore/test/peers/figures"
	"kvstore/test/peers/markers"
)

// report is the JSON output.
type report struct {
	Format    int               `json:"format"` // of this document, 1
	Tool      string            `json:"tool"`
	StartedAt time.Time         `json:"started_at"`
	Settings  *settings         `json:"settings"`
	Machine   map[string]string `json:"machine"`
	Control   string            `json:"control_groups"` // v1 or v2
	KVStore   string            `json:"kvstore"`
	Go        string            `json:"go"`
	Idle      []*idleReport     `json:"idle"`
	Rows      []*rowReport      `json:"rows"`
}

// idleReport is what nodes without load use of their limit.
type idleReport struct {
	Nodes  int            `json:"nodes"`
	Rounds []float64      `json:"rounds"`
	Share  figures.Spread `json:"cpu_of_limit"`
}

type rowReport struct {
	row
	Sizes []*sizeReport `json:"sizes"`
}

// sizeReport is one workload on one number of nodes.
type sizeReport struct {
	Nodes     int            `json:"nodes"`
	Rounds    []*measurement `json:"rounds"`
	PerSecond figures.Spread `json:"per_second"`
	P50       figures.Spread `json:"p50_ms"`
	P99       figures.Spread `json:"p99_ms"`
	// Ratio is to the smallest size in the same round.
	Ratio figures.Spread `json:"ratio"`
	// Limit is what most rounds were limited by.
	Limit limit `json:"limited_by"`
}

func newRowReport(r row, sizes []int) *rowReport {
	report := &rowReport{row: r}
	for _, n := range sizes {
		report.Sizes = append(report.Sizes, &sizeReport{Nodes: n})
	}
	return report
}

func (r *rowReport) size(nodes int) *sizeReport {
	for _, s := range r.Sizes {
		if s.Nodes == nodes {
			return s
		}
	}
	panic(fmt.Sprintf("%s: %d nodes are not measured", r.Name, nodes))
}

// idle is the entry of a size.
func (r *report) idle(nodes int) *idleReport {
	for _, i := range r.Idle {
		if i.Nodes == nodes {
			return i
		}
	}
	i := &idleReport{Nodes: nodes}
	r.Idle = append(r.Idle, i)
	return i
}

func (s *sizeReport) of(figure func(*measurement) float64) figures.Spread {
	var values []float64
	for _, m := range s.Rounds {
		values = append(values, figure(m))
	}
	return figures.SpreadOf(values)
}

func (r *report) summarize() {
	for _, i := range r.Idle {
		i.Share = figures.SpreadOf(i.Rounds)
	}
	for _, row := range r.Rows {
		row.summarize()
	}
}

func (r *rowReport) summarize() {
	base := r.Sizes[0]
	for _, s := range r.Sizes {
		s.PerSecond = s.of(func(m *measurement) float64 { return m.PerSecond })
		s.P50 = s.of(func(m *measurement) float64 { return m.P50 })
		s.P99 = s.of(func(m *measurement) float64 { return m.P99 })
		var ratios []float64
		for i, m := range s.Rounds {
			if least := base.Rounds[i].PerSecond; least > 0 {
				ratios = append(ratios, m.PerSecond/least)
			}
		}
		s.Ratio, s.Limit = figures.SpreadOf(ratios), limitOf(s.Rounds)
	}
}

// check says what is missing in a complete report; it judges no figure.
func (r *report) check() error {
	var errs []error
	for _, row := range r.Rows {
		for _, s := range row.Sizes {
			if len(s.Rounds) != r.Settings.Rounds || s.PerSecond.Median <= 0 || s.Ratio.Median <= 0 {
				errs = append(errs, fmt.Errorf("%s on %d nodes: %d rounds, %v/s", row.Name, s.Nodes, len(s.Rounds), s.PerSecond))
			}
		}
		if !strings.Contains(r.table(), "| "+row.Title+" |") {
			errs = append(errs, fmt.Errorf("%s is not in the table", row.Name))
		}
	}
	return errors.Join(errs...)
}

// write puts the results where the settings say.
func (r *report) write(s *settings) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	var errs []error
	if s.json == "" {
		_, err = os.Stdout.Write(text)
	} else {
		err = os.WriteFile(s.json, text, 0o644) //nolint:gosec // results are for everybody
	}
	errs = append(errs, err)
	table := r.table()
	if !s.Smoke { // its figures mean nothing
		say("\n%s", table)
	}
	if s.markdown != "" {
		errs = append(errs, os.WriteFile(s.markdown, []byte(table), 0o644)) //nolint:gosec // results are for everybody
	}
	if s.doc != "" {
		errs = append(errs, markers.Fill(s.doc, "nodes", table))
	}
	return errors.Join(errs...)
}
