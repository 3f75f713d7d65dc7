package ctl

import (
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// Values of --output.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
	formatRaw   = "raw"
)

// format is --output, or what suits the command.
func (a *app) format(suits string) string {
	if a.opts.output == "" {
		return suits
	}
	if a.opts.output == formatYAML {
		return formatJSON // what is printed as JSON can be printed as YAML
	}
	return a.opts.output
}

// table prints rows under headers.
func (a *app) table(headers string, rows [][]string) error { return writeTable(a.Out, headers, rows) }

func writeTable(out io.Writer, headers string, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if headers != "" {
		_, _ = fmt.Fprintln(w, strings.Join(strings.Fields(headers), "\t"))
	}
	for _, r := range rows {
		for i, cell := range r {
			r[i] = printable(cell)
			if cell == "" {
				r[i] = "-"
			}
		}
		_, _ = fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// printable quotes text that would disturb a table or a terminal.
func printable(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// fields prints names and values below each other.
func (a *app) fields(pairs ...string) error {
	var rows [][]string
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			rows = append(rows, []string{pairs[i], pairs[i+1]})
		}
	}
	return a.table("", rows)
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

func milli(ms int64) string {
	if ms == 0 {
		return ""
	}
	return when(time.UnixMilli(ms))
}

func number[T ~uint32 | ~uint64 | ~int64](n T) string { return fmt.Sprint(n) }

// revision is empty where nothing was written.
func revision(r uint64) string {
	if r == 0 {
		return ""
	}
	return number(r)
}

// labels prints a map in the order of its names.
func labels(m map[string]string) string {
	out := make([]string, 0, len(m))
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, " ")
}
