package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"kvstore/internal/ctl/ctxfile"
	"kvstore/internal/dev"
)

// Network connects the nodes of a cluster, each in a network namespace of its
// own with one address, by a bridge, at which the clients are: this process and
// what it starts. A node takes packets as S2.2 and S0.3 have it:
//
//	from other nodes   7946/tcp, 7947/udp
//	from clients       8080/tcp, 8085/tcp; 2112/tcp, as monitoring does
//
// and what belongs to connections. All else is dropped; what would have begun
// something is counted (Refused).
//
// Cuts drop packets where they arrive and before anything else looks at them, as
// a network loses them: no sender is told.
type Network struct {
	t     testing.TB
	nodes int
}

// clientAddress is the bridge's own.
const clientAddress = "10.99.0.254"

// Address of node i.
func Address(i int) string { return fmt.Sprintf("10.99.0.%d", i+1) }

func space(i int) string { return fmt.Sprintf("n%d", i+1) }

// StartOnNetwork starts a cluster of separate `kvstore server` processes, one
// per namespace, with the standard ports, and returns when every node serves.
// Only for tests that run Apart.
func StartOnNetwork(t testing.TB, nodes int) (*Cluster, *Network) {
	t.Helper()
	n := &Network{t: t, nodes: nodes}
	n.ip("link", "set", "lo", "up")
	n.ip("link", "add", "clients", "type", "bridge")
	n.ip("addr", "add", clientAddress+"/24", "dev", "clients")
	n.ip("link", "set", "clients", "up")
	for i := range nodes {
		n.connect(i)
	}
	c := &Cluster{Dir: filepath.Join(tempDir(t), "data"), Home: t.TempDir(), t: t, byHand: map[int]*Process{}, failing: map[string]bool{}}
	t.Cleanup(c.readLogs)
	c.describe(nodes)
	c.http = c.newHTTP()
	for i := range nodes {
		c.Restart(i)
	}
	c.WaitReady()
	return c, n
}

// connect makes the namespace of node i.
func (n *Network) connect(i int) {
	n.t.Helper()
	link := "to-" + space(i)
	n.ip("netns", "add", space(i))
	n.ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space(i))
	n.ip("link", "set", link, "master", "clients", "up")
	n.ip("-n", space(i), "link", "set", "lo", "up")
	n.ip("-n", space(i), "addr", "add", Address(i)+"/24", "dev", "eth0")
	n.ip("-n", space(i), "link", "set", "eth0", "up")
	var others []string
	for j := range n.nodes {
		if j != i {
			others = append(others, Address(j))
		}
	}
	n.nft(i, fmt.Sprintf(firewall, strings.Join(others, ", "), clientAddress))
}

// firewall of one node; the addresses of the other nodes and of clients.
const firewall = `
table inet kvstore {
  set nodes { type ipv4_addr; elements = { %s } }
  counter refused { }
  chain cut { type filter hook prerouting priority raw; policy accept; }
  chain input {
    type filter hook input priority filter; policy drop;
    iif "lo" accept
    ct state established,related accept
    ip saddr @nodes tcp dport 7946 accept
    ip saddr @nodes udp dport 7947 accept
    ip saddr %s tcp dport { 8080, 8085, 2112 } accept
    tcp flags & (syn | ack) == syn counter name refused drop
    meta nfproto ipv4 meta l4proto udp counter name refused drop
  }
}`

// Cut drops what node from sends to node to, until Heal.
func (n *Network) Cut(from, to int) {
	n.t.Helper()
	n.nft(to, "add rule inet kvstore cut ip saddr "+Address(from)+" drop")
}

// CutGossip drops all packets of gossip, until Heal. Streams of gossip are
// connections to 7946 like others, and stay.
func (n *Network) CutGossip() {
	n.t.Helper()
	for i := range n.nodes {
		n.nft(i, "add rule inet kvstore cut udp dport 7947 drop")
	}
}

// Heal ends all cuts. Nobody is told.
func (n *Network) Heal() {
	n.t.Helper()
	for i := range n.nodes {
		n.nft(i, "flush chain inet kvstore cut")
	}
}

// Refused counts connections and packets that node i was offered and its
// firewall did not let in.
func (n *Network) Refused(i int) (packets int) {
	n.t.Helper()
	_, text, found := strings.Cut(n.nft(i, "list counter inet kvstore refused"), "packets")
	if _, err := fmt.Sscan(text, &packets); err != nil || !found {
		n.t.Fatalf("what %s refused: %q, %v", space(i), text, err)
	}
	return packets
}

func (n *Network) ip(args ...string) { n.t.Helper(); n.run(exec.Command("ip", args...)) }

func (n *Network) nft(i int, script string) (out string) {
	n.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", space(i), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	return n.run(cmd)
}

func (n *Network) run(cmd *exec.Cmd) string {
	n.t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return string(out)
}

// describe writes what `kvstore dev` would: cluster.json, from which nodes are
// started, and the context of kvctl.
func (c *Cluster) describe(nodes int) {
	c.t.Helper()
	var all []dev.Node
	var members, endpoints []string
	for i := range nodes {
		host := Address(i)
		all = append(all, dev.Node{
			Name: space(i), HTTP: host + ":8080", GRPC: host + ":8085", Peer: host + ":7946", Gossip: host + ":7947", Metrics: host + ":2112",
			DataDir: filepath.Join(c.Dir, space(i), "data"),
		})
		members = append(members, space(i)+"="+all[i].Peer)
		endpoints = append(endpoints, all[i].GRPC)
	}
	for i, n := range all {
		all[i].Argv = []string{"ip", "netns", "exec", n.Name, Binary(c.t, "kvstore"), "server",
			"--cluster.name", "network", "--profile", "edge", "--node.name", n.Name, "--node.data_dir", n.DataDir,
			"--cluster_membership.current_config", strings.Join(members, ","),
			"--listen.http", n.HTTP, "--listen.grpc", n.GRPC, "--listen.peer", n.Peer, "--listen.gossip", n.Gossip, "--listen.metrics", n.Metrics}
		if err := os.MkdirAll(filepath.Join(c.Dir, n.Name), 0o700); err != nil {
			c.t.Fatal(err)
		}
	}
	text, err := json.Marshal(map[string]any{"nodes": all})
	if err == nil {
		err = os.WriteFile(filepath.Join(c.Dir, dev.ClusterFile), text, 0o600)
	}
	err = errors.Join(err, ctxfile.Update(filepath.Join(c.Home, "config", "kvstore", "contexts.yaml"), func(f *ctxfile.File) error {
		f.Set("network", ctxfile.Context{Endpoints: endpoints}, true)
		return nil
	}))
	if err != nil {
		c.t.Fatal(err)
	}
}
