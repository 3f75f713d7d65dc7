// Package rules holds the rules of the repository as tests.
package rules

import (
	"bufio"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const root = "../.."

// layers is DESIGN 3 from top to bottom: a package imports only from lines
// below its own, or from its own line where that line is one component.
var layers = [][]string{
	{"cmd/"},
	{"sim", "test/chaosnode", "test/cluster", "test/docs", "test/faultfs", "test/peers", "test/rules"},
	{"test/cgroup", "test/history", "test/lockcheck"},
	{"internal/command"},
	{"internal/bench", "internal/dev"},
	{"internal/ctl"},
	{"client/collections", "client/concurrency"},
	{"client"},
	{"internal/node"},
	{"internal/server/servertest"},
	{"internal/server/listen", "internal/server/rest", "internal/server/rpc", "internal/server/peer"},
	{"internal/guard"},
	{"internal/server/status"},
	{"internal/meta", "internal/balancer", "internal/mover", "internal/watch", "internal/lease"},
	{"internal/router"},
	{"internal/host"},
	{"internal/replica"},
	{"internal/transport", "internal/raftlog"},
	{"internal/mvcc"},
	{"internal/engine", "internal/sstable"},
	{"internal/config"},
	{"internal/membership", "internal/gossip", "internal/placement", "internal/version"},
	{"internal/format", "internal/txnform", "internal/moment"},
	{"internal/twophase"},
	{"internal/keyspace", "internal/pipelink"},
	{"internal/metrics", "internal/profiling", "internal/tlsconf", "internal/env", "internal/dirlock", "internal/deadline", "internal/wirebuf", "internal/jsondoc"},
	{"internal/fault", "internal/invariant"},
	{"api/"},
}

func layerOf(pkg string) int {
	for i, line := range layers {
		for _, prefix := range line {
			if pkg == strings.TrimSuffix(prefix, "/") || strings.HasPrefix(pkg, strings.TrimSuffix(prefix, "/")+"/") {
				return i
			}
		}
	}
	return -1
}

// component is the part of a layer whose packages may import each other.
func component(pkg string) string {
	parts := strings.Split(pkg, "/")
	return strings.Join(parts[:min(2, len(parts))], "/")
}

type file struct {
	path, pkg string
	ast       *ast.File
	fset      *token.FileSet
}

// files parses every Go file of the product.
func files(t *testing.T, tests bool) []file {
	t.Helper()
	var out []file
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if rel == "tools" || (strings.HasPrefix(d.Name(), ".") && rel != ".") || d.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || (!tests && strings.HasSuffix(path, "_test.go")) {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, file{path: filepath.ToSlash(rel), pkg: filepath.ToSlash(filepath.Dir(rel)), ast: f, fset: fset})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLayers(t *testing.T) {
	for _, f := range files(t, false) {
		own := layerOf(f.pkg)
		if own < 0 {
			t.Errorf("%s: package %s is in no layer; place it in test/rules", f.path, f.pkg)
			continue
		}
		for _, spec := range f.ast.Imports {
			imported, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), "kvstore/")
			if !ours {
				continue
			}
			below := layerOf(imported)
			if below > own || (below == own && component(imported) == component(f.pkg)) {
				continue
			}
			t.Errorf("%s: %s imports %s, which is not below it", f.path, f.pkg, imported)
		}
	}
}

// TestOneBadgerImporter: only engine/badger knows the engine below it.
func TestOneBadgerImporter(t *testing.T) {
	for _, f := range files(t, true) {
		for _, spec := range f.ast.Imports {
			if strings.Contains(spec.Path.Value, "dgraph-io/badger") && f.pkg != "internal/engine/badger" {
				t.Errorf("%s imports Badger", f.path)
			}
		}
	}
}

// TestGossipIsHintsOnly: what decides and moves data does not know gossip, and
// so cannot depend on it (DESIGN 11).
func TestGossipIsHintsOnly(t *testing.T) {
	for _, f := range files(t, true) {
		for _, spec := range f.ast.Imports {
			if spec.Path.Value == `"kvstore/internal/gossip"` && f.pkg != "internal/node" && f.pkg != "internal/command" {
				t.Errorf("%s imports gossip", f.path)
			}
			if strings.Contains(spec.Path.Value, "hashicorp/memberlist") && f.pkg != "internal/gossip" {
				t.Errorf("%s imports memberlist", f.path)
			}
		}
	}
}

