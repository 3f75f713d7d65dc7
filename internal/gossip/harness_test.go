package gossip

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kvstore/internal/env/system"
	"kvstore/internal/keyspace"
)

const (
	// patience bounds every wait of a test; it is reached only on failure.
	patience = 30 * time.Second
	// interval is that of the nodes under test. It is short: on a busy machine
	// nodes suspect each other for nothing, and tests must not mind.
	interval = 50 * time.Millisecond
	// calmInterval is for tests that mind.
	calmInterval = 600 * time.Millisecond
)

// network carries packets and streams between hosts within the process.
type network struct {
	mu      sync.Mutex
	sockets map[string]*socket // by gossip address
	ports   map[string]*Gossip // by peer address
	cut     map[[2]string]bool // pairs of hosts
	book    map[keyspace.NodeID]string
}

func newNetwork() *network {
	return &network{sockets: map[string]*socket{}, ports: map[string]*Gossip{}, cut: map[[2]string]bool{}, book: map[keyspace.NodeID]string{}}
}

// block cuts, or mends, the links between two hosts in both directions.
func (n *network) block(a, b string, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]string{a, b}], n.cut[[2]string{b, a}] = cut, cut
}

// peers is everybody's address book.
func (n *network) peers() map[keyspace.NodeID]string {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := map[keyspace.NodeID]string{}
	for id, addr := range n.book {
		out[id] = addr
	}
	return out
}

func hostOf(addr string) string {
	host, _, _ := net.SplitHostPort(addr)
	return host
}

// socket is a net.PacketConn of the network.
type socket struct {
	net  *network
	addr string
	in   chan packet
	done chan struct{}
	once sync.Once
}

type packet struct {
	body []byte
	from net.Addr
}

type address string

func (a address) Network() string { return "udp" }
func (a address) String() string  { return string(a) }

func (n *network) listen(addr string) *socket {
	s := &socket{net: n, addr: addr, in: make(chan packet, 1024), done: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sockets[addr] = s
	return s
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case p := <-s.in:
		return copy(b, p.body), p.from, nil
	case <-s.done:
		return 0, nil, net.ErrClosed
	}
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	s.net.mu.Lock()
	defer s.net.mu.Unlock()
	target := s.net.sockets[to.String()]
	if target == nil || s.net.cut[[2]string{hostOf(s.addr), hostOf(target.addr)}] {
		return len(b), nil // lost
	}
	select {
	case target.in <- packet{slices.Clone(b), address(s.addr)}:
	default:
	}
	return len(b), nil
}

func (s *socket) Close() error {
	s.once.Do(func() {
		close(s.done)
		s.net.mu.Lock()
		defer s.net.mu.Unlock()
		if s.net.sockets[s.addr] == s {
			delete(s.net.sockets, s.addr)
		}
	})
	return nil
}

func (s *socket) LocalAddr() net.Addr              { return address(s.addr) }
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// dial opens streams from a host.
func (n *network) dial(from string) func(context.Context, string) (net.Conn, error) {
	return func(_ context.Context, addr string) (net.Conn, error) {
		n.mu.Lock()
		target, cut := n.ports[addr], n.cut[[2]string{from, hostOf(addr)}]
		n.mu.Unlock()
		if target == nil || cut {
			return nil, errors.New("unreachable")
		}
		mine, theirs := net.Pipe()
		target.Take(theirs)
		return mine, nil
	}
}

// node is one member under test.
type node struct {
	*Gossip
	id   keyspace.NodeID
	host string
	net  *network
	mu   sync.Mutex
	told []Member // guarded by mu
}

type nodeOptions struct {
	host      string // of its addresses
	cluster   string // name
	clusterID string
	keyFile   string
	rejoin    time.Duration
	name      string
	unbooked  bool // others do not know it
	interval  time.Duration
}

// mustNode starts a member and enters it into the address book.
func (n *network) mustNode(t *testing.T, id keyspace.NodeID, o nodeOptions) *node {
	t.Helper()
	def := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	def(&o.host, fmt.Sprintf("10.0.0.%d", id[len(id)-1]))
	def(&o.cluster, "test")
	def(&o.clusterID, "test-1")
	def(&o.name, string(id))
	if o.interval == 0 {
		o.interval = interval
	}
	if o.rejoin == 0 {
		o.rejoin = time.Second
	}
	m := &node{id: id, host: o.host, net: n}
	g, err := New(Options{
		Node: id, Cluster: o.cluster, Packets: n.listen(m.gossipAddr()), Dial: n.dial(o.host), Peers: n.peers,
		KeyFile: o.keyFile, Clock: system.Clock(), Rand: system.Rand(), OnChange: m.change,
		Interval: o.interval, Rejoin: o.rejoin, KeyPoll: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Gossip = g
	t.Cleanup(func() { _ = g.Close() })
	n.mu.Lock()
	n.ports[m.peerAddr()] = g
	if !o.unbooked {
		n.book[id] = m.peerAddr()
	}
	n.mu.Unlock()
	if err := g.Start(o.clusterID, m.says(o.name)); err != nil {
		t.Fatal(err)
	}
	return m
}

func (n *node) gossipAddr() string { return n.host + ":7947" }
func (n *node) peerAddr() string   { return n.host + ":7946" }

// says is a Meta of this node.
func (n *node) says(name string) Meta {
	return Meta{
		Name: name, Version: "v1", Zone: "z1", Gossip: n.gossipAddr(), Peer: n.peerAddr(),
		GRPC: n.host + ":8085", HTTP: n.host + ":8080", Started: time.Now().UnixMilli(), Health: HealthReady,
	}
}

func (n *node) change(m Member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = append(n.told, m)
}

// history is the states of a member that the node was told, one after the other.
func (n *node) history(id keyspace.NodeID) []State {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []State
	for _, m := range n.told {
		if m.ID == id && (len(out) == 0 || out[len(out)-1] != m.State) {
			out = append(out, m.State)
		}
	}
	return out
}

// stop ends a node without a word; nothing reaches it any more.
func (n *node) stop(t *testing.T) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.net.mu.Lock()
	defer n.net.mu.Unlock()
	if n.net.ports[n.peerAddr()] == n.Gossip {
		delete(n.net.ports, n.peerAddr())
	}
}

// member returns what n knows of another.
func (n *node) member(id keyspace.NodeID) Member {
	for _, m := range n.Members() {
		if m.ID == id {
			return m
		}
	}
	return Member{}
}

// sees waits until n has others in a state.
func (n *node) sees(t *testing.T, want State, others ...*node) {
	t.Helper()
	for _, o := range others {
		n.waitFor(t, func() error {
			if got := n.StateOf(o.id); got != want {
				return fmt.Errorf("%s sees %s as %v, want %v", n.id, o.id, got, want)
			}
			return nil
		})
	}
}

// waitFor waits until a condition holds.
func (n *node) waitFor(t *testing.T, f func() error) {
	t.Helper()
	eventually(t, f)
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	ticker := time.NewTicker(5 * time.Millisecond)
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

// allSee waits until all have each other in a state.
func allSee(t *testing.T, want State, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		n.sees(t, want, nodes...)
	}
}

// key is a key of 32 bytes in base64.
func key(b byte) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(b), 32)))
}

// mustWrite replaces a file as an operator should: at once.
func mustWrite(t *testing.T, file string, lines ...string) {
	t.Helper()
	tmp := file + ".new"
	if err := os.WriteFile(tmp, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, file); err != nil {
		t.Fatal(err)
	}
}

func keyFile(t *testing.T, lines ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gossip.keys")
	mustWrite(t, file, lines...)
	return file
}
