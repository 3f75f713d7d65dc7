//go:build unix

package harness

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Member is a node that joined a running cluster, started by `kvstore server`.
type Member struct {
	Name string
	// GRPC, HTTP and Peer are where it listens.
	GRPC, HTTP, Peer string

	c     *Cluster
	flags []string
	ports []string
	p     *Process
}

// Join starts one more node, which joins through the first node of `kvstore
// dev` or whoever is named.
func (c *Cluster) Join(name, through string, flags ...string) *Member {
	c.t.Helper()
	m := &Member{Name: name, c: c}
	dir := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	m.flags = append([]string{
		"--node.name", name, "--node.data_dir", filepath.Join(dir, "data"), "--profile", "edge", "--cluster.name", "dev", "--join", through,
	}, flags...)
	m.Move()
	m.Start()
	return m
}

// Move gives the node, which must not run, other addresses.
func (m *Member) Move() {
	m.c.t.Helper()
	m.ports = m.c.freePorts(5)
	m.HTTP, m.GRPC, m.Peer = m.ports[0], m.ports[1], m.ports[2]
}

// Log is what the node wrote.
func (m *Member) Log() string {
	m.c.t.Helper()
	text, err := os.ReadFile(filepath.Join(m.c.Dir, m.Name, "kvstore.log"))
	if err != nil {
		m.c.t.Fatal(err)
	}
	return string(text)
}

// Start starts the node, again with the same data.
func (m *Member) Start() {
	m.c.t.Helper()
	log, err := os.OpenFile(filepath.Join(m.c.Dir, m.Name, "kvstore.log"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		m.c.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	args := append([]string{"server", "--listen.http", m.HTTP, "--listen.grpc", m.GRPC, "--listen.peer", m.Peer,
		"--listen.gossip", m.ports[3], "--listen.metrics", m.ports[4]}, m.flags...)
	cmd := exec.Command(Binary(m.c.t, "kvstore"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = m.c.env()
	m.p = StartProcess(m.c.t, m.Name, cmd)
}

// Kill ends the node by SIGKILL.
func (m *Member) Kill() { m.p.Kill() }

// freePorts returns addresses of loopback on which nothing listens, for TCP and
// UDP.
func (c *Cluster) freePorts(n int) []string {
	c.t.Helper()
	var taken []interface{ Close() error }
	defer func() {
		for _, l := range taken {
			_ = l.Close()
		}
	}()
	var out []string
	for len(out) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			c.t.Fatal(err)
		}
		taken = append(taken, l)
		u, err := net.ListenPacket("udp", l.Addr().String())
		if err != nil {
			continue
		}
		taken = append(taken, u)
		out = append(out, l.Addr().String())
	}
	return out
}

// Shape is what `kvctl cluster status -o json` says.
type Shape struct {
	ReplicationFactor int         `json:"replication_factor"`
	Nodes             []ShapeNode `json:"nodes"`
	Moves             []any       `json:"moves"`
}

// ShapeNode is one node of a Shape.
type ShapeNode struct {
	Name     string `json:"name"`
	State    string `json:"state"`
	SilentMS uint64 `json:"silent_ms"`
	Replicas int    `json:"replicas"`
	Target   int    `json:"target_replicas"`
	Leads    int    `json:"leads"`
}

// Shape asks for the cluster's shape.
func (c *Cluster) Shape() (s Shape, err error) {
	c.t.Helper()
	r := c.Ctl("cluster", "status", "-o", "json")
	if r.Code != 0 {
		return s, fmt.Errorf("kvctl cluster status: %v", r)
	}
	return s, json.Unmarshal([]byte(r.Out), &s)
}

// WaitBalanced waits until the cluster is these nodes, nothing moves, and no
// node that is not drained has two replicas or two leaderships more than
// another.
func (c *Cluster) WaitBalanced(names ...string) {
	c.t.Helper()
	Within(c.t, Patience, func() error {
		s, err := c.Shape()
		if err != nil {
			return err
		}
		return s.balanced(names)
	})
}

func (s Shape) balanced(names []string) error {
	var active []ShapeNode
	for _, n := range s.Nodes {
		switch {
		case n.State == "draining" && n.Replicas+n.Leads > 0:
			return fmt.Errorf("%s still holds something: %+v", n.Name, s)
		case n.State == "active":
			active = append(active, n)
		}
	}
	var have []string
	for _, n := range active {
		have = append(have, n.Name)
		for _, o := range active {
			if n.Replicas-o.Replicas > 1 || n.Leads-o.Leads > 1 || n.Replicas != n.Target {
				return fmt.Errorf("not balanced: %+v", s)
			}
		}
	}
	slices.Sort(names)
	if slices.Sort(have); strings.Join(have, " ") != strings.Join(names, " ") || len(s.Moves) > 0 {
		return fmt.Errorf("nodes %v, want %v, %d moves", have, names, len(s.Moves))
	}
	return nil
}
