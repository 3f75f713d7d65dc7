package main

import (
	"fmt"
	"strings"

	"kvstore/test/peers/experiment"
	"kvstore/test/peers/figures"
)

// Tables is the Markdown output.
func (r *results) Tables() string {
	l := r.settings
	head := fmt.Sprintf("Open loop, at most %d outstanding, %d rounds of %s after %s of warm-up, %s keys; medians over the rounds, in milliseconds.\n",
		l.Clients, l.Rounds, l.Duration, l.Warmup, figures.Thousands(float64(l.Keys)))
	return strings.Join([]string{head, r.verdictTable(), r.splitTable()}, "\n")
}

func (r *results) verdictTable() string {
	t := experiment.NewTable(append([]string{"operation", "asked /s", "done /s"}, append(names[:], "errors")...)...)
	for _, row := range r.Rows {
		done := figures.Thousands(row.Rated)
		if !row.loaded() {
			done += ": rate not reached"
		}
		cells := []string{row.Title, figures.Thousands(float64(row.Rate)), done}
		for _, c := range row.Cells {
			cells = append(cells, fmt.Sprintf("%.2f of %g: %s", c.Measured, c.Wanted, experiment.Met(c.Met)))
		}
		t.Row(append(cells, experiment.Codes(experiment.ErrorsOf(row.Runs)))...)
	}
	return t.String()
}

func (r *results) splitTable() string {
	t := experiment.NewTable("operation", "quantile", "client", "request at the node", "entry until applied", "turn of the loop", "sync of the log", "missed: most of it is")
	for _, row := range r.Rows {
		for i, c := range row.Cells {
			part := "-"
			if !c.Met {
				part = c.Part
			}
			s := row.Split
			t.Row(row.Title, c.Quantile, millis(c.Measured), millis(s.Request[i]), millis(s.Commit[i]), millis(s.Turn[i]), millis(s.Sync[i]), part)
		}
	}
	return t.String()
}

// millis writes a figure that may not have been counted.
func millis(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}
