//go:build unix

package harness

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"kvstore/internal/env/freeports"
	"kvstore/internal/keyspace"
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
	var err error
	if m.ports, err = freeports.Addresses(5); err != nil {
		m.c.t.Fatal(err)
	}
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

// Wipe deletes what the node, which must not run, has on its disk.
func (m *Member) Wipe() {
	m.c.t.Helper()
	if err := os.RemoveAll(filepath.Join(m.c.Dir, m.Name, "data")); err != nil {
		m.c.t.Fatal(err)
	}
}

// Kill ends the node by SIGKILL.
func (m *Member) Kill() { m.p.Kill() }

// PID is the process of the last start.
func (m *Member) PID() int { return m.p.PID() }

// Set adds flags to the next start; the last value of a flag counts.
func (m *Member) Set(flags ...string) { m.flags = append(m.flags, flags...) }

// Shape is what `kvctl cluster status -o json` says.
type Shape struct {
	ReplicationFactor int         `json:"replication_factor"`
	Nodes             []ShapeNode `json:"nodes"`
	Moves             []any       `json:"moves"`
	Copies            []Copies    `json:"copies"`
	// Groups are the data groups with how many slots they own.
	Groups []struct {
		Group uint32 `json:"group"`
		Count int    `json:"slots"`
	} `json:"groups"`
	GroupsWanted int   `json:"groups_wanted"`
	SlotMoves    []any `json:"slot_moves"`
}

// Copies is how many copies a group has.
type Copies struct {
	Group     int `json:"group"`
	Copies    int `json:"copies"`
	Of        int `json:"of"`
	Witnesses int `json:"witnesses"`
}

// ShapeNode is one node of a Shape.
type ShapeNode struct {
	Name     string `json:"name"`
	Role     string `json:"role"`
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

// WaitBalanced waits until the cluster is these nodes, nothing moves, there are as
// many groups as nodes at least, each with its part of the slots, and no node that
// is not drained has two replicas or two leaderships more than another.
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
	if err := s.spread(len(active)); err != nil {
		return err
	}
	slices.Sort(names)
	if slices.Sort(have); strings.Join(have, " ") != strings.Join(names, " ") || len(s.Moves) > 0 {
		return fmt.Errorf("nodes %v, want %v, %d moves", have, names, len(s.Moves))
	}
	return nil
}

// spread reports what is missing until the slots are spread over enough groups.
func (s Shape) spread(nodes int) error {
	if len(s.Groups) < max(nodes, s.GroupsWanted) || len(s.SlotMoves) > 0 {
		return fmt.Errorf("%d groups for %d nodes, %d moves of slots: %+v", len(s.Groups), nodes, len(s.SlotMoves), s)
	}
	for _, g := range s.Groups {
		if share := keyspace.SlotCount / len(s.Groups); g.Count < share || g.Count > share+1 {
			return fmt.Errorf("group %d owns %d slots: %+v", g.Group, g.Count, s)
		}
	}
	return nil
}
