package bench

import (
	"fmt"
	"io"
	"sort"
	"strings"
	"text/tabwriter"
	"time"
)

// resultFormat changes when fields change their meaning.
const resultFormat = 1

// Result is what a run measured: the JSON output.
type Result struct {
	Format    int       `json:"format"` // of this document, resultFormat
	Tool      string    `json:"tool"`
	Config    *Config   `json:"config"`
	StartedAt time.Time `json:"started_at"`
	// Elapsed is from the end of the warm-up to the last answer.
	Elapsed       float64            `json:"elapsed_seconds"`
	Operations    int64              `json:"operations"`
	Keys          int64              `json:"keys"`
	OpsPerSecond  float64            `json:"operations_per_second"`
	KeysPerSecond float64            `json:"keys_per_second"`
	Latency       Latency            `json:"latency"`
	ByKind        map[string]Latency `json:"by_operation"`
	Errors        map[string]int64   `json:"errors"`
	Timeline      []Point            `json:"timeline"`
	// Distribution is by kind of operation, and of all of them as "all".
	Distribution map[string][]Quantile `json:"distribution,omitempty"`
	// Open is there when the loop was open.
	Open *OpenLoop `json:"open_loop,omitempty"`
}

// OpenLoop says how a run kept its rate.
type OpenLoop struct {
	// Target and Achieved are operations per second.
	Target   float64 `json:"target_per_second"`
	Achieved float64 `json:"achieved_per_second"`
	// Late operations started more than 10 ms after they were due; latency
	// counts that. Missed ones were due and did not start before the end; they
	// are in no latency.
	Late   int64 `json:"late"`
	Missed int64 `json:"missed"`
}

// allKinds names all operations together.
const allKinds = "all"

func (r *run) result() *Result {
	res := &Result{
		Format: resultFormat, Tool: "kvbench", Config: r.cfg, StartedAt: r.measure.UTC(), Elapsed: r.rec.last.Seconds(),
		Keys: r.rec.keys, ByKind: map[string]Latency{}, Errors: r.rec.errors, Timeline: r.rec.timeline,
		Distribution: map[string][]Quantile{},
	}
	all := newHistogram()
	for _, kind := range r.rec.kinds() {
		h := r.rec.hist[kind]
		all.Merge(h)
		res.ByKind[kind], res.Distribution[kind] = summarize(h), distribution(h)
	}
	res.Distribution[allKinds] = distribution(all)
	res.Operations, res.Latency = all.TotalCount(), summarize(all)
	if res.Elapsed > 0 {
		res.OpsPerSecond = float64(res.Operations) / res.Elapsed
		res.KeysPerSecond = float64(res.Keys) / res.Elapsed
	}
	if r.cfg.Rate > 0 {
		res.Open = &OpenLoop{
			Target: r.cfg.Rate, Achieved: res.OpsPerSecond, Late: r.plan.late.Load(), Missed: r.plan.missed(r.stopped, r.cfg.Ops),
		}
	}
	return res
}

// failures counts all errors.
func (r *Result) failures() (n int64) {
	for _, c := range r.Errors {
		n += c
	}
	return n
}

// Print writes the result as text.
func (r *Result) Print(out io.Writer) error {
	c := r.Config
	_, _ = fmt.Fprintf(out, "%s %s, %s, %d clients, %d connections, %d keys of %d bytes, values of %d bytes\n",
		c.Driver, c.Workload, loop(c), c.Clients, c.Connections, c.Keys, c.KeySize, c.ValueSize)
	_, _ = fmt.Fprintf(out, "%d operations in %.1f s: %.0f operations/s", r.Operations, r.Elapsed, r.OpsPerSecond)
	if r.Keys != r.Operations {
		_, _ = fmt.Fprintf(out, ", %.0f keys/s", r.KeysPerSecond)
	}
	_, _ = fmt.Fprintf(out, ", %d errors\n", r.failures())
	if o := r.Open; o != nil {
		_, _ = fmt.Fprintf(out, "wanted %.0f/s, achieved %.0f/s; %d started more than %s late, %d did not start\n",
			o.Target, o.Achieved, o.Late, lateAfter, o.Missed)
	}
	_, _ = fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(w, "ms\tmean\tp50\tp95\tp99\tp99.9\tmax\tcount\t")
	kinds := make([]string, 0, len(r.ByKind))
	for k := range r.ByKind {
		kinds = append(kinds, k)
	}
	sort.Strings(kinds)
	for _, k := range kinds {
		printLatency(w, k, r.ByKind[k])
	}
	if len(kinds) > 1 {
		printLatency(w, allKinds, r.Latency)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	codes := make([]string, 0, len(r.Errors))
	for code, n := range r.Errors {
		codes = append(codes, fmt.Sprintf("  %s: %d\n", code, n))
	}
	sort.Strings(codes)
	if len(codes) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nerrors by code\n%s", strings.Join(codes, ""))
	return err
}

func printLatency(w io.Writer, name string, l Latency) {
	_, _ = fmt.Fprintf(w, "%s\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%d\t\n", name, l.Mean, l.P50, l.P95, l.P99, l.P999, l.Max, l.Operations)
}

func loop(c *Config) string {
	if c.Rate > 0 {
		return fmt.Sprintf("%s, open loop at %.0f/s", c.Mode, c.Rate)
	}
	return c.Mode + ", closed loop"
}
