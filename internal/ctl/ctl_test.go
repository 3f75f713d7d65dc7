package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"

	"kvstore/client"
	"kvstore/internal/ctl/lineedit"
	"kvstore/internal/ctl/memserver"
	"kvstore/internal/ctl/target"
)

// isolate gives a test its own home, contexts and state.
func isolate(t *testing.T) {
	t.Helper()
	home := t.TempDir()
	for name, value := range map[string]string{
		"HOME": home, "USERPROFILE": home, "XDG_CONFIG_HOME": filepath.Join(home, "config"),
		"XDG_STATE_HOME": filepath.Join(home, "state"),
		"KVCTL_CONFIG":   "", target.EnvEndpoints: "", target.EnvContext: "", target.EnvToken: "",
	} {
		t.Setenv(name, value)
	}
}

// result is what one command line did.
type result struct {
	out, err string
	code     int
}

func kvctl(stdin string, args ...string) result {
	var out, errs bytes.Buffer
	code := Run(context.Background(), args, Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs})
	return result{out.String(), errs.String(), code}
}

// TestScripts runs the scripts of testdata: each directive is a command line
// of kvctl, input is its standard input, -rewrite writes the outputs again.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		isolate(t)
		s := memserver.Start(t)
		t.Setenv(target.EnvEndpoints, s.Addr)
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			return script(t, s, d)
		})
	})
}

func script(t *testing.T, s *memserver.Server, d *datadriven.TestData) string {
	t.Helper()
	lines := strings.SplitN(d.Input, "\n", 2)
	stdin := ""
	if len(lines) == 2 {
		stdin = lines[1]
	}
	switch d.Cmd {
	case "fail": // every later operation fails with this code
		code := strings.TrimSpace(lines[0])
		if code == "" {
			s.FailWith(nil)
			return "ok\n"
		}
		s.FailWith(func(string, string) error { return memserver.Errorf(code, "made to fail") })
		return "ok\n"
	case "run":
	default:
		t.Fatalf("%s: unknown directive %s", d.Pos, d.Cmd)
	}
	words, err := lineedit.Split(lines[0])
	if err != nil {
		t.Fatalf("%s: %v", d.Pos, err)
	}
	r := kvctl(stdin, words...)
	out := r.out
	if r.err != "" {
		out += "stderr: " + r.err
	}
	if out != "" && !strings.HasSuffix(out, "\n") {
		out += "(no newline)\n"
	}
	if r.code != 0 {
		out += fmt.Sprintf("exit %d\n", r.code)
	}
	if strings.Contains(out, s.Addr) { // its length changes the columns
		out = regexp.MustCompile(` {2,}`).ReplaceAllString(strings.ReplaceAll(out, s.Addr, "ADDR"), "  ")
	}
	return out
}

func TestPutAndGetBytes(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	value := make([]byte, 1<<20)
	for i := range value {
		value[i] = byte(i * 31)
	}
	file := filepath.Join(t.TempDir(), "x.png")
	if err := os.WriteFile(file, value, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"put", "a", "-e", s.Addr}, {"put", "a", "--file", file, "-e", s.Addr}} {
		if r := kvctl(string(value), args...); r.code != 0 {
			t.Fatalf("%v: %+v", args, r)
		}
		if r := kvctl("", "get", "a", "-e", s.Addr); r.out != string(value) {
			t.Fatalf("%v: value came back with %d bytes", args, len(r.out))
		}
	}
	if got := s.Record("a").GetContentType(); got != "image/png" {
		t.Errorf("content type %q", got)
	}
	back := filepath.Join(t.TempDir(), "back")
	if r := kvctl("", "get", "a", "--file", back, "-e", "grpc://"+s.Addr); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if b, err := os.ReadFile(back); err != nil || !bytes.Equal(b, value) {
		t.Errorf("file has %d bytes, %v", len(b), err)
	}
}

func TestValueTooLarge(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	big := strings.Repeat("x", 16<<20)
	if r := kvctl(big, "put", "a", "-e", s.Addr); r.code != 0 {
		t.Fatalf("16 MB: %+v", r)
	}
	r := kvctl(big+"x", "put", "a", "-e", s.Addr)
	if r.code != exitRefused || !strings.Contains(r.err, "value_too_large") || !strings.Contains(r.err, "limit=16777216") {
		t.Fatalf("one byte more: %d %s", r.code, r.err)
	}
}

func TestUnreachableNamesItsEndpoint(t *testing.T) {
	isolate(t)
	t.Setenv(target.EnvEndpoints, "127.0.0.1:1")
	r := kvctl("", "get", "a", "--timeout", "50ms")
	if r.code != exitUnavailable || !strings.Contains(r.err, "127.0.0.1:1, from KVCTL_ENDPOINTS") {
		t.Fatalf("%+v", r)
	}
}

func TestShortForm(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	for _, args := range [][]string{{s.Addr}, {"grpc://" + s.Addr}, {"shell", s.Addr}} {
		r := kvctl("put a 'b c'\nget a\nget missing\n# note\nuse nope\nexit\nget a\n", args...)
		if !strings.Contains(r.out, "b c\n") || strings.Count(r.out, "b c") != 1 || r.code != exitNotFound {
			t.Errorf("%v: %+v", args, r)
		}
	}
}

func TestShellNamespace(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	r := kvctl("namespace create other\nput a default\nuse other\nput a other\nget a\nuse default\nget a -o json\nget a\nuse\n", s.Addr)
	if r.code != 0 || !strings.Contains(r.out, "other\nKEY") || !strings.HasSuffix(r.out, "}\ndefault\ndefault\n") {
		t.Errorf("%+v", r)
	}
}

