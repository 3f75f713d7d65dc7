//go:build unix

package docs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"kvstore/internal/dev"
	"kvstore/test/cluster/harness"
)

// The README's sh blocks, in order.
var readme = []string{
	"go run ./cmd/kvstore dev",
	"go run ./cmd/kvctl put greeting hello\ngo run ./cmd/kvctl get greeting\ncurl -i http://127.0.0.1:8080/api/v1/keys/greeting",
	"go test ./...", // this very run
}

// TestReadme runs the README's commands as they stand, except that the cluster
// gets a directory and ports of its own.
func TestReadme(t *testing.T) {
	harness.Need(t, "bash")
	harness.Need(t, "curl")
	got := blocks(t, "README.md")["sh"]
	if strings.Join(got, "\n---\n") != strings.Join(readme, "\n---\n") {
		t.Fatalf("README.md has other blocks; adapt this test:\n%s", strings.Join(got, "\n---\n"))
	}
	dir, home := filepath.Join(t.TempDir(), "data"), t.TempDir()
	cluster := start(t, home, got[0]+" --base-port 0 --data-dir "+dir)
	harness.Within(t, 2*harness.Patience, func() error {
		if !strings.Contains(cluster.Out.String(), "\nReady.") {
			return fmt.Errorf("not ready:\n%s", cluster.Out)
		}
		return nil
	})
	nodes, err := dev.ReadClusterFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	session := start(t, home, "set -e\n"+strings.ReplaceAll(got[1], "127.0.0.1:8080", nodes[0].HTTP))
	code := session.Wait(t, 2*harness.Patience)
	out := session.Out.String()
	if code != 0 || strings.Count(out, "hello") != 2 || !strings.Contains(out, "200 OK") {
		t.Errorf("exit code %d:\n%s", code, out)
	}

	// The three commands that dev prints work as they are printed.
	_, tries, _ := strings.Cut(cluster.Out.String(), "\nTry:\n")
	tries, _, _ = strings.Cut(tries, "\n\n")
	session = start(t, home, "set -e\n"+tries)
	if code := session.Wait(t, 2*harness.Patience); code != 0 || strings.Count(session.Out.String(), "Hello, world") != 2 {
		t.Errorf("%s\nends with %d:\n%s", tries, code, session.Out)
	}

	// Ctrl-C reaches the process group of the terminal.
	if err := syscall.Kill(-cluster.PID(), syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	cluster.Wait(t, harness.Patience)
	for _, n := range nodes {
		harness.Eventually(t, func() error {
			if harness.Alive(n.PID) {
				return fmt.Errorf("%s (pid %d) still runs after Ctrl-C", n.Name, n.PID)
			}
			return nil
		})
	}
}

// start runs a script in the repository, as a newcomer with that home does.
func start(t *testing.T, home, script string) *harness.Process {
	t.Helper()
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(home, "config"), "XDG_STATE_HOME="+filepath.Join(home, "state"))
	p := harness.StartProcess(t, script, cmd)
	t.Cleanup(func() { _ = syscall.Kill(-p.PID(), syscall.SIGKILL) }) // what go run started, too
	return p
}
