//go:build unix

package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"kvstore/internal/ctl/ctxfile"
	"kvstore/internal/dirlock"
)

// program is the real binary, built once.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "kvstore-dev-test-")
	if err != nil {
		return "", err
	}
	exe := filepath.Join(dir, "kvstore")
	out, err := exec.Command("go", "build", "-o", exe, "kvstore/cmd/kvstore").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return exe, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if exe, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(exe))
	}
	os.Exit(code)
}

// supervisorProcess is a running `kvstore dev`.
type supervisorProcess struct {
	t     *testing.T
	cmd   *exec.Cmd
	out   *syncBuffer
	ended chan struct{}
	err   error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// startDev runs `kvstore dev` with kvctl's contexts in contexts.
func startDev(t *testing.T, contexts string, args ...string) *supervisorProcess {
	t.Helper()
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	p := &supervisorProcess{t: t, cmd: exec.Command(exe, append([]string{"dev"}, args...)...), out: &syncBuffer{}, ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.Env = append(os.Environ(), ctxfile.EnvFile+"="+contexts)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	return p
}

func (p *supervisorProcess) waitReady() {
	p.t.Helper()
	eventually(p.t, func() error {
		select {
		case <-p.ended:
			return fmt.Errorf("ended: %w\n%s", p.err, p.out)
		default:
		}
		if !strings.Contains(p.out.String(), "\nReady.") {
			return fmt.Errorf("not ready:\n%s", p.out)
		}
		return nil
	})
}

// stop sends a signal and expects a clean end.
func (p *supervisorProcess) stop(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%v does not end it:\n%s", sig, p.out)
	}
	if p.err != nil {
		p.t.Fatalf("after %v: %v\n%s", sig, p.err, p.out)
	}
}

// eventually polls until f succeeds, for at most a minute.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		<-ticker.C
	}
}

func mustNodes(t *testing.T, dir string) []Node {
	t.Helper()
	nodes, err := ReadClusterFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

func expectGone(t *testing.T, nodes []Node) {
	t.Helper()
	for _, n := range nodes {
		eventually(t, func() error {
			if alive(n.PID) {
				return fmt.Errorf("%s (pid %d) still runs", n.Name, n.PID)
			}
			return nil
		})
	}
}

func put(t *testing.T, n Node, key, value string) {
	t.Helper()
	eventually(t, func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+n.HTTP+"/api/v1/keys/"+key, strings.NewReader(value))
		if err != nil {
			return err
		}
		_, err = do(req)
		return err
	})
}

func expectValue(t *testing.T, n Node, key, want string) {
	t.Helper()
	eventually(t, func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+n.HTTP+"/api/v1/keys/"+key, nil)
		if err != nil {
			return err
		}
		got, err := do(req)
		if err == nil && got != want {
			err = fmt.Errorf("%s has %q on %s, want %q", key, got, n.Name, want)
		}
		return err
	})
}