// banned are calls that deterministic packages must not make.
var banned = map[string][]string{
	"internal/replica": {"time.Now", "time.Sleep", "time.After", "os.", "rand.", "net."},
	"internal/host":    {"time.Now", "time.Sleep", "time.After", "os.", "rand.", "net."},
	"internal/mvcc":    {"time.Now", "time.Sleep", "os."},
	"sim":              {"time.Now", "time.Sleep", "os."},
}

func TestDeterministicPackages(t *testing.T) {
	for _, f := range files(t, false) {
		eachCall(f, func(call string, line int) {
			for _, b := range banned[f.pkg] {
				if call == b || (strings.HasSuffix(b, ".") && strings.HasPrefix(call, b) && call != "rand.New" && call != "rand.NewPCG") {
					t.Errorf("%s:%d calls %s", f.path, line, call)
				}
			}
		})
		if len(banned[f.pkg]) == 0 || f.pkg == "internal/mvcc" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok && f.pkg != "internal/host" {
				t.Errorf("%s:%d starts a goroutine", f.path, f.fset.Position(g.Pos()).Line)
			}
			return true
		})
	}
}

// TestNoSleepingTests: tests wait for events, never for time.
func TestNoSleepingTests(t *testing.T) {
	for _, f := range files(t, true) {
		if !strings.HasSuffix(f.path, "_test.go") {
			continue
		}
		eachCall(f, func(call string, line int) {
			if call == "time.Sleep" {
				t.Errorf("%s:%d sleeps", f.path, line)
			}
		})
	}
}

func eachCall(f file, visit func(call string, line int)) {
	ast.Inspect(f.ast, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		if sel, ok := c.Fun.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				visit(x.Name+"."+sel.Sel.Name, f.fset.Position(c.Pos()).Line)
			}
		}
		return true
	})
}

func TestPackageComments(t *testing.T) {
	documented := make(map[string]bool)
	packages := make(map[string]string)
	for _, f := range files(t, false) {
		packages[f.pkg] = f.path
		if f.ast.Doc != nil || strings.HasPrefix(f.pkg, "api/") {
			documented[f.pkg] = true
		}
	}
	for pkg, path := range packages {
		if !documented[pkg] {
			t.Errorf("%s: package %s has no package comment", path, pkg)
		}
	}
}

// TestFileSizes: no god file.
func TestFileSizes(t *testing.T) {
	const most = 600
	for _, f := range files(t, false) {
		if strings.HasSuffix(f.path, ".pb.go") {
			continue
		}
		if lines := f.fset.Position(f.ast.End()).Line; lines > most {
			t.Errorf("%s has %d lines, at most %d; split it by stage", f.path, lines, most)
		}
	}
}

// TestChangelogForm: sections of Keep a Changelog, newest first, one line per
// user-visible change.
func TestChangelogForm(t *testing.T) {
	f, err := os.Open(filepath.Join(root, "CHANGELOG.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	section := regexp.MustCompile(`^## (\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2})$`)
	kind := regexp.MustCompile(`^### (Added|Changed|Deprecated|Removed|Fixed|Security)$`)
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, "### ") && !kind.MatchString(line), strings.HasPrefix(line, "## ") && !section.MatchString(line):
			t.Errorf("CHANGELOG.md:%d: %q is not a heading of this file's form", n, line)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// TestLinksInArchitecture: every file:function that ARCHITECTURE.md names is there.
func TestLinksInArchitecture(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile("`([a-z][a-zA-Z0-9_/]*\\.go):([A-Za-z_][A-Za-z0-9_.]*)`")
	found := link.FindAllStringSubmatch(string(text), -1)
	if len(found) < 20 {
		t.Fatalf("ARCHITECTURE.md names %d functions; the lives of a Put and a Get need more", len(found))
	}
	for _, m := range found {
		src, err := os.ReadFile(filepath.Join(root, m[1]))
		if err != nil {
			t.Errorf("%s: %v", m[0], err)
			continue
		}
		name := m[2][strings.LastIndex(m[2], ".")+1:]
		if !regexp.MustCompile(`(?m)^(func (\([^)]*\) )?` + name + `\b|type ` + name + `\b|\s+` + name + `\b)`).Match(src) {
			t.Errorf("%s: no %s in %s", m[0], name, m[1])
		}
	}
}
