package node

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"kvstore/internal/config"
	"kvstore/internal/env/osfs"
	"kvstore/internal/fault"
	"kvstore/internal/raftlog"
)

// witnessConfig is that of a node without data.
func witnessConfig(t *testing.T, dir string, more map[string]any) *config.Config {
	t.Helper()
	addr := freeAddresses(t, 5)
	values := map[string]any{
		"node.name": "w", "node.role": "witness", "node.data_dir": dir, "log.level": "error",
		"listen.http": addr[0], "listen.grpc": addr[1], "listen.peer": addr[2], "listen.metrics": addr[3],
		"listen.gossip": addr[4],
	}
	for key, value := range more {
		values[key] = value
	}
	c, err := config.Load(config.Sources{Values: values})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A witness joins; it founds no cluster, not even one of its own.
func TestWitnessFoundsNoCluster(t *testing.T) {
	n, err := New(witnessConfig(t, t.TempDir(), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}()
	err = <-n.Start(context.Background())
	if fault.CodeOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), "founds no cluster") {
		t.Errorf("it ended with %v", err)
	}
	if len(n.host.Groups()) > 0 || n.cluster != nil {
		t.Errorf("it has groups %v of %v", n.host.Groups(), n.cluster)
	}
}

// A data directory keeps the role that it was made in, in both directions.
func TestDataDirectoryKeepsItsRole(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, first, then string
	}{{"a", "witness", "data"}, {"b", "data", "witness"}} {
		at := filepath.Join(dir, c.name)
		open := func(role string) error {
			s, err := openStorage(witnessConfig(t, at, map[string]any{"node.role": role, "profile": "edge"}), NewLogger(config.Log{}, t.Output()), nil)
			if err != nil {
				return err
			}
			if _, err := loadNodeID(s.log); err != nil {
				t.Fatal(err)
			}
			return s.close()
		}
		for _, role := range []string{c.first, c.first} {
			if err := open(role); err != nil {
				t.Fatalf("%s: %v", role, err)
			}
		}
		err := open(c.then)
		if fault.CodeOf(err) != fault.FailedPrecondition || !strings.Contains(err.Error(), "role="+c.first) || !strings.Contains(err.Error(), "node.role="+c.then) {
			t.Errorf("%s as %s: %v", c.first, c.then, err)
		}
		if err := open(c.first); err != nil {
			t.Errorf("%s again: %v", c.first, err)
		}
	}
}

// A directory of a version without roles has data.
func TestOlderDataDirectoriesHaveData(t *testing.T) {
	log, err := raftlog.Open(osfs.New(t.TempDir()), "raft", raftlog.Options{SegmentBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	if err := putFact(log, metaNodeID, []byte("some id")); err != nil {
		t.Fatal(err)
	}
	if err := keepRole(log, config.Node{Role: config.RoleWitness}); fault.CodeOf(err) != fault.FailedPrecondition {
		t.Errorf("as a witness: %v", err)
	}
	if err := keepRole(log, config.Node{Role: config.RoleData}); err != nil {
		t.Errorf("with data: %v", err)
	}
}
