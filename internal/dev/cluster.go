package dev

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"kvstore/internal/tlsconf"
)

// Node is one line of cluster.json. Addresses are host:port.
type Node struct {
	Name string `json:"name"`
	// PID of the running process, 0 while there is none.
	PID     int    `json:"pid"`
	HTTP    string `json:"http"`
	GRPC    string `json:"grpc"`
	Peer    string `json:"peer"`
	Gossip  string `json:"gossip"`
	Metrics string `json:"metrics"`
	DataDir string `json:"data_dir"`
	// Argv starts the node, from any directory.
	Argv []string `json:"argv"`
}

// ClusterFile is the name of the file in the data directory.
const ClusterFile = "cluster.json"

// cluster is a prepared data directory.
type cluster struct {
	dir   string
	nodes []Node
	// client is how clients of a TLS cluster connect; zero for plaintext.
	client tlsconf.Config
	// exe is the program of the nodes.
	exe string
	// existed: the directory held a cluster before.
	existed bool
}

func (c *cluster) nodeDir(i int) string    { return filepath.Join(c.dir, c.nodes[i].Name) }
func (c *cluster) configFile(i int) string { return filepath.Join(c.nodeDir(i), "kvstore.yaml") }
func (c *cluster) logFile(i int) string    { return filepath.Join(c.nodeDir(i), "kvstore.log") }

// writeFile replaces cluster.json as a whole.
func (c *cluster) writeFile() error {
	text, err := json.MarshalIndent(struct {
		Nodes []Node `json:"nodes"`
	}{c.nodes}, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", ClusterFile, err)
	}
	return replaceFile(filepath.Join(c.dir, ClusterFile), append(text, '\n'), 0o600)
}

// ReadClusterFile reads cluster.json of a data directory.
func ReadClusterFile(dir string) ([]Node, error) {
	text, err := os.ReadFile(filepath.Join(dir, ClusterFile))
	if err != nil {
		return nil, err
	}
	var file struct {
		Nodes []Node `json:"nodes"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", ClusterFile, err)
	}
	return file.Nodes, nil
}

// replaceFile writes name so that readers see the old or the new whole.
func replaceFile(name string, text []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
