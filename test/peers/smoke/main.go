// Command smoke runs the measurements of kvstore on its own at the smallest
// scale and checks the form of their results: JSON that says what ran, tables
// whose rows are whole, and a document that has them between its markers.
// Figures and verdicts are not looked at.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kvstore/test/peers/experiment"
)

// limit of one measurement, and the time it has to stop when that is over.
const (
	limit   = 2 * time.Minute
	stopped = 20 * time.Second
)

// measurement is one program with its smallest flags.
type measurement struct {
	name   string
	tables int
	args   []string
}

var measurements = []measurement{
	{"depth", 3, []string{"--rounds", "1", "--duration", "500ms", "--warmup", "200ms", "--keys", "2000", "--clients", "8,32", "--base", "8",
		"--mix-clients", "8", "--large-clients", "1", "--large-size", "1048576"}},
	{"growth", 4, []string{"--rounds", "1", "--duration", "500ms", "--warmup", "200ms", "--first", "2000", "--keys", "4000", "--chunk", "2000", "--clients", "16",
		"--min-free", "1GB", "--memory-budget", "256MB", "--quiet-window", "500ms", "--quiet-limit", "1s",
		"--overwrite", "6s", "--overwrite-interval", "3s", "--overwrite-keys", "500", "--overwrite-clients", "8", "--overwrite-reads", "100"}},
	{"latency", 2, []string{"--rounds", "1", "--duration", "1s", "--warmup", "200ms", "--keys", "2000", "--clients", "32",
		"--put-rate", "200", "--get-rate", "200", "--batch-rate", "50", "--transaction-rate", "50"}},
}

func main() {
	bin := flag.String("bin", "", "directory of the programs; data goes there, too")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	failed := *bin == ""
	if failed {
		experiment.Say("smoke: --bin is needed; scripts/bench-smoke sets it")
	}
	for _, m := range measurements {
		if failed {
			break
		}
		began := time.Now()
		err := m.run(ctx, *bin)
		experiment.Say("smoke: %s: %s in %.0f s", m.name, outcome(err), time.Since(began).Seconds())
		failed = err != nil
	}
	if failed {
		stop()
		os.Exit(1)
	}
}

func outcome(err error) string {
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// run measures and checks.
func (m *measurement) run(ctx context.Context, bin string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	file := func(ext string) string { return filepath.Join(bin, m.name+"-out"+ext) }
	begin, end := "<!-- "+m.name+":begin -->\n", "<!-- "+m.name+":end -->\n"
	if err := os.WriteFile(file(".doc"), []byte("before\n"+begin+end+"after\n"), 0o600); err != nil {
		return err
	}
	args := append([]string{"--bin", bin, "--work", bin, "--json", file(".json"), "--markdown", file(".md"), "--doc", file(".doc"),
		"--command", "scripts/bench-" + m.name, "--timeout", limit.String()}, m.args...)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, m.name), args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = stopped
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return m.check(file(".json"), file(".md"), file(".doc"), begin, end)
}

func (m *measurement) check(jsonFile, markdown, doc, begin, end string) error {
	text, err := os.ReadFile(markdown)
	if err != nil {
		return err
	}
	tables := string(text)
	if err := experiment.CheckTables(tables, m.tables); err != nil {
		return err
	}
	if !strings.Contains(tables, "`scripts/bench-"+m.name+"`") {
		return fmt.Errorf("%s does not name its command", markdown)
	}
	document, err := os.ReadFile(doc)
	if err != nil {
		return err
	}
	if want := "before\n" + begin + strings.TrimRight(tables, "\n") + "\n" + end + "after\n"; string(document) != want {
		return fmt.Errorf("%s does not have the tables between its markers", doc)
	}
	return m.checkJSON(jsonFile)
}

// checkJSON expects everything that a reader needs to repeat the run.
func (m *measurement) checkJSON(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var r struct {
		Format   int               `json:"format"`
		Tool     string            `json:"tool"`
		Settings map[string]any    `json:"settings"`
		Machine  map[string]string `json:"machine"`
		Versions map[string]string `json:"versions"`
		Results  map[string]any    `json:"results"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if r.Format != 1 || r.Tool != "bench-"+m.name || len(r.Settings) < 10 || len(r.Machine) == 0 || r.Versions["kvstore"] == "" || len(r.Results) == 0 {
		return fmt.Errorf("%s lacks something: %.300s", name, text)
	}
	return nil
}
