// Package nodetest runs whole nodes inside a test, for tests of what stands above
// them: a cluster of one, on ports of its own, by a clock that can be moved.
package nodetest

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"kvstore/internal/config"
	"kvstore/internal/env"
	"kvstore/internal/env/freeports"
	"kvstore/internal/env/system"
	"kvstore/internal/node"
)

// Clock is the machine's, with a wall clock that can be moved on.
type Clock struct {
	env.Clock
	ahead atomic.Int64 // milliseconds
}

// Wall returns Unix milliseconds.
func (c *Clock) Wall() int64 { return c.Clock.Wall() + c.ahead.Load() }

// Pass has time pass at once.
func (c *Clock) Pass(d time.Duration) { c.ahead.Add(d.Milliseconds()) }

// Node is a cluster of one node.
type Node struct {
	// GRPC and HTTP are its addresses.
	GRPC, HTTP string
	Clock      *Clock

	t      testing.TB
	config *config.Config
	node   *node.Node
}

// Start runs a node with a number of data groups until the test ends.
func Start(t testing.TB, groups int) *Node {
	t.Helper()
	addr := freeAddresses(t, 5)
	c, err := config.Load(config.Sources{Values: map[string]any{
		"node.name": "n1", "node.data_dir": filepath.Join(t.TempDir(), "n1"), "profile": "edge", "log.level": "error", "cluster.groups": groups,
		"listen.http": addr[0], "listen.grpc": addr[1], "listen.peer": addr[2], "listen.metrics": addr[3],
		"listen.gossip":                     addr[4],
		"cluster_membership.current_config": []any{map[string]any{"node_id": "n1", "address": addr[2], "role": "voter"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	n := &Node{GRPC: addr[1], HTTP: addr[0], Clock: &Clock{Clock: system.Clock()}, t: t, config: c}
	t.Cleanup(n.Stop)
	n.Run()
	return n
}

// Run starts the node and waits until it serves.
func (n *Node) Run() {
	n.t.Helper()
	var err error
	if n.node, err = node.New(n.config, node.WithClock(n.Clock)); err != nil {
		n.t.Fatal(err)
	}
	n.node.Start(context.Background())
	Eventually(n.t, func() error {
		if ok, reason := n.node.Ready(); !ok {
			return fmt.Errorf("the node is not ready: %s", reason)
		}
		return nil
	})
}

// Stop ends the node; Run starts it again with its data.
func (n *Node) Stop() {
	if n.node == nil {
		return
	}
	if err := n.node.Close(); err != nil {
		n.t.Errorf("closing the node: %v", err)
	}
	n.node = nil
}

// Eventually repeats f until it is content.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	ticker := time.NewTicker(10 * time.Millisecond)
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

// freeAddresses are for TCP and UDP; a node may end and bind them again.
func freeAddresses(t testing.TB, n int) []string {
	t.Helper()
	addr, err := freeports.Addresses(n)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}
