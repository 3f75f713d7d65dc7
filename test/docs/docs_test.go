//go:build unix

// Package docs runs what the documents tell people to type.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"kvstore/internal/server/servertest"
	"kvstore/test/cluster/harness"
)

const root = "../.."

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// run says which test runs the sh blocks of a document. Such a block is a
// promise: it works as it stands. Other blocks are checked by TestCommands.
var run = map[string]string{
	"README.md":    "TestReadme",
	"docs/rest.md": "TestREST",
}

// TestREST: the session with curl, its output included, on a real cluster.
func TestREST(t *testing.T) {
	harness.Need(t, "bash")
	harness.Need(t, "curl")
	c := harness.Start(t, harness.Options{})
	n := c.Nodes()[1]
	servertest.RunSession(t, filepath.Join(root, "docs/rest.md"), c.URL(n, ""))
}

// TestEveryRunnableBlock: no document has a sh block that nothing runs.
func TestEveryRunnableBlock(t *testing.T) {
	for _, doc := range documents(t) {
		blocks := blocks(t, doc)
		if n := len(blocks["sh"]); n > 0 && run[doc] == "" {
			t.Errorf("%s has %d sh blocks that no test runs", doc, n)
		}
		for _, language := range []string{"bash", "shell", "console"} {
			if len(blocks[language]) > 0 {
				t.Errorf("%s: a block is marked %s; mark it sh and let a test run it, or leave the mark out", doc, language)
			}
		}
	}
}

// documents are all that people read, relative to the root.
func documents(t *testing.T) (all []string) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "docs/*/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, filepath.ToSlash(rel))
		}
	}
	return all
}

func read(t *testing.T, doc string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, doc))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// blocks are a document's fenced blocks by language.
func blocks(t *testing.T, doc string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	for _, m := range fence.FindAllStringSubmatch(read(t, doc), -1) {
		all[m[1]] = append(all[m[1]], strings.TrimSpace(m[2]))
	}
	return all
}
