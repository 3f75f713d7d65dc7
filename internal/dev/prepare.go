package dev

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kvstore/internal/config"
	"kvstore/internal/tlsconf"
)

// defaultNodes is the size of a new cluster.
const defaultNodes = 3

// defaultProfile keeps three nodes on one laptop under 400 MB together.
const defaultProfile = "edge"

// prepare makes or reads the configuration of every node.
func prepare(dir string, o Options) (*cluster, error) {
	if err := checkEnvironment(os.Environ()); err != nil {
		return nil, err
	}
	c := &cluster{dir: dir}
	stored, err := readStored(dir)
	if err != nil {
		return nil, err
	}
	if err := c.size(o, stored); err != nil {
		return nil, err
	}
	if err := c.addresses(o, stored); err != nil {
		return nil, err
	}
	if c.exe, err = stableExecutable(dir, o.Executable); err != nil {
		return nil, err
	}
	if err := c.writeConfigs(o, stored); err != nil {
		return nil, err
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		n.DataDir = filepath.Join(c.nodeDir(i), "data")
		n.Argv = []string{c.exe, "server", "--config", c.configFile(i)}
	}
	return c, c.waitForPorts()
}

// ownKeys differ from node to node.
var ownKeys = []string{
	"node.name", "node.data_dir", "cluster_membership.current_config",
	"listen.http", "listen.grpc", "listen.peer", "listen.gossip", "listen.metrics",
	"advertise.http", "advertise.grpc", "advertise.peer", "advertise.gossip",
}

// checkEnvironment refuses KVSTORE_ variables that would make all nodes the
// same one, since variables win over files, and those that no node would
// accept. Others count for every node.
func checkEnvironment(environ []string) error {
	var shared []string
	for _, key := range ownKeys {
		name := config.EnvName(key)
		if slices.ContainsFunc(environ, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			shared = append(shared, name)
		}
	}
	if len(shared) > 0 {
		return fmt.Errorf("variables that every node would take for its own: %s; unset them", strings.Join(shared, ", "))
	}
	_, err := config.Load(config.Sources{Environ: func() []string { return environ }})
	return err
}

// readStored loads the configurations of the nodes that dir holds, in order.
func readStored(dir string) ([]*config.Config, error) {
	var stored []*config.Config
	for {
		name := filepath.Join(dir, nodeName(len(stored)), "kvstore.yaml")
		c, err := config.Load(config.Sources{File: name})
		if errors.Is(err, fs.ErrNotExist) {
			return stored, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w\nrepair it, or choose another data directory with --data-dir", err)
		}
		stored = append(stored, c)
	}
}

func nodeName(i int) string { return fmt.Sprintf("n%d", i+1) }

func (c *cluster) size(o Options, stored []*config.Config) error {
	count := defaultNodes
	if o.Nodes != nil {
		count = *o.Nodes
	}
	if len(stored) > 0 {
		if o.Nodes != nil && *o.Nodes != len(stored) {
			return fmt.Errorf("--nodes %d: %s holds a cluster of %d; leave the flag out, or choose another --data-dir", *o.Nodes, c.dir, len(stored))
		}
		count, c.existed = len(stored), true
	}
	c.nodes = make([]Node, count)
	for i := range c.nodes {
		c.nodes[i].Name = nodeName(i)
	}
	return nil
}

// addresses takes the stored ports unless the user chose others.
func (c *cluster) addresses(o Options, stored []*config.Config) error {
	if len(stored) > 0 && o.BasePort == nil {
		for i, s := range stored {
			n := &c.nodes[i]
			n.HTTP, n.GRPC, n.Peer, n.Gossip, n.Metrics = s.Listen.HTTP, s.Listen.GRPC, s.Listen.Peer, s.Listen.Gossip, s.Listen.Metrics
		}
		return nil
	}
	base := DefaultBasePort
	if o.BasePort != nil {
		base = *o.BasePort
	}
	return choosePorts(c.nodes, base)
}

