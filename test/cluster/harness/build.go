//go:build unix

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// binariesVariable names the directory of programs that a parent built.
const binariesVariable = "_KVSTORE_TEST_BINARIES"

var built = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv(binariesVariable); dir != "" {
		return dir, nil
	}
	dir, err := os.MkdirTemp("", "kvstore-cluster-test-")
	if err != nil {
		return "", err
	}
	args := append([]string{"build", "-o", dir + string(filepath.Separator)}, raceFlags...)
	cmd := exec.Command("go", append(args, "kvstore/cmd/...")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w\n%s", err, out)
	}
	return dir, nil
})

// Program builds another program of this module and returns its path.
func Program(t testing.TB, pkg string) string {
	t.Helper()
	path := Binary(t, filepath.Base(pkg))
	args := append([]string{"build", "-o", path}, raceFlags...)
	cmd := exec.Command("go", append(args, pkg)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// Main runs the tests of a package and removes what Binary made.
func Main(m *testing.M) int {
	code := m.Run()
	if used.Load() && os.Getenv(binariesVariable) == "" {
		if dir, _ := built(); dir != "" {
			_ = os.RemoveAll(dir)
		}
	}
	return code
}

// used says that Binary was called; tests that need no cluster build nothing.
var used atomic.Bool

// Binary returns the path of a program of this module, built once per run.
func Binary(t testing.TB, name string) string {
	t.Helper()
	used.Store(true)
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// Need returns the path of a program that is not part of this module. A test
// that misses it is skipped, or fails with TEST_NO_SKIP=1.
func Need(t testing.TB, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		skip(t, program+" is not installed")
	}
	return path
}

// skip skips a test for a reason, or fails it with TEST_NO_SKIP=1.
func skip(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv("TEST_NO_SKIP") == "1" {
		t.Fatalf("%s, and TEST_NO_SKIP=1", reason)
	}
	t.Skip(reason)
}
