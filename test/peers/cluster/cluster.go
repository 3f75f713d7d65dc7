package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"kvstore/internal/ctl/ctxfile"
	"kvstore/internal/dev"
)

const (
	etcdNodes    = 3
	readyTimeout = 90 * time.Second
	lookEvery    = 100 * time.Millisecond
	// quotaBytes keeps etcd's space alarm (2 GB by default) out of the runs.
	quotaBytes = 8 << 30
)

// Node is one running node.
type Node struct {
	// Endpoint serves gRPC, Metrics HTTP: host:port.
	Endpoint, Metrics string
	PID               int
	// DataDir is all that the node stores.
	DataDir string
	argv    []string
}

// Cluster is running nodes that serve.
type Cluster struct {
	Name  string
	Nodes []Node
	// LogSyncs and EngineSyncs are the histograms of syncs.
	LogSyncs, EngineSyncs string

	// env is what Restart needs, procs what it ends: the supervisor, later
	// the nodes.
	env   []string
	procs []*process
}

// Endpoints for --endpoints.
func (c *Cluster) Endpoints() string {
	var all []string
	for _, n := range c.Nodes {
		all = append(all, n.Endpoint)
	}
	return strings.Join(all, ",")
}

// KVStore says what to run.
type KVStore struct {
	// Exe is the program, Dir gets data and logs.
	Exe, Dir string
	// Nodes is 1, 3, 5 or 7.
	Nodes   int
	Profile string
	// Env is added to the nodes' environment.
	Env []string
}

// KVStore runs `kvstore dev`.
func (l *Launcher) KVStore(ctx context.Context, o KVStore) (*Cluster, error) {
	env := Environ(append(slices.Clip(o.Env), ctxfile.EnvFile+"="+filepath.Join(o.Dir, "contexts.yaml"))...)
	data := filepath.Join(o.Dir, "data")
	p, err := l.server("kvstore dev", filepath.Join(o.Dir, "dev.log"), env, syscall.SIGINT,
		o.Exe, "dev", "--nodes", fmt.Sprint(o.Nodes), "--data-dir", data, "--base-port", "0", "--profile", o.Profile)
	if err != nil {
		return nil, err
	}
	err = p.until(ctx, lookEvery, func() bool {
		text, _ := os.ReadFile(p.log)
		return strings.Contains(string(text), "\nReady.")
	})
	if err != nil {
		return nil, err
	}
	running, err := dev.ReadClusterFile(data)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Name: "kvstore", LogSyncs: "kvstore_fsync_duration_seconds", EngineSyncs: "kvstore_flush_duration_seconds", env: env, procs: []*process{p}}
	for _, n := range running {
		c.Nodes = append(c.Nodes, Node{Endpoint: n.GRPC, Metrics: n.Metrics, PID: n.PID, DataDir: n.DataDir, argv: n.Argv})
	}
	return c, nil
}

// Etcd runs three etcd servers in dir, with their defaults but for the space
// quota and quieter logs.
func (l *Launcher) Etcd(ctx context.Context, exe, dir string) (*Cluster, error) {
	ports, err := freePorts(2 * etcdNodes)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Name: "etcd", LogSyncs: "etcd_disk_wal_fsync_duration_seconds", EngineSyncs: "etcd_disk_backend_commit_duration_seconds"}
	var members []string
	for i := range etcdNodes {
		members = append(members, fmt.Sprintf("e%d=http://%s", i+1, ports[2*i+1]))
	}
	var procs []*process
	for i := range etcdNodes {
		name, client, peer := fmt.Sprintf("e%d", i+1), "http://"+ports[2*i], "http://"+ports[2*i+1]
		own := filepath.Join(dir, name)
		p, err := l.server("etcd "+name, filepath.Join(own, "etcd.log"), Environ(), syscall.SIGTERM, exe,
			"--name", name, "--data-dir", filepath.Join(own, "data"),
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(members, ","), "--initial-cluster-state", "new",
			"--quota-backend-bytes", fmt.Sprint(quotaBytes), "--log-level", "warn")
		if err != nil {
			return nil, err
		}
		procs = append(procs, p)
		c.Nodes = append(c.Nodes, Node{Endpoint: ports[2*i], Metrics: ports[2*i], PID: p.cmd.Process.Pid, DataDir: filepath.Join(own, "data")})
	}
	for i, p := range procs {
		err := p.until(ctx, lookEvery, func() bool {
			text, err := fetch(ctx, "http://"+c.Nodes[i].Metrics+"/health")
			return err == nil && strings.Contains(string(text), `"health":"true"`)
		})
		if err != nil {
			return nil, err
		}
	}
	return c, nil
}

// until waits until ready, which is asked every so often, or for the process
// to end.
func (p *process) until(ctx context.Context, every time.Duration, ready func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	look := time.NewTicker(every)
	defer look.Stop()
	for !ready() {
		select {
		case <-p.ended:
			return p.failure()
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", p.name, ctx.Err())
		case <-look.C:
		}
	}
	return nil
}

func freePorts(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // together, so that all differ
		all = append(all, l.Addr().String())
	}
	return all, nil
}

const maxBody = 64 << 20

// fetch is a bounded GET.
func fetch(ctx context.Context, url string) (text []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	text, err = io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, res.Status)
	}
	return text, err
}
