//go:build unix

package harness

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"kvstore/client"
	"kvstore/internal/dev"
)

// Kill ends node i with SIGKILL and returns when it is gone and waited for:
// while its last threads end, it holds its ports.
func (c *Cluster) Kill(i int) {
	c.t.Helper()
	pid := c.KillNow(i)
	Eventually(c.t, func() error {
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("pid %d is still there", pid)
		}
		return nil
	})
}

// KillNow sends SIGKILL and does not wait.
func (c *Cluster) KillNow(i int) (pid int) { c.t.Helper(); return c.signal(i, syscall.SIGKILL) }

// Pause stops node i with SIGSTOP until Resume.
func (c *Cluster) Pause(i int) { c.t.Helper(); c.signal(i, syscall.SIGSTOP) }

// Resume lets a paused node go on.
func (c *Cluster) Resume(i int) { c.t.Helper(); c.signal(i, syscall.SIGCONT) }

func (c *Cluster) signal(i int, sig syscall.Signal) (pid int) {
	c.t.Helper()
	pid = c.PID(i)
	if err := syscall.Kill(pid, sig); err != nil {
		c.t.Fatalf("%v to node %d (pid %d): %v", sig, i, pid, err)
	}
	return pid
}

// PID of node i.
func (c *Cluster) PID(i int) int {
	c.t.Helper()
	if p := c.byHand[i]; p != nil {
		return p.PID()
	}
	pid := c.Nodes()[i].PID
	if pid == 0 {
		c.t.Fatalf("node %d does not run", i)
	}
	return pid
}

// Restart starts node i by its argv, as a user would; it must not run.
func (c *Cluster) Restart(i int) { c.t.Helper(); c.RestartAs(i, c.Nodes()[i].Argv[0]) }

// RestartAs starts node i by another program, with its argv and more variables.
func (c *Cluster) RestartAs(i int, program string, env ...string) {
	c.t.Helper()
	n := c.Nodes()[i]
	log, err := os.OpenFile(filepath.Join(c.Dir, n.Name, "kvstore.log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(program, n.Argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(c.env(), env...)
	c.byHand[i] = StartProcess(c.t, n.Name, cmd)
}

// WaitReady waits until the nodes (all when none is named) answer /readyz.
func (c *Cluster) WaitReady(nodes ...int) {
	c.t.Helper()
	all := c.Nodes()
	if len(nodes) == 0 {
		for i := range all {
			nodes = append(nodes, i)
		}
	}
	for _, i := range nodes {
		Eventually(c.t, func() error {
			if p := c.byHand[i]; p != nil {
				select {
				case <-p.Ended():
					c.t.Fatalf("node %d ended: %v", i, p.cmd.ProcessState)
				default:
				}
			}
			return c.Ready(all[i])
		})
	}
}

// Ready asks a node once.
func (c *Cluster) Ready(n dev.Node) error {
	status, body, err := c.Get(n, "/readyz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%s: /readyz says %d %s", n.Name, status, body)
	}
	return err
}

// URL of a path on a node's HTTP port.
func (c *Cluster) URL(n dev.Node, path string) string {
	if c.TLS {
		return "https://" + n.HTTP + path
	}
	return "http://" + n.HTTP + path
}

// Get answers an HTTP request to a node.
func (c *Cluster) Get(n dev.Node, path string) (status int, body string, err error) {
	return c.Do(http.MethodGet, c.URL(n, path), nil, nil)
}

// Do answers any HTTP request.
func (c *Cluster) Do(method, url string, body io.Reader, header http.Header) (status int, answer string, err error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return 0, "", err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), errors.Join(err, resp.Body.Close())
}

func (c *Cluster) newHTTP() *http.Client {
	transport := &http.Transport{TLSClientConfig: c.ClientTLS()}
	c.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// TLSFiles are the authority's certificate, a client's, and its key.
func (c *Cluster) TLSFiles() (ca, cert, key string) {
	dir := filepath.Join(c.Dir, "tls")
	return filepath.Join(dir, "ca.crt"), filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key")
}

// ClientTLS is nil for a plaintext cluster.
func (c *Cluster) ClientTLS() *tls.Config {
	c.t.Helper()
	if !c.TLS {
		return nil
	}
	config, err := client.LoadTLS(c.TLSFiles())
	if err != nil {
		c.t.Fatal(err)
	}
	return config
}

// Endpoints are the gRPC addresses of all nodes.
func (c *Cluster) Endpoints() []string {
	c.t.Helper()
	var all []string
	for _, n := range c.Nodes() {
		all = append(all, n.GRPC)
	}
	return all
}

// Client connects to all nodes, unless cfg names endpoints; it is closed with
// the test.
func (c *Cluster) Client(cfg client.Config) *client.Client {
	c.t.Helper()
	if len(cfg.Endpoints) == 0 {
		cfg.Endpoints = c.Endpoints()
	}
	cfg.TLS = c.ClientTLS()
	ctx, cancel := context.WithTimeout(c.t.Context(), Patience)
	defer cancel()
	cl, err := client.New(ctx, cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// KillIfRuns is Kill for a node that may have ended by itself.
func (c *Cluster) KillIfRuns(i int) {
	c.t.Helper()
	if p := c.byHand[i]; p != nil {
		p.Kill()
		return
	}
	if c.Nodes()[i].PID != 0 {
		c.Kill(i)
	}
}

// StopNode asks a node that Restart started to stop; it returns the exit code.
func (c *Cluster) StopNode(i int, sig syscall.Signal) int {
	c.t.Helper()
	c.byHand[i].Signal(sig)
	return c.byHand[i].Wait(c.t, Patience)
}

// WaitEnd waits for the end of a node that Restart started; it returns the exit
// code.
func (c *Cluster) WaitEnd(i int) int { c.t.Helper(); return c.byHand[i].Wait(c.t, Patience) }

// Metrics reads the metrics of node i.
func (c *Cluster) Metrics(i int) (string, error) {
	c.t.Helper()
	_, body, err := c.Do(http.MethodGet, "http://"+c.Nodes()[i].Metrics+"/metrics", nil, nil)
	return body, err
}

// WaitEnded waits until a node that Restart started ends by itself; it returns
// the exit code and the log, which is removed: its errors were expected.
func (c *Cluster) WaitEnded(i int) (code int, log string) {
	c.t.Helper()
	code = c.byHand[i].Wait(c.t, Patience)
	name := filepath.Join(c.Dir, c.Nodes()[i].Name, "kvstore.log")
	text, err := os.ReadFile(name)
	if err = errors.Join(err, os.Remove(name)); err != nil {
		c.t.Fatal(err)
	}
	return code, string(tail(text))
}
