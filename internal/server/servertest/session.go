package servertest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"
)

// RunSession runs the shell session of a document against a server: every
// fenced sh block, in order, in one shell in an empty directory, with KV as the
// server's base URL. Lines that begin with "#> " say what the block prints, all
// of it; "*" in them stands for any text. It needs bash and curl;
// without them it is skipped, or fails with TEST_NO_SKIP=1.
func RunSession(t *testing.T, document, baseURL string) {
	t.Helper()
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("TEST_NO_SKIP") != "1" {
			t.Skipf("%s is not installed", tool)
		} else if err != nil {
			t.Fatalf("%s is not installed, and TEST_NO_SKIP=1", tool)
		}
	}
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	blocks := shellBlocks(string(text))
	if len(blocks) == 0 {
		t.Fatalf("%s has no sh block", document)
	}
	got := runBlocks(t, blocks, baseURL)
	for i, b := range blocks {
		compare(t, fmt.Sprintf("%s:%d", path.Base(document), b.line), b.expected, got[i])
	}
}

// block is one fenced sh block.
type block struct {
	line     int
	script   string
	expected []string
}

func shellBlocks(text string) []block {
	var all []block
	var open *block
	for i, line := range strings.Split(text, "\n") {
		switch {
		case open == nil && strings.TrimSpace(line) == "```sh":
			open = &block{line: i + 1}
		case open != nil && strings.TrimSpace(line) == "```":
			all, open = append(all, *open), nil
		case open != nil:
			open.script += line + "\n"
			if expected, ok := strings.CutPrefix(line, "#> "); ok {
				open.expected = append(open.expected, expected)
			}
		}
	}
	return all
}

const mark = "==== end of block ===="

// runBlocks returns what each block printed, as lines without trailing spaces.
func runBlocks(t *testing.T, blocks []block, baseURL string) [][]string {
	t.Helper()
	var script strings.Builder
	for _, b := range blocks {
		fmt.Fprintf(&script, "%s\nprintf '\\n%s\\n'\n", b.script, mark)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-u", "-c", script.String())
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "KV="+baseURL)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("session failed: %v\n%s\n%s", err, out.String(), errs.String())
	}
	parts := strings.Split(out.String(), mark)
	all := make([][]string, len(blocks))
	for i := range blocks {
		for line := range strings.SplitSeq(parts[i], "\n") {
			if line = strings.TrimRight(line, " \r"); line != "" {
				all[i] = append(all[i], line)
			}
		}
	}
	return all
}

func compare(t *testing.T, where string, expected, got []string) {
	t.Helper()
	for i := range max(len(expected), len(got)) {
		var e, g string
		if i < len(expected) {
			e = strings.TrimRight(expected[i], " ")
		}
		if i < len(got) {
			g = got[i]
		}
		if !matches(e, g) {
			t.Errorf("%s: output line %d\nexpected: %s\n     got: %s\nall: %q", where, i+1, e, g, got)
			return
		}
	}
}

// matches compares text with a pattern in which * stands for any text.
func matches(pattern, text string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == text
	}
	rest, ok := strings.CutPrefix(text, parts[0])
	for _, p := range parts[1 : len(parts)-1] {
		if !ok {
			return false
		}
		_, rest, ok = strings.Cut(rest, p)
	}
	return ok && strings.HasSuffix(rest, parts[len(parts)-1])
}
