//go:build unix

package cluster

import (
	"bufio"
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
	"syscall"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// TestDevLife: SIGINT and SIGTERM stop all children, kill -9 leaves none, and
// each next start, at once, continues with the data.
func TestDevLife(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	checkClusterFile(t, c)
	checkContext(t, c)
	c.MustCtl("put", "life", "0")
	for i, end := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		nodes := c.Nodes()
		if end == syscall.SIGKILL {
			c.Dev.Kill()
		} else {
			c.Stop(end)
			for _, n := range c.Nodes() {
				if n.PID != 0 {
					t.Errorf("%s has pid %d after the end", n.Name, n.PID)
				}
			}
		}
		if end != syscall.SIGKILL { // a start at once must work as well
			c.ExpectGone(nodes)
		}
		c.StartDev(harness.Options{})
		c.ExpectGone(nodes)
		if got := strings.TrimSpace(c.MustCtl("get", "life")); got != fmt.Sprint(i) {
			t.Errorf("after %v: %q, want %d", end, got, i)
		}
		c.MustCtl("put", "life", fmt.Sprint(i+1))
	}
	if again := c.Nodes(); again[0].HTTP == "" || !strings.Contains(c.Dev.Out.String(), "on the data in") {
		t.Errorf("the second start does not say that it continues:\n%s", c.Dev.Out)
	}
}

func checkClusterFile(t *testing.T, c *harness.Cluster) {
	t.Helper()
	seen := map[string]bool{}
	for i, n := range c.Nodes() {
		if want := fmt.Sprintf("n%d", i+1); n.Name != want {
			t.Errorf("name %q, want %q", n.Name, want)
		}
		for _, addr := range []string{n.HTTP, n.GRPC, n.Peer, n.Gossip, n.Metrics} {
			if host, port, err := net.SplitHostPort(addr); err != nil || host != "127.0.0.1" || port == "0" || seen[addr] {
				t.Errorf("%s: address %q", n.Name, addr)
			}
			seen[addr] = true
		}
		if !harness.Alive(n.PID) || !filepath.IsAbs(n.DataDir) || len(n.Argv) < 2 || !filepath.IsAbs(n.Argv[0]) {
			t.Errorf("%+v", n)
		}
		if _, err := os.Stat(n.DataDir); err != nil {
			t.Error(err)
		}
		for _, url := range []string{"http://" + n.HTTP + "/healthz", "http://" + n.HTTP + "/readyz", "http://" + n.Metrics + "/healthz", "http://" + n.Metrics + "/readyz", "http://" + n.Metrics + "/metrics"} {
			harness.Eventually(t, func() error { // reads that prove readiness have a second
				status, body, err := c.Do(http.MethodGet, url, nil, nil)
				if err != nil || status != http.StatusOK {
					return fmt.Errorf("%s: %d %.200s, %w", url, status, body, err)
				}
				return nil
			})
		}
		for _, said := range []string{n.HTTP, n.GRPC, n.Peer, n.Metrics, fmt.Sprint(n.PID)} {
			if !strings.Contains(c.Dev.Out.String(), said) {
				t.Errorf("%s: %q is not printed", n.Name, said)
			}
		}
	}
	tries := 0
	out := bufio.NewScanner(strings.NewReader(c.Dev.Out.String()))
	for in := false; out.Scan(); {
		in = (in || out.Text() == "Try:") && out.Text() != ""
		if in && strings.HasPrefix(out.Text(), "  ") {
			tries++
		}
	}
	if tries != 3 {
		t.Errorf("%d commands to try, want 3:\n%s", tries, c.Dev.Out)
	}
}

func checkContext(t *testing.T, c *harness.Cluster) {
	t.Helper()
	if out := c.MustCtl("context", "list"); !strings.Contains(out, "dev") || !strings.Contains(out, c.Nodes()[0].GRPC) {
		t.Errorf("kvctl context list: %s", out)
	}
}

// TestRestartAtOnce: kill -9 and the node's argv, with no moment in between.
func TestRestartAtOnce(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	for i := range 2 {
		c.KillNow(i)
		c.Restart(i)
		c.WaitReady(i)
	}
	c.MustCtl("put", "k", "v")
}

