// Command typecheck type-checks the packages of the module in the current
// directory, their commands and their tests, for each system named:
//
//	go build -C tools -o /tmp/typecheck ./typecheck && /tmp/typecheck darwin/arm64 windows/amd64
//
// What the packages need of others is checked from its source too, without the
// bodies of functions, so that nothing is compiled: building and vetting all of it
// for one more system takes twenty times as long, and finds the same mistakes in
// code that compiles for this one. What only a compiler or a linker finds, a
// function without a body say, is not seen.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// pkg is what `go list` says of a package.
type pkg struct {
	Dir, ImportPath, Name string
	GoFiles               []string
	ImportMap             map[string]string
	Module                *struct {
		Main      bool
		GoVersion string
	}
}

// sources are the files parsed so far, which all systems share.
type sources struct {
	fset  *token.FileSet
	files sync.Map // of func() (*ast.File, error) by path
}

func (s *sources) parse(path string) (*ast.File, error) {
	once, _ := s.files.LoadOrStore(path, sync.OnceValues(func() (*ast.File, error) {
		return parser.ParseFile(s.fset, path, nil, parser.SkipObjectResolution)
	}))
	return once.(func() (*ast.File, error))()
}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: typecheck GOOS/GOARCH...")
		os.Exit(2)
	}
	s := &sources{fset: token.NewFileSet()}
	failed := make([]error, len(os.Args)-1)
	var all sync.WaitGroup
	for i, target := range os.Args[1:] {
		all.Go(func() { failed[i] = s.check(target) })
	}
	all.Wait()
	if err := errors.Join(failed...); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// check checks all packages for one system, each after those it imports.
func (s *sources) check(target string) error {
	system, arch, ok := strings.Cut(target, "/")
	sizes := types.SizesFor("gc", arch)
	if !ok || sizes == nil {
		return fmt.Errorf("%s: want GOOS/GOARCH", target)
	}
	packages, err := list(system, arch)
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	var mistakes []error
	mistake := func(err error) { mistakes = append(mistakes, fmt.Errorf("%s: %w", target, err)) }
	known := map[string]*types.Package{"unsafe": types.Unsafe}
	own := 0
	for _, p := range packages {
		ours := p.Module != nil && p.Module.Main
		if ours {
			own++
		}
		s.checkPackage(p, &types.Config{IgnoreFuncBodies: !ours, Sizes: sizes, Error: mistake}, known)
	}
	if len(mistakes) == 0 {
		fmt.Printf("%s: %d packages, with their tests\n", target, own)
	}
	return errors.Join(mistakes...)
}

func (s *sources) checkPackage(p *pkg, conf *types.Config, known map[string]*types.Package) {
	if p.Module != nil && p.Module.GoVersion != "" {
		conf.GoVersion = "go" + p.Module.GoVersion
	}
	conf.Importer = importer(func(path string) (*types.Package, error) {
		if other, ok := p.ImportMap[path]; ok {
			path = other
		}
		if found := known[path]; found != nil {
			return found, nil
		}
		return nil, fmt.Errorf("%s is not among the packages listed", path)
	})
	var files []*ast.File
	for _, name := range p.GoFiles {
		file, err := s.parse(filepath.Join(p.Dir, name))
		if err != nil {
			conf.Error(err)
		}
		if file != nil {
			files = append(files, file)
		}
	}
	// Tests inside a package replace it for the tests that import it.
	path, _, _ := strings.Cut(p.ImportPath, " ")
	known[p.ImportPath], _ = conf.Check(path, s.fset, files, nil) // what is wrong went to conf.Error
}

type importer func(path string) (*types.Package, error)

func (f importer) Import(path string) (*types.Package, error) { return f(path) }

// list returns all packages, tests among them, each behind those it imports.
func list(system, arch string) ([]*pkg, error) {
	cmd := exec.Command("go", "list", "-deps", "-test", "-json=Dir,ImportPath,Name,GoFiles,ImportMap,Module", "./...")
	cmd.Env = append(os.Environ(), "GOOS="+system, "GOARCH="+arch, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var packages []*pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := &pkg{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return packages, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		generated := p.Name == "main" && strings.HasSuffix(p.ImportPath, ".test")
		if !generated && p.ImportPath != "unsafe" {
			packages = append(packages, p)
		}
	}
}
