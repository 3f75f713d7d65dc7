// Package dev runs a development cluster: real nodes as child processes of
// one supervisor on loopback.
//
// The data directory holds, for each node n1, n2, ...: n1/kvstore.yaml (its
// configuration, written once and yours to edit), n1/data (all it stores) and
// n1/kvstore.log; besides dev.lock, cluster.json, tls/ with --tls, and bin/
// when the program itself lies in a directory that `go run` will delete.
//
// A node's argv in cluster.json is complete: run from a shell it starts that
// node again, without the supervisor.
//
// No child outlives the supervisor: on Linux the kernel kills them with it
// (parent-death signal, which belongs to the thread that started the child, so
// one locked goroutine starts them all); everywhere each child also reads a
// pipe from the supervisor and stops when it ends.
package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"kvstore/internal/dirlock"
)

// DefaultDataDir is where a development cluster keeps its data.
const DefaultDataDir = "kvstore-data"

// DefaultBasePort is the first node's HTTP port.
const DefaultBasePort = 8080

// portsPerNode is the distance between the base ports of two nodes: http,
// grpc, peer, gossip and metrics follow each other.
const portsPerNode = 10

// NodeCounts are the allowed sizes.
var NodeCounts = []int{1, 3, 5, 7}

// Options say what to run. A nil pointer means "as stored, else the default".
type Options struct {
	Nodes *int
	// DataDir of the cluster; ignored with Ephemeral, which makes one and
	// removes it at the end.
	DataDir   string
	Ephemeral bool
	// BasePort of the first node's HTTP listener; 0 picks free ports.
	BasePort *int
	Profile  *string
	TLS      *bool
	// Restart starts a node again when its process ends.
	Restart bool
	// Out is for the user.
	Out io.Writer
	// Executable to run as `kvstore server`; os.Executable when empty.
	Executable string
	// ReadyTimeout bounds the wait until every node serves; 2 minutes.
	ReadyTimeout time.Duration
}

// Run starts the cluster, waits until every node serves, tells the user, and
// supervises until ctx ends; then it stops every node. A second value on
// hurry makes it kill what has not stopped.
func Run(ctx context.Context, o Options, hurry <-chan struct{}) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	dir, cleanup, err := o.openDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cleanup()) }()
	lock, err := dirlock.Acquire(dir, "dev.lock")
	if errors.Is(err, dirlock.ErrHeld) {
		return fmt.Errorf("another `kvstore dev` runs here: %w; stop it, or choose another directory with --data-dir", err)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	c, err := prepare(dir, o)
	if err != nil {
		return err
	}
	s, err := newSupervisor(c, o)
	if err != nil {
		return err
	}
	return s.run(ctx, hurry)
}

func (o *Options) check() error {
	if o.Nodes != nil && !slices.Contains(NodeCounts, *o.Nodes) {
		return fmt.Errorf("--nodes %d: allowed are 1, 3, 5 and 7", *o.Nodes)
	}
	if o.BasePort != nil && *o.BasePort != 0 {
		last := 65535 - (NodeCounts[len(NodeCounts)-1]*portsPerNode - 1)
		if *o.BasePort < 1 || *o.BasePort > last {
			return fmt.Errorf("--base-port %d: allowed are 0 (free ports) and 1 to %d", *o.BasePort, last)
		}
	}
	if o.ReadyTimeout == 0 {
		o.ReadyTimeout = 2 * time.Minute
	}
	if o.DataDir == "" {
		o.DataDir = DefaultDataDir
	}
	if o.Ephemeral && o.BasePort == nil {
		free := 0
		o.BasePort = &free
	}
	return nil
}

// openDir makes the data directory and returns it absolute, with what to do
// with it at the end.
func (o *Options) openDir() (dir string, cleanup func() error, err error) {
	if o.Ephemeral {
		dir, err := os.MkdirTemp("", "kvstore-dev-")
		if err != nil {
			return "", nil, fmt.Errorf("temporary data directory: %w", err)
		}
		return dir, func() error { return os.RemoveAll(dir) }, nil
	}
	dir, err = filepath.Abs(o.DataDir)
	if err != nil {
		return "", nil, fmt.Errorf("data directory %s: %w", o.DataDir, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("data directory cannot be made: %w (choose another with --data-dir)", err)
	}
	probe, err := os.CreateTemp(dir, ".writable-*")
	if err != nil {
		return "", nil, fmt.Errorf("data directory is not writable: %w (choose another with --data-dir)", err)
	}
	err = errors.Join(probe.Close(), os.Remove(probe.Name()))
	return dir, func() error { return nil }, err
}
