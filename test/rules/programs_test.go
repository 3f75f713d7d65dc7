package rules

import (
	"go/ast"
	"strings"
	"testing"
)

// TestProgramsLinkNoTestCode: what only tests need stays out of the programs.
func TestProgramsLinkNoTestCode(t *testing.T) {
	imports := make(map[string][]string)
	var reached []string
	for _, f := range files(t, false) {
		if imports[f.pkg] == nil && strings.HasPrefix(f.pkg, "cmd/") {
			reached = append(reached, f.pkg)
		}
		for _, spec := range f.ast.Imports {
			imports[f.pkg] = append(imports[f.pkg], strings.TrimPrefix(strings.Trim(spec.Path.Value, `"`), "kvstore/"))
		}
	}
	if len(reached) == 0 {
		t.Fatal("no program found below cmd/")
	}
	seen := make(map[string]bool)
	for len(reached) > 0 {
		pkg := reached[0]
		reached = reached[1:]
		if seen[pkg] {
			continue
		}
		seen[pkg] = true
		for _, imported := range imports[pkg] {
			if imported == "testing" || strings.HasPrefix(imported, "testing/") {
				t.Errorf("%s imports %s and is linked into a program", pkg, imported)
			}
			reached = append(reached, imported)
		}
	}
}

// TestNoHiddenEffects: a package does nothing when it is imported, writes to
// the streams it was given, and leaves ending the process to main.
func TestNoHiddenEffects(t *testing.T) {
	forbidden := map[string]bool{
		"fmt.Print": true, "fmt.Printf": true, "fmt.Println": true,
		"log.Print": true, "log.Printf": true, "log.Println": true,
		"log.Fatal": true, "log.Fatalf": true, "os.Exit": true,
	}
	for _, f := range files(t, false) {
		if strings.HasSuffix(f.path, ".pb.go") || f.ast.Name.Name == "main" {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", f.path)
			}
		}
		eachCall(f, func(call string, line int) {
			if forbidden[call] {
				t.Errorf("%s:%d calls %s", f.path, line, call)
			}
		})
	}
}