// TestDevRestart: with --restart a killed node comes back by itself.
func TestDevRestart(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{Restart: true})
	old := c.PID(1)
	c.Kill(1)
	harness.Eventually(t, func() error {
		if n := c.Nodes()[1]; n.PID == 0 || n.PID == old {
			return fmt.Errorf("pid is %d", n.PID)
		}
		return nil
	})
	c.WaitReady()
	c.Stop(syscall.SIGTERM)
}

// TestDevSizes: one node; and five, where every node answers for groups that
// it has no replica of.
func TestDevSizes(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 5} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			c := harness.Start(t, harness.Options{Nodes: size})
			if n := len(c.Nodes()); n != size {
				t.Fatalf("%d nodes", n)
			}
			everyNodeAnswers(t, c, size)
			c.ExpectEqualDigests(min(3, size))
			if size == 5 {
				m := members(t, c)
				for id, groups := range m.replicas {
					if len(groups) == len(m.topology.GetGroups()) {
						t.Errorf("node %s hosts all groups; this test wants one that does not", id)
					}
				}
				c.Kill(4)
				everyNodeAnswers(t, c, 4)
			}
		})
	}
}

// everyNodeAnswers puts keys of all groups through each of the first nodes,
// and reads each through each.
func everyNodeAnswers(t *testing.T, c *harness.Cluster, nodes int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	const keys = 24
	round := time.Now().UnixNano()
	key := func(i, k int) string { return fmt.Sprintf("any/%d/%d/%d", round, i, k) }
	for i := range nodes {
		cl := c.Client(client.Config{Endpoints: []string{c.Nodes()[i].GRPC}, Gateway: true})
		for k := range keys {
			retryUnavailable(t, func() error {
				_, err := cl.Put(ctx, key(i, k), []byte(key(i, k)))
				return err
			})
		}
	}
	for i := range nodes {
		cl := c.Client(client.Config{Endpoints: []string{c.Nodes()[i].GRPC}, Gateway: true})
		for j := range nodes {
			for k := range keys {
				rec, err := cl.Get(ctx, key(j, k))
				if err != nil || string(rec.Value) != key(j, k) {
					t.Fatalf("node %d reads %s: %q, %v", i, key(j, k), rec.Value, err)
				}
			}
		}
		page, err := cl.List(ctx, client.WithPrefix(fmt.Sprintf("any/%d/", round)), client.KeysOnly())
		if err != nil || len(page.Records) != nodes*keys {
			t.Fatalf("node %d lists %d keys, want %d: %v", i, len(page.Records), nodes*keys, err)
		}
		var status int
		var body string
		harness.Eventually(t, func() (err error) { // 503 is the answer during an election
			if status, body, err = c.Get(c.Nodes()[i], "/api/v1/keys/"+key((i+1)%nodes, 0)); err == nil && status == http.StatusServiceUnavailable {
				err = errors.New(body)
			}
			return err
		})
		if err != nil || status != http.StatusOK || body != key((i+1)%nodes, 0) {
			t.Errorf("node %d over HTTP: %d %q, %v", i, status, body, err)
		}
	}
}

// retryUnavailable repeats a write of the same value while an election or the
// death of a node leaves it without an answer.
func retryUnavailable(t *testing.T, write func() error) {
	t.Helper()
	harness.Eventually(t, func() error { return write() })
}

// TestAliases: the names of S0.7 do what theirs stand for.
func TestAliases(t *testing.T) {
	c := harness.Start(t, harness.Options{Nodes: 1})
	n := c.Nodes()[0]
	c.Kill(0)
	server := harness.StartProcess(t, "KVStoreServer", exec.Command(harness.Binary(t, "KVStoreServer"), n.Argv[2:]...))
	c.WaitReady(0)
	shell := harness.StartProcess(t, "KVClient", exec.Command(harness.Binary(t, "KVClient"), n.GRPC))
	if _, err := io.WriteString(shell.Stdin, "put alias works\nget alias\n"); err != nil {
		t.Fatal(err)
	}
	_ = shell.Stdin.Close()
	if code := shell.Wait(t, harness.Patience); code != 0 || !strings.Contains(shell.Out.String(), "works") {
		t.Errorf("KVClient ends with %d:\n%s", code, shell.Out)
	}
	server.Signal(syscall.SIGTERM)
	if code := server.Wait(t, harness.Patience); code != 0 {
		t.Errorf("KVStoreServer ends with %d:\n%s", code, server.Out)
	}
}