// writeConfigs writes the configuration of new nodes, and again that of stored
// ones when a flag changes it; otherwise theirs stays as it is, edits and all.
func (c *cluster) writeConfigs(o Options, stored []*config.Config) error {
	withTLS := len(stored) > 0 && stored[0].TLS.Enabled()
	if o.TLS != nil {
		withTLS = *o.TLS
	}
	issue, err := c.openTLS(withTLS)
	if err != nil {
		return err
	}
	rewrite := len(stored) == 0 || o.BasePort != nil || o.Profile != nil || o.TLS != nil
	for i := range c.nodes {
		section, err := issue(c.nodes[i].Name)
		if err != nil {
			return err
		}
		if !rewrite {
			continue
		}
		values := c.values(i, section)
		values["profile"] = defaultProfile
		if len(stored) > 0 {
			values["profile"] = stored[i].Profile
		}
		if o.Profile != nil {
			values["profile"] = *o.Profile
		}
		if err := c.writeConfig(i, values); err != nil {
			return err
		}
	}
	return nil
}

// openTLS returns a function that issues a node's tls section, empty without
// TLS, and prepares the one of clients.
func (c *cluster) openTLS(on bool) (func(name string) (tlsconf.Config, error), error) {
	if !on {
		return func(string) (tlsconf.Config, error) { return tlsconf.Config{}, nil }, nil
	}
	ca, err := tlsconf.OpenDevCA(filepath.Join(c.dir, "tls"))
	if err != nil {
		return nil, err
	}
	if c.client, err = ca.Issue("client"); err != nil {
		return nil, err
	}
	return func(name string) (tlsconf.Config, error) { return ca.Issue(name) }, nil
}

// values are what sets node i apart from the defaults.
func (c *cluster) values(i int, section tlsconf.Config) map[string]any {
	n := c.nodes[i]
	members := make([]any, len(c.nodes))
	for j, m := range c.nodes {
		members[j] = map[string]any{"node_id": m.Name, "address": m.Peer, "role": "voter"}
	}
	values := map[string]any{
		"cluster.name":                      "dev",
		"node.name":                         n.Name,
		"node.data_dir":                     filepath.Join(c.nodeDir(i), "data"),
		"listen.http":                       n.HTTP,
		"listen.grpc":                       n.GRPC,
		"listen.peer":                       n.Peer,
		"listen.gossip":                     n.Gossip,
		"listen.metrics":                    n.Metrics,
		"cluster_membership.current_config": members,
	}
	if section.Enabled() {
		values["tls.cert_file"] = section.CertFile
		values["tls.key_file"] = section.KeyFile
		values["tls.ca_file"] = section.CAFile
	}
	return values
}

func (c *cluster) writeConfig(i int, values map[string]any) error {
	parsed, err := config.Load(config.Sources{Values: values})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(c.nodeDir(i), 0o700); err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString("# Written by `kvstore dev`; edits stay until one of its flags changes the cluster.\n")
	if err := config.WriteGiven(&b, parsed); err != nil {
		return err
	}
	return replaceFile(c.configFile(i), b.Bytes(), 0o600)
}

// stableExecutable returns a program that will still be there when a node is
// started again by hand: `go run` deletes its own, so that is copied.
func stableExecutable(dir, exe string) (string, error) {
	if exe == "" {
		var err error
		if exe, err = os.Executable(); err != nil {
			return "", fmt.Errorf("own executable: %w", err)
		}
	}
	if !BuiltByGoRun(exe) {
		return filepath.Abs(exe)
	}
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o700); err != nil {
		return "", err
	}
	to := filepath.Join(bin, filepath.Base(exe))
	return to, copyExecutable(exe, to)
}

// BuiltByGoRun reports whether exe lies in a directory that the go command
// deletes when the program ends.
func BuiltByGoRun(exe string) bool {
	for _, part := range strings.Split(filepath.ToSlash(filepath.Dir(exe)), "/") {
		if strings.HasPrefix(part, "go-build") {
			return true
		}
	}
	return false
}

// copyExecutable replaces to; processes that run the old one keep it.
func copyExecutable(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copy executable: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	out, err := os.CreateTemp(filepath.Dir(to), ".kvstore-*")
	if err != nil {
		return fmt.Errorf("copy executable: %w", err)
	}
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(0o700), out.Close())
	if err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		_ = os.Remove(out.Name())
		return fmt.Errorf("copy executable: %w", err)
	}
	return nil
}
