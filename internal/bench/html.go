package bench

import (
	_ "embed" // report.html
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
	"sort"
	"strings"
	"time"
)

//go:embed report.html
var pageText string

var page = template.Must(template.New("report").Parse(pageText))

// report is what report.html shows.
type report struct {
	Title    string
	Subtitle string
	Tiles    []tile
	Plots    []plotView
	Results  []resultRow
	Compared bool
	Runs     []string
	Settings []settingRow
	Errors   []errorRow
	Notes    []string
	// Colors are the classes of lines.
	Colors []string
}

type tile struct{ Name, Value, Unit string }

type plotView struct {
	Title  string
	Wide   bool
	Legend []legend
	SVG    template.HTML
}

type legend struct{ Name, Class string }

type resultRow struct {
	Run, Class, Kind                    string
	PerSecond, Ratio                    string
	Mean, P50, P95, P99, P999, Max, Num string
}

type settingRow struct {
	Name    string
	Values  []string
	Differs bool
}

type errorRow struct {
	Run, Code string
	Count     string
}

func newReport(runs []namedResult) *report {
	r := &report{Compared: len(runs) > 1, Settings: settings(runs)}
	for i := range maxRuns {
		r.Colors = append(r.Colors, seriesClass(i))
	}
	for i, run := range runs {
		r.Runs = append(r.Runs, run.name)
		r.Results = append(r.Results, resultRows(run, seriesClass(i), runs[0].OpsPerSecond)...)
		r.Errors = append(r.Errors, errorRows(run)...)
		r.Notes = append(r.Notes, notes(run, r.Compared)...)
	}
	if r.Compared {
		r.Title = "kvbench: " + strings.Join(r.Runs, ", ")
		r.Plots = comparePlots(runs)
		return r
	}
	one := runs[0]
	r.Title = fmt.Sprintf("kvbench: %s %s, %d clients", one.Config.Driver, one.Config.Workload, one.Config.Clients)
	r.Subtitle = fmt.Sprintf("%s, %s, for %.1f s", one.StartedAt.Format("2006-01-02 15:04:05 MST"), loop(one.Config), one.Elapsed)
	r.Tiles = tiles(one.Result)
	r.Plots = singlePlots(one.Result)
	return r
}

func tiles(r *Result) []tile {
	out := []tile{{"throughput", amount(r.OpsPerSecond), "operations/s"}}
	if r.Keys != r.Operations {
		out = append(out, tile{"keys", amount(r.KeysPerSecond), "keys/s"})
	}
	return append(out, tile{"p50", ms(r.Latency.P50), "ms"}, tile{"p99", ms(r.Latency.P99), "ms"},
		tile{"p99.9", ms(r.Latency.P999), "ms"}, tile{"errors", amount(float64(r.failures())), ""})
}

// ms writes milliseconds with three digits that matter.
func ms(v float64) string {
	switch {
	case v >= 100:
		return amount(v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

func resultRows(run namedResult, class string, base float64) []resultRow {
	row := func(kind string, l Latency) resultRow {
		rate := 0.0
		if run.Elapsed > 0 {
			rate = float64(l.Operations) / run.Elapsed
		}
		return resultRow{
			PerSecond: amount(rate),
			Run:       run.name, Class: class, Kind: kind, Mean: ms(l.Mean), P50: ms(l.P50), P95: ms(l.P95), P99: ms(l.P99),
			P999: ms(l.P999), Max: ms(l.Max), Num: amount(float64(l.Operations)),
		}
	}
	var rows []resultRow
	if len(run.ByKind) > 1 {
		for _, kind := range sortedKeys(run.ByKind) {
			rows = append(rows, row(kind, run.ByKind[kind]))
		}
	}
	all := row(run.Config.Workload, run.Latency)
	if base > 0 {
		all.Ratio = fmt.Sprintf("%.2f", run.OpsPerSecond/base)
	}
	return append(rows, all)
}

func errorRows(run namedResult) (rows []errorRow) {
	for _, code := range sortedKeys(run.Errors) {
		rows = append(rows, errorRow{run.name, code, amount(float64(run.Errors[code]))})
	}
	return rows
}

// notes say what must not be overlooked in the figures.
func notes(run namedResult, named bool) []string {
	o := run.Open
	if o == nil {
		return nil
	}
	text := fmt.Sprintf("wanted %s/s, achieved %s/s; %s operations started more than %s late, %s did not start and are in no latency",
		amount(o.Target), amount(o.Achieved), amount(float64(o.Late)), lateAfter, amount(float64(o.Missed)))
	if named {
		text = run.name + ": " + text
	}
	return []string{text}
}

// settings are the rows of the runs' configurations, by JSON name.
func settings(runs []namedResult) []settingRow {
	columns := make([]map[string]string, len(runs))
	names := map[string]bool{}
	for i, run := range runs {
		columns[i] = settingsOf(run.Config)
		for name := range columns[i] {
			names[name] = true
		}
	}
	var rows []settingRow
	for _, name := range sortedKeys(names) {
		row := settingRow{Name: name}
		for _, c := range columns {
			row.Values = append(row.Values, c[name])
		}
		row.Differs = slices.ContainsFunc(row.Values, func(v string) bool { return v != row.Values[0] })
		rows = append(rows, row)
	}
	return rows
}

func settingsOf(c *Config) map[string]string {
	out := map[string]string{}
	text, err := json.Marshal(c)
	if err != nil {
		return out // numbers and texts: it does not fail
	}
	var fields map[string]any
	if json.Unmarshal(text, &fields) != nil {
		return out // as above
	}
	for name, v := range fields {
		short, isTime := strings.CutSuffix(name, "_ns")
		switch n, isNumber := v.(float64); {
		case isTime && isNumber:
			out[short] = time.Duration(n).String()
		case isNumber:
			out[name] = decimal(n)
		default:
			out[name] = strings.Trim(fmt.Sprint(v), "[]")
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