func do(req *http.Request) (string, error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// TestCluster: start, use, refuse a second one, stop, go on with the data, lose
// a node and start it by hand, and leave no child behind after kill -9.
func TestCluster(t *testing.T) {
	dir, contexts := filepath.Join(t.TempDir(), "data"), filepath.Join(t.TempDir(), "contexts.yaml")
	dev := startDev(t, contexts, "--data-dir", dir, "--base-port", "0")
	dev.waitReady()
	first := mustNodes(t, dir)
	checkNodes(t, first, 3)
	checkDirectory(t, first)
	checkContext(t, contexts, first)
	checkMemory(t, first)
	put(t, first[0], "greeting", "hello")

	second := startDev(t, contexts, "--data-dir", dir)
	<-second.ended
	if second.err == nil || !strings.Contains(second.out.String(), "another `kvstore dev` runs here") {
		t.Errorf("a second dev on the directory: %v\n%s", second.err, second.out)
	}

	dev.stop(syscall.SIGTERM)
	expectGone(t, first)
	for _, n := range mustNodes(t, dir) {
		if n.PID != 0 {
			t.Errorf("%s has pid %d after the end", n.Name, n.PID)
		}
	}

	dev = startDev(t, contexts, "--data-dir", dir)
	dev.waitReady()
	nodes := mustNodes(t, dir)
	if nodes[0].HTTP != first[0].HTTP || nodes[2].Metrics != first[2].Metrics {
		t.Errorf("ports changed from %+v to %+v", first, nodes)
	}
	expectValue(t, nodes[1], "greeting", "hello")
	byHand := killAndStartByHand(t, dir, nodes[1])
	expectValue(t, nodes[1], "greeting", "hello")

	if err := dev.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-dev.ended
	expectGone(t, []Node{nodes[0], nodes[2]})
	if !alive(byHand) {
		t.Error("the node that was started by hand ended with the supervisor")
	}
}

// checkDirectory: once dev says ready, every node knows where all of them are.
func checkDirectory(t *testing.T, nodes []Node) {
	t.Helper()
	for _, n := range nodes {
		req, err := http.NewRequest(http.MethodGet, "http://"+n.HTTP+"/api/v1/admin/status", nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := do(req)
		if err != nil {
			t.Fatal(err)
		}
		for _, other := range nodes {
			if !strings.Contains(body, fmt.Sprintf("%q:%q", "grpc", other.GRPC)) {
				t.Errorf("%s does not know the address of %s: %s", n.Name, other.Name, body)
			}
		}
	}
}

func checkNodes(t *testing.T, nodes []Node, count int) {
	t.Helper()
	if len(nodes) != count {
		t.Fatalf("%d nodes, want %d", len(nodes), count)
	}
	for _, n := range nodes {
		for _, addr := range []string{n.HTTP, n.GRPC, n.Peer, n.Gossip, n.Metrics} {
			if host, port, err := net.SplitHostPort(addr); err != nil || host != loopback || port == "0" {
				t.Errorf("%s: address %q", n.Name, addr)
			}
		}
		if !alive(n.PID) || len(n.Argv) == 0 || !filepath.IsAbs(n.Argv[0]) || !filepath.IsAbs(n.DataDir) {
			t.Errorf("incomplete: %+v", n)
		}
	}
}

// checkMemory: three idle nodes fit a laptop (S3.27, DESIGN 14), where the
// system tells how much they use.
func checkMemory(t *testing.T, nodes []Node) {
	t.Helper()
	const each, together = 150 << 10, 400 << 10 // KB
	sum := 0
	for _, n := range nodes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID))
		if err != nil {
			t.Logf("no figures here: %v", err)
			return
		}
		_, rest, _ := strings.Cut(string(text), "VmRSS:")
		var kb int
		if _, err := fmt.Sscan(rest, &kb); err != nil {
			t.Fatal(err)
		}
		if kb > each {
			t.Errorf("%s uses %d KB, limit %d", n.Name, kb, each)
		}
		sum += kb
	}
	if sum > together {
		t.Errorf("%d nodes use %d KB, limit %d", len(nodes), sum, together)
	}
}

func checkContext(t *testing.T, path string, nodes []Node) {
	t.Helper()
	f, err := ctxfile.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Get("")
	if err != nil || len(c.Endpoints) != len(nodes) || c.Endpoints[0] != nodes[0].GRPC {
		t.Errorf("context %+v, %v", c, err)
	}
}

