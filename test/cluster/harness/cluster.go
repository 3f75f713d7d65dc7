//go:build unix

package harness

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"kvstore/internal/dev"
	"kvstore/internal/env/freeports"
)

// Options of a cluster; zero values mean what `kvstore dev` does.
type Options struct {
	Nodes   int
	TLS     bool
	Restart bool
	// Profile of the nodes.
	Profile string
	// Dir continues with the data of an earlier cluster.
	Dir string
	// Env is what the nodes have in their environment, KEY=value.
	Env []string
}

// Cluster is a running `kvstore dev` with data, ports and kvctl contexts of its
// own.
type Cluster struct {
	// Dir is the data directory, Home stands for XDG_CONFIG_HOME and the state
	// of kvctl.
	Dir, Home string
	TLS       bool
	// Dev is the supervisor; nil for a cluster on a Network.
	Dev *Process

	t testing.TB
	// byHand are the nodes that the test started itself, by number.
	byHand map[int]*Process
	// failing are the nodes whose logs may have errors.
	failing map[string]bool
	http    *http.Client
}

// Start starts a cluster and returns when every node serves.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	c := &Cluster{Dir: o.Dir, Home: t.TempDir(), TLS: o.TLS, t: t, byHand: map[int]*Process{}, failing: map[string]bool{}}
	if c.Dir == "" {
		c.Dir = filepath.Join(tempDir(t), "data")
	}
	Binary(t, "kvstore") // before anything is there to clean up
	t.Cleanup(c.readLogs)
	c.StartDev(o)
	return c
}

// StartDev starts `kvstore dev` again after it ended.
func (c *Cluster) StartDev(o Options) {
	c.t.Helper()
	args := []string{"dev", "--data-dir", c.Dir}
	if _, err := os.Stat(filepath.Join(c.Dir, dev.ClusterFile)); err != nil {
		args = append(args, "--base-port", strconv.Itoa(basePort(c.t, max(3, o.Nodes))))
	}
	if o.Nodes > 0 {
		args = append(args, "--nodes", strconv.Itoa(o.Nodes))
	}
	if o.TLS {
		args = append(args, "--tls")
	}
	if o.Restart {
		args = append(args, "--restart")
	}
	if o.Profile != "" {
		args = append(args, "--profile", o.Profile)
	}
	cmd := exec.Command(Binary(c.t, "kvstore"), args...)
	cmd.Env = append(c.env(), o.Env...)
	c.Dev = StartProcess(c.t, "kvstore dev", cmd)
	Within(c.t, 2*Patience, func() error {
		if strings.Contains(c.Dev.Out.String(), "\nReady.") {
			return nil
		}
		select {
		case <-c.Dev.Ended():
			c.t.Fatalf("kvstore dev ended:\n%s", c.Dev.Out)
		default:
		}
		return fmt.Errorf("not ready:\n%s", c.Dev.Out)
	})
	c.http = c.newHTTP()
}

// Ports of clusters, where kvstore dev looks for free ones. It finds them free some
// time before its nodes bind them, and would find those of a cluster that is started
// at the same time.
const (
	firstBasePort, lastBasePort = 10_000, 30_000
	portsOfNode                 = 10
)

var (
	basePortsFrom  = rand.IntN((lastBasePort - firstBasePort) / portsOfNode)
	basePortsGiven atomic.Int64
)

// basePort is the first of free ports in a row that no other cluster of this process
// was given.
func basePort(t testing.TB, nodes int) int {
	t.Helper()
	places := (lastBasePort-firstBasePort)/portsOfNode - nodes
	for range places {
		place := (basePortsFrom + int(basePortsGiven.Add(int64(nodes)))) % places
		base, free := firstBasePort+place*portsOfNode, true
		for port := base; free && port < base+nodes*portsOfNode; port++ {
			free = freeports.Free(fmt.Sprint("127.0.0.1:", port)) == nil
		}
		if free {
			return base
		}
	}
	t.Fatal("no free ports")
	return 0
}

// tempDir is like t.TempDir, but what cannot be removed fails nothing: nodes
// that are being killed may still make files.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "kvstore-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// env is the environment of kvstore and kvctl.
func (c *Cluster) env() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "KVSTORE_") && !strings.HasPrefix(v, "KVCTL_") {
			env = append(env, v)
		}
	}
	return append(env, "XDG_CONFIG_HOME="+filepath.Join(c.Home, "config"), "XDG_STATE_HOME="+filepath.Join(c.Home, "state"))
}

// Stop sends a signal to the supervisor and expects it and all nodes to end.
func (c *Cluster) Stop(sig syscall.Signal) {
	c.t.Helper()
	nodes := c.Nodes()
	c.Dev.Signal(sig)
	if code := c.Dev.Wait(c.t, Patience); code != 0 {
		c.t.Errorf("kvstore dev ended with %d after %v:\n%s", code, sig, c.Dev.Out)
	}
	c.ExpectGone(nodes)
}

// ExpectGone waits until no process of nodes runs.
func (c *Cluster) ExpectGone(nodes []dev.Node) {
	c.t.Helper()
	for _, n := range nodes {
		Eventually(c.t, func() error {
			if Alive(n.PID) {
				return fmt.Errorf("%s (pid %d) still runs", n.Name, n.PID)
			}
			return nil
		})
	}
}

// Nodes reads cluster.json.
func (c *Cluster) Nodes() []dev.Node {
	c.t.Helper()
	nodes, err := dev.ReadClusterFile(c.Dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return nodes
}

// logTail is how much of each log a failed test shows.
const logTail = 3 << 10

// alarms are what no log of a node may hold; errors belong to nodes that
// ExpectErrors names.
var alarms = []string{"panic:", "fatal error:", "DATA RACE", errorAlarm}

const errorAlarm = "level=ERROR"

// ExpectErrors lets the log of node i have errors.
func (c *Cluster) ExpectErrors(i int) { c.t.Helper(); c.failing[c.Nodes()[i].Name] = true }

// Log returns the log of node i.
func (c *Cluster) Log(i int) string {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Dir, c.Nodes()[i].Name, "kvstore.log"))
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// readLogs looks for alarms, and shows the logs of a failed test.
func (c *Cluster) readLogs() {
	logs, _ := filepath.Glob(filepath.Join(c.Dir, "*", "kvstore.log"))
	for _, name := range logs {
		text, err := os.ReadFile(name)
		for _, alarm := range alarms {
			if alarm == errorAlarm && c.failing[filepath.Base(filepath.Dir(name))] {
				continue
			}
			if i := bytes.Index(text, []byte(alarm)); i >= 0 {
				c.t.Errorf("%s: %s (%v)", name, text[max(0, i-500):min(len(text), i+4000)], err)
			}
		}
	}
	if !c.t.Failed() {
		return
	}
	if c.Dev != nil {
		c.t.Logf("kvstore dev:\n%s", tail([]byte(c.Dev.Out.String())))
	}
	for _, name := range logs {
		text, err := os.ReadFile(name)
		c.t.Logf("%s (%v):\n%s", name, err, tail(text))
	}
}

func tail(text []byte) []byte { return text[max(0, len(text)-logTail):] }

// Settle is how long a fault should last to be noticed by everyone.
const Settle = 1500 * time.Millisecond