func TestCompletion(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	kvctl("put user:1 a\nput user:2 b\nput other c\n", s.Addr)
	r := kvctl("", "__complete", "-e", s.Addr, "get", "user:")
	if !strings.Contains(r.out, "user:1\nuser:2\n:") {
		t.Errorf("%+v", r)
	}
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		if r := kvctl("", "completion", shell); r.code != 0 || !strings.Contains(r.out, "kvctl") {
			t.Errorf("%s: exit %d", shell, r.code)
		}
	}
	if r := kvctl("", "completion", "tcsh"); r.code != exitUsage || !strings.Contains(r.err, "tcsh") {
		t.Errorf("tcsh: %+v", r)
	}
	for flag, want := range map[string]string{"--output": "table\njson\nyaml\nraw\n", "--read": "leader\nany\nnearest\n"} {
		if r := kvctl("", "__complete", "get", flag, ""); !strings.HasPrefix(r.out, want) {
			t.Errorf("%s: %+v", flag, r)
		}
	}
	a := &app{inShell: true, base: context.Background(), opts: options{Flags: target.Default()}}
	a.opts.Endpoints = []string{s.Addr}
	defer a.close()
	if got := a.completeLine(context.Background(), "get us"); len(got) != 2 || got[0] != "get user:1" {
		t.Errorf("%q", got)
	}
	if got := a.completeLine(context.Background(), "sta"); len(got) != 1 || got[0] != "status " {
		t.Errorf("%q", got)
	}
}

func TestInterrupted(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var out, errs bytes.Buffer
	code := Run(ctx, []string{"get", "a", "-e", s.Addr}, Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	if code != exitInterrupted {
		t.Errorf("exit %d, %s", code, errs.String())
	}
}

// TestVersion: every form of output, and --version.
func TestVersion(t *testing.T) {
	isolate(t)
	for form, want := range map[string]string{"table": `^kvctl \S+ \(format \d+, go`, "json": `^\{"go":"go.*"version":"\S+"\}\n$`, "raw": `^\S+\n$`} {
		if r := kvctl("", "version", "-o", form); r.code != 0 || !regexp.MustCompile(want).MatchString(r.out) {
			t.Errorf("%s: %+v", form, r)
		}
	}
	if r := kvctl("", "--version"); r.code != 0 || !strings.HasPrefix(r.out, "kvctl ") {
		t.Errorf("--version: %+v", r)
	}
}

// TestErrorsOfOurOwn have codes too, and failed handshakes say what to try.
func TestErrorsOfOurOwn(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	for want, args := range map[string][]string{
		`{"error":{"code":"error","message":"open `:                                      {"export", "jsonl", filepath.Join(t.TempDir(), "none", "x")},
		`{"error":{"code":"not_found","message":"unknown context `:                       {"context", "use", "none"},
		`{"error":{"code":"usage"`:                                                       {"get"},
		`"hint":"endpoints ` + s.Addr + `, from --endpoints; the nodes do not use TLS: `: {"get", "k", "--tls", "--timeout", "1s"},
	} {
		if r := kvctl("", append(args, "-o", "json", "-e", s.Addr)...); r.code == 0 || !strings.Contains(r.err, want) {
			t.Errorf("%v: %+v", args, r)
		}
	}
	r := kvctl("{\"key\":\"a\"}\n{\"nonsense\":1}\n", "import", "jsonl", "-", "-o", "json", "-e", s.Addr)
	if r.code != exitPartial || !strings.Contains(r.err, `{"error":{"code":"partial"`) {
		t.Errorf("import: %+v", r)
	}
	r = kvctl("", "import", "dir", filepath.Join(t.TempDir(), "none"), "-e", s.Addr)
	if r.code != exitError || r.out != "" || strings.Contains(r.err, "resume") {
		t.Errorf("import of a directory that is not there: %+v", r)
	}
}

// TestExitCodes holds the mapping of docs/kvctl.md.
func TestExitCodes(t *testing.T) {
	ctx := context.Background()
	for code, want := range map[client.Code]int{
		client.CodeNotFound: 3, client.CodeNamespaceNotFound: 3, client.CodeConditionFailed: 4, client.CodeNamespaceExists: 4,
		client.CodeBatchAborted: 4, client.CodeUnavailable: 5, client.CodeDeadlineExceeded: 5, client.CodeUnknownOutcome: 6,
		client.CodeOverloaded: 7, client.CodeValueTooLarge: 8, client.CodeKeyTooLarge: 8, client.CodeInvalidKey: 8,
		client.CodeCrossGroup: 8, client.CodeOutOfRange: 8, client.CodeCorruption: 9, client.CodeUnauthenticated: 10,
		client.CodePermissionDenied: 10, client.CodeInternal: 1, "a_new_one": 1,
	} {
		if got := exitCode(ctx, fmt.Errorf("wrapped: %w", &client.Error{Code: code})); got != want {
			t.Errorf("%s: exit %d, want %d", code, got, want)
		}
	}
	if got := exitCode(ctx, errors.New("foreign")); got != exitError {
		t.Errorf("a foreign error: exit %d", got)
	}
	batch := &client.BatchError{Total: 2, Items: map[int]error{1: &client.Error{Code: client.CodeOverloaded}}}
	if got := exitCode(ctx, batch); got != exitOverloaded {
		t.Errorf("a batch: exit %d", got)
	}
}
