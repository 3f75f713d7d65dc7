//go:build unix

package docs

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kvstore/test/cluster/harness"
)

var (
	program = regexp.MustCompile(`^(go run \./cmd/)?(kvstore|kvctl|kvbench)( |$)`)
	inline  = regexp.MustCompile("`([^`\n]+)`")
	flag    = regexp.MustCompile("(?:^|[ `(\\[])(--[a-z][a-z0-9.-]+)")
)

// TestCommands: every command that a document shows has the subcommands and
// flags that it is shown with.
func TestCommands(t *testing.T) {
	seen := map[string]bool{}
	for _, doc := range documents(t) {
		for _, command := range commands(t, doc) {
			if seen[command] {
				continue
			}
			seen[command] = true
			for _, words := range alternatives(strings.Fields(command)) {
				parses(t, doc, words)
			}
		}
	}
	if len(seen) < 20 {
		t.Errorf("only %d commands found in the documents", len(seen))
	}
}

// commands are those of the fenced blocks and of the running text.
func commands(t *testing.T, doc string) (all []string) {
	t.Helper()
	var lines []string
	for language, texts := range blocks(t, doc) {
		if language != "" && language != "sh" {
			continue
		}
		for _, text := range texts {
			lines = append(lines, strings.Split(text, "\n")...)
		}
	}
	for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(read(t, doc), ""), -1) {
		lines = append(lines, m[1])
	}
	for _, line := range lines {
		line, _, _ = strings.Cut(line, " # ")
		line, _, _ = strings.Cut(line, "  #")
		line, _, _ = strings.Cut(line, " > ")
		for _, part := range strings.Split(line, "&&") {
			if part = strings.TrimSpace(part); program.MatchString(part) && !strings.Contains(part, "COMMAND") {
				all = append(all, strings.TrimPrefix(part, "go run ./cmd/"))
			}
		}
	}
	return all
}

// alternatives spells out a word of the form a|b|c.
func alternatives(words []string) [][]string {
	for i, w := range words {
		if !strings.Contains(w, "|") {
			continue
		}
		var all [][]string
		for _, one := range strings.Split(w, "|") {
			all = append(all, append(append(append([]string{}, words[:i]...), one), words[i+1:]...))
		}
		return all
	}
	return [][]string{words}
}

// parses asks for help after all flags: an unknown flag before it is refused.
func parses(t *testing.T, doc string, words []string) {
	t.Helper()
	out := help(t, words...)
	if out == "" {
		t.Errorf("%s: %q is refused", doc, strings.Join(words, " "))
	}
	// A subcommand that does not exist gets the help of its parent.
	if len(words) > 1 && !strings.HasPrefix(words[1], "-") && !strings.Contains(words[1], ":") && words[1] != "help" {
		if !strings.Contains(out, words[0]+" "+words[1]) {
			t.Errorf("%s: %q is no command:\n%s", doc, strings.Join(words, " "), out)
		}
	}
}

// help is the help of a command, "" when it is refused.
func help(t *testing.T, words ...string) string {
	t.Helper()
	args := words[1:]
	if end := slices.Index(args, "--"); end >= 0 { // what follows is another program's
		args = args[:end]
	}
	args = append(args[:len(args):len(args)], "--help")
	out, err := exec.Command(harness.Binary(t, words[0]), args...).CombinedOutput()
	if err != nil {
		t.Logf("%s: %v\n%s", strings.Join(words, " "), err, out)
		return ""
	}
	return string(out)
}

// TestFlags: every flag that a guide names exists in one of the program's
// commands.
func TestFlags(t *testing.T) {
	for doc, name := range map[string]string{"docs/kvctl.md": "kvctl", "docs/kvbench.md": "kvbench", "docs/configuration.md": "kvstore"} {
		all := allHelp(t, name)
		named := flag.FindAllStringSubmatch(read(t, doc), -1)
		if len(named) == 0 {
			t.Errorf("%s names no flag", doc)
		}
		for _, m := range named {
			if m[1] != "--help" && !regexp.MustCompile(regexp.QuoteMeta(m[1])+`\b`).MatchString(all) {
				t.Errorf("%s: no command of %s has the flag %s", doc, name, m[1])
			}
		}
	}
}

var subcommand = regexp.MustCompile(`(?m)^  ([a-z]+) `)

// allHelp is the help of a program and of all commands below it.
func allHelp(t *testing.T, words ...string) string {
	t.Helper()
	out := help(t, words...)
	_, list, found := strings.Cut(out, "Commands:\n")
	if !found {
		return out
	}
	list, _, _ = strings.Cut(list, "\n\nFlags:")
	for _, m := range subcommand.FindAllStringSubmatch(list, -1) {
		if m[1] != "help" && m[1] != "completion" {
			out += allHelp(t, append(words[:len(words):len(words)], m[1])...)
		}
	}
	return out
}
