package bench

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kvstore/internal/ctl/memserver"
)

func TestReports(t *testing.T) {
	s, dir := memserver.Start(t), t.TempDir()
	html := filepath.Join(dir, "mixed.html")
	var files []string
	for _, work := range []string{WorkMixed, WorkAtomic} {
		code, out, errs := runMain(t, s, "-w", work, "--ops", "300", "--warmup", "0s", "--clients", "4", "--keys", "50",
			"--read-ratio", "0.5", "--html", html, "-o", "json", "-q")
		if code != exitOK {
			t.Fatalf("exit %d: %s", code, errs)
		}
		file := filepath.Join(dir, work+".json")
		if err := os.WriteFile(file, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	checkPage(t, html, "latency by percentile", "latency over time", WorkAtomic)
	both := filepath.Join(dir, "both.html")
	var out, errs bytes.Buffer
	args := append([]string{"report", "--html", both}, append(files, files[0])...)
	if code := Main(context.Background(), args, &out, &errs, nil); code != exitOK {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	checkPage(t, both, "mixed (2)", "p99 over time", "by the first")
}

// checkPage wants text and nothing that is loaded from elsewhere.
func checkPage(t *testing.T, path string, want ...string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range want {
		if !strings.Contains(string(text), w) {
			t.Errorf("%s does not say %q", path, w)
		}
	}
	if m := regexp.MustCompile(`(?i)<script|https?://|@import|url\(|\b(src|href)=|NaN|Inf\b`).Find(text); m != nil {
		t.Errorf("%s has %q", path, m)
	}
}

func TestReportRefusals(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.json")
	if err := os.WriteFile(bad, []byte(`{"tool":"other"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{bad}, exitUsage, "--html names the file"},
		{[]string{"--html", "x"}, exitUsage, "arg"},
		{[]string{bad, "--html", bad + ".html"}, exitError, `tool "other"`},
		{[]string{bad + "no", "--html", "x"}, exitError, "no such file"},
	} {
		var out, errs bytes.Buffer
		code := Main(context.Background(), append([]string{"report"}, c.args...), &out, &errs, nil)
		if code != c.code || !strings.Contains(errs.String(), c.says) {
			t.Errorf("%v: exit %d, %s", c.args, code, errs.String())
		}
	}
}

// TestNamesAreEscaped: names of files and codes of errors come from outside.
func TestNamesAreEscaped(t *testing.T) {
	cfg := Default()
	res := &Result{Config: &cfg, Elapsed: 1, Operations: 1, OpsPerSecond: 1, Errors: map[string]int64{"<i>": 1},
		Timeline:     []Point{{Seconds: 1, PerSecond: 1, P50: 1}, {Seconds: 2, PerSecond: 2, P50: 1}},
		Distribution: map[string][]Quantile{allKinds: {{0, 1}, {50, 2}, {100, 3}}}}
	var b bytes.Buffer
	if err := page.Execute(&b, newReport([]namedResult{{"<b>", res}, {"b", res}})); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "<b>:") || strings.Contains(b.String(), "<b> at") || strings.Contains(b.String(), "<i>") {
		t.Error("a name became markup")
	}
}

func TestPreloadOnlyGrows(t *testing.T) {
	s := memserver.Start(t)
	for _, args := range [][]string{{"--keys", "30"}, {"--keys", "2500", "--keys-from", "30"}} {
		code, out, errs := runMain(t, s, append(args, "--preload-only")...)
		if code != exitOK || out != "" {
			t.Fatalf("exit %d, %q: %s", code, out, errs)
		}
	}
	if s.Len() != 2500 || s.Record("k000000000000029").GetVersion() != 1 {
		t.Errorf("%d keys, the 30th at version %d", s.Len(), s.Record("k000000000000029").GetVersion())
	}
}

func TestSetsShareAHashPart(t *testing.T) {
	k := NewSetKeys("k", 20, 5)
	if a, b := k.Key(11), k.Key(14); a != "k0000{000000002}0001" || b != "k0000{000000002}0004" {
		t.Errorf("%q, %q", a, b)
	}
}
