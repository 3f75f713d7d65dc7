package experiment

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"kvstore/test/peers/figures"
	"kvstore/test/peers/markers"
)

// Files say where results go.
type Files struct {
	json, markdown, doc string
}

// Flags adds those of the files; name is that of the markers.
func (o *Files) Flags(f *flag.FlagSet, name string) {
	f.StringVar(&o.json, "json", "", "file for the results; standard output when empty")
	f.StringVar(&o.markdown, "markdown", "", "file for the tables")
	f.StringVar(&o.doc, "doc", "", "document that gets the tables between its "+name+" markers")
}

// Write puts results, as JSON, and tables where the files say, and the tables
// on standard error.
func (o *Files) Write(name string, results any, tables string) error {
	text, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	var errs []error
	if o.json == "" {
		_, err = os.Stdout.Write(text)
	} else {
		err = os.WriteFile(o.json, text, 0o644) //nolint:gosec // results are for everybody
	}
	errs = append(errs, err)
	Say("\n%s", tables)
	if o.markdown != "" {
		errs = append(errs, os.WriteFile(o.markdown, []byte(tables), 0o644)) //nolint:gosec // results are for everybody
	}
	if o.doc != "" {
		errs = append(errs, markers.Fill(o.doc, name, tables))
	}
	return errors.Join(errs...)
}

// Say writes a line of progress.
func Say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Results of an experiment are part of the JSON.
type Results interface {
	// Tables is Markdown, beginning with how it was measured.
	Tables() string
}

// Report is the JSON output.
type Report struct {
	Format    int               `json:"format"` // of this document, 1
	Tool      string            `json:"tool"`
	StartedAt time.Time         `json:"started_at"`
	Settings  any               `json:"settings"`
	Machine   map[string]string `json:"machine"`
	Versions  map[string]string `json:"versions"`
	Results   Results           `json:"results"`
}

// tables have the facts above them.
func (r *Report) tables(c *Common) string {
	budget := ""
	if c.MemoryBudget != "" {
		budget = ", memory_budget " + c.MemoryBudget
	}
	return fmt.Sprintf("%s, `%s`. Three nodes of profile %s%s; keys of %d bytes, values of %s bytes, by %s. kvstore %s, %s; %s.\n\n%s",
		r.StartedAt.Format(time.DateOnly), c.Command, c.Profile, budget, c.KeySize, figures.Thousands(float64(c.ValueSize)), c.Mode,
		r.Versions["kvstore"], r.Versions["go"], machineLine(r.Machine), r.Results.Tables())
}

func machineLine(m map[string]string) string {
	return fmt.Sprintf("%s, %s CPUs, %s memory, %s, %s", m["cpu"], m["cpus"], m["memory"], m["kernel"], m["filesystem"])
}