// killAndStartByHand ends a node with SIGKILL, waits until the supervisor has
// noticed, and runs its argv.
func killAndStartByHand(t *testing.T, dir string, n Node) (pid int) {
	t.Helper()
	if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	pidOf := func() int {
		for _, now := range mustNodes(t, dir) {
			if now.Name == n.Name {
				return now.PID
			}
		}
		return -1
	}
	eventually(t, func() error {
		if pid := pidOf(); pid != 0 {
			return fmt.Errorf("%s has pid %d after kill -9", n.Name, pid)
		}
		return nil
	})
	cmd := exec.Command(n.Argv[0], n.Argv[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	eventually(t, func() error {
		if pid := pidOf(); pid != cmd.Process.Pid {
			return fmt.Errorf("%s has pid %d in %s, runs as %d", n.Name, pid, ClusterFile, cmd.Process.Pid)
		}
		return nil
	})
	return cmd.Process.Pid
}

// TestEphemeralRestart: one node with TLS is started again by --restart, and
// SIGINT leaves no directory behind.
func TestEphemeralRestart(t *testing.T) {
	contexts := filepath.Join(t.TempDir(), "contexts.yaml")
	dev := startDev(t, contexts, "--nodes", "1", "--ephemeral", "--tls", "--restart")
	dev.waitReady()
	_, rest, _ := strings.Cut(dev.out.String(), ClusterFile+": ")
	dir, _, _ := strings.Cut(rest, "\n")
	if !strings.Contains(dev.out.String(), "Starting 1 node in") || !strings.Contains(dev.out.String(), "the data is deleted") {
		t.Errorf("output:\n%s", dev.out)
	}
	n := mustNodes(t, dir)[0]
	if err := syscall.Kill(n.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() error {
		if now := mustNodes(t, dir)[0].PID; now == 0 || now == n.PID {
			return fmt.Errorf("pid is %d after %d", now, n.PID)
		}
		return nil
	})
	dev.stop(syscall.SIGINT)
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", dir, err)
	}
	left, err := ctxfile.Load(contexts)
	if err != nil || len(left.Names()) != 0 {
		t.Errorf("contexts that are left: %v, %v", left.Names(), err)
	}
}

func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	held := t.TempDir()
	lock, err := dirlock.Acquire(held, "dev.lock")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = lock.Release() }()
	number := func(n int) *int { return &n }
	for _, tc := range []struct {
		name, want string
		o          Options
	}{
		{"even number", "allowed are 1, 3, 5 and 7", Options{Nodes: number(2)}},
		{"port out of range", "--base-port 70000", Options{BasePort: number(70000)}},
		{"port in use", "choose others with --base-port", Options{BasePort: number(port), Nodes: number(1)}},
		{"not a directory", "--data-dir", Options{DataDir: filepath.Join(file, "data")}},
		{"directory in use", "another `kvstore dev` runs here", Options{DataDir: held}},
	} {
		if tc.o.DataDir == "" {
			tc.o.DataDir = t.TempDir()
		}
		tc.o.Out = io.Discard
		err := Run(context.Background(), tc.o, nil)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestEnvironment: variables that win over the nodes' files are refused where
// they would make all nodes one.
func TestEnvironment(t *testing.T) {
	for _, tc := range []struct {
		environ []string
		want    string
	}{
		{[]string{"HOME=/", "KVSTORE_LOG_LEVEL=debug", "KVSTORE_SERVICE_HOST=10.0.0.1", "KVSTORE_NODE_SERVICE_PORT=1"}, ""},
		{[]string{"KVSTORE_NODE_NAME=n", "KVSTORE_LISTEN_HTTP=127.0.0.1:8080"}, "KVSTORE_NODE_NAME, KVSTORE_LISTEN_HTTP; unset them"},
		{[]string{"KVSTORE_LOG_LEVL=debug"}, "did you mean KVSTORE_LOG_LEVEL?"},
	} {
		err := checkEnvironment(tc.environ)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%q: %v, want %q", tc.environ, err, tc.want)
		}
	}
}

// TestExecutableOfGoRun: what `go run` deletes is copied.
func TestExecutableOfGoRun(t *testing.T) {
	built := filepath.Join(t.TempDir(), "go-build123", "b001", "exe")
	if err := os.MkdirAll(built, 0o700); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(built, "kvstore")
	if err := os.WriteFile(exe, []byte("program"), 0o700); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	got, err := stableExecutable(dir, exe)
	if err != nil || !strings.HasPrefix(got, dir) {
		t.Fatalf("%q, %v", got, err)
	}
	if text, err := os.ReadFile(got); err != nil || string(text) != "program" {
		t.Errorf("%q, %v", text, err)
	}
	if same, err := stableExecutable(dir, got); err != nil || same != got {
		t.Errorf("a stable program is copied to %q, %v", same, err)
	}
}

func TestShellLine(t *testing.T) {
	got := shellLine([]string{"/a b/kvstore", "server", "it's"})
	if want := `'/a b/kvstore' server 'it'\''s'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
