package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/config"
	"kvstore/internal/dirlock"
	"kvstore/internal/env/freeports"
	"kvstore/internal/gossip"
	"kvstore/internal/tlsconf"
)

// testCluster is three configurations and the nodes that run on them.
type testCluster struct {
	t       *testing.T
	configs []*config.Config
	nodes   []*Node
	secure  *tls.Config
}

func newTestCluster(t *testing.T, size int, secure bool) *testCluster {
	t.Helper()
	c := &testCluster{t: t}
	dir := t.TempDir()
	values := make([]map[string]any, size)
	var members []any
	for i := range values {
		addr := freeAddresses(t, 5)
		name := fmt.Sprintf("n%d", i+1)
		values[i] = map[string]any{
			"node.name": name, "node.data_dir": filepath.Join(dir, name), "profile": "edge", "log.level": "error",
			"listen.http": addr[0], "listen.grpc": addr[1], "listen.peer": addr[2], "listen.metrics": addr[3],
			"listen.gossip": addr[4],
		}
		members = append(members, map[string]any{"node_id": name, "address": addr[2], "role": "voter"})
	}
	var ca *tlsconf.DevCA
	if secure {
		var err error
		if ca, err = tlsconf.OpenDevCA(filepath.Join(dir, "tls")); err != nil {
			t.Fatal(err)
		}
		c.secure = mustClient(t, ca)
	}
	for i, v := range values {
		v["cluster_membership.current_config"] = members
		if secure {
			section, err := ca.Issue(fmt.Sprintf("n%d", i+1))
			if err != nil {
				t.Fatal(err)
			}
			v["tls.cert_file"], v["tls.key_file"], v["tls.ca_file"] = section.CertFile, section.KeyFile, section.CAFile
			v["gossip.key_file"] = mustKeyFile(t, dir)
		}
		parsed, err := config.Load(config.Sources{Values: v})
		if err != nil {
			t.Fatal(err)
		}
		c.configs = append(c.configs, parsed)
	}
	c.nodes = make([]*Node, size)
	t.Cleanup(c.closeAll)
	return c
}

// mustKeyFile writes the keys of gossip.
func mustKeyFile(t *testing.T, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "gossip.keys")
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("k"), 32))), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func mustClient(t *testing.T, ca *tlsconf.DevCA) *tls.Config {
	t.Helper()
	section, err := ca.Issue("client")
	if err != nil {
		t.Fatal(err)
	}
	source, err := tlsconf.Open(section, tlsconf.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return source.Client()
}

// freeAddresses are for TCP and UDP; a node may end and bind them again.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	addr, err := freeports.Addresses(n)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

func (c *testCluster) start(i int) {
	c.t.Helper()
	n, err := New(c.configs[i])
	if err != nil {
		c.t.Fatal(err)
	}
	c.nodes[i] = n
	n.Start(context.Background())
}

func (c *testCluster) startAll() {
	c.t.Helper()
	for i := range c.configs {
		c.start(i)
	}
	for i := range c.nodes {
		c.waitReady(i)
	}
}

func (c *testCluster) waitReady(i int) {
	c.t.Helper()
	eventually(c.t, func() error {
		if ok, reason := c.nodes[i].Ready(); !ok {
			return fmt.Errorf("n%d is not ready: %s", i+1, reason)
		}
		return nil
	})
}

func (c *testCluster) close(i int) {
	c.t.Helper()
	if n := c.nodes[i]; n != nil {
		c.nodes[i] = nil
		if err := n.Close(); err != nil {
			c.t.Errorf("closing n%d: %v", i+1, err)
		}
	}
}

func (c *testCluster) closeAll() {
	for i := range c.nodes {
		c.close(i)
	}
}

func (c *testCluster) client(addr string) api.KVStoreClient {
	return api.NewKVStoreClient(c.conn(addr))
}

func (c *testCluster) conn(addr string) *grpc.ClientConn {
	c.t.Helper()
	creds := insecure.NewCredentials()
	if c.secure != nil {
		creds = credentials.NewTLS(c.secure.Clone())
	}
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	ticker := time.NewTicker(20 * time.Millisecond)
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

// TestCluster: three nodes found a cluster, any of them answers over gRPC on
// both ports and REST, and all of it is there after a restart; with and
// without TLS.
func TestCluster(t *testing.T) {
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("tls=%v", secure), func(t *testing.T) {
			c := newTestCluster(t, 3, secure)
			c.startAll()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // of all steps, two starts among them
			defer cancel()
			for i := range 30 {
				addr := c.configs[i%3].Listen.GRPC
				if i%2 == 0 {
					addr = c.configs[i%3].Listen.HTTP
				}
				_, err := c.client(addr).Put(ctx, &api.PutRequest{Key: fmt.Sprintf("k%02d", i), Value: []byte{byte(i)}})
				if err != nil {
					t.Fatal(err)
				}
			}
			c.expectAll(ctx)
			c.expectHealth(ctx)
			c.expectHeard(ctx)
			c.expectQuiet(ctx)
			c.expectLeft(2)
			c.closeAll()
			c.startAll()
			c.expectAll(ctx)
		})
	}
}

// expectAll reads the 30 keys from every node, one by one and as a list.
func (c *testCluster) expectAll(ctx context.Context) {
	c.t.Helper()
	for _, n := range c.configs {
		kv := c.client(n.Listen.GRPC)
		for i := range 30 {
			r, err := kv.Get(ctx, &api.GetRequest{Key: fmt.Sprintf("k%02d", i)})
			if err != nil || !bytes.Equal(r.GetRecord().GetValue(), []byte{byte(i)}) {
				c.t.Fatalf("k%02d on %s: %v, %v", i, n.Node.Name, r.GetRecord(), err)
			}
		}
		list, err := kv.List(ctx, &api.ListRequest{Prefix: "k"})
		if err != nil || len(list.GetRecords()) != 30 {
			c.t.Fatalf("list on %s: %d records, %v", n.Node.Name, len(list.GetRecords()), err)
		}
	}
}

// expectHealth asks every node how it is, on every port that answers.
func (c *testCluster) expectHealth(ctx context.Context) {
	c.t.Helper()
	scheme := "http"
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: c.secure}}
	defer web.CloseIdleConnections()
	if c.secure != nil {
		scheme = "https"
	}
	for _, n := range c.configs {
		for _, url := range []string{n.Listen.HTTP + "/readyz", n.Listen.HTTP + "/healthz", n.Listen.Metrics + "/readyz"} {
			eventually(c.t, func() error { // reads that prove it have a second
				body, err := fetch(ctx, web, scheme+"://"+url)
				if err != nil {
					err = fmt.Errorf("%s: %w %s", url, err, body)
				}
				return err
			})
		}
		eventually(c.t, func() error {
			body, err := fetch(ctx, web, scheme+"://"+n.Listen.Metrics+"/metrics")
			for _, name := range []string{"kvstore_request_duration_seconds", "kvstore_leader_elections_total", "kvstore_fsync_duration_seconds", "kvstore_badger_bytes", "kvstore_ready 1", "kvstore_recovery_epoch 0", `kvstore_gossip_members{state="alive"}`, "kvstore_gossip_dropped_total"} {
				if err != nil || !strings.Contains(body, name) {
					return fmt.Errorf("metrics of %s have no %s (%w)", n.Node.Name, name, err)
				}
			}
			return nil
		})
		eventually(c.t, func() error {
			h, err := healthpb.NewHealthClient(c.conn(n.Listen.GRPC)).Check(ctx, &healthpb.HealthCheckRequest{})
			if err == nil && h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
				err = fmt.Errorf("gRPC health of %s is %v", n.Node.Name, h.GetStatus())
			}
			return err
		})
		eventually(c.t, func() error {
			s, err := c.client(n.Listen.GRPC).Status(ctx, &api.StatusRequest{})
			if err != nil || s.GetNodeName() != n.Node.Name || s.GetEffectiveConfig()["badger_config.compression"] != "snappy" || !s.GetReady() {
				return fmt.Errorf("status of %s: %v, %w", n.Node.Name, s, err)
			}
			return nil
		})
	}
}

// expectHeard waits until every node hears all by gossip, with what they say.
func (c *testCluster) expectHeard(ctx context.Context) {
	c.t.Helper()
	for i, n := range c.nodes {
		eventually(c.t, func() error {
			heard := n.gossip.Members()
			for _, m := range heard {
				if m.State != gossip.Alive || m.Meta.Health != gossip.HealthReady || m.Meta.Epoch == 0 {
					return fmt.Errorf("n%d hears %+v", i+1, m)
				}
			}
			if len(heard) != len(c.nodes) {
				return fmt.Errorf("n%d hears %d members", i+1, len(heard))
			}
			return nil
		})
		eventually(c.t, func() error {
			s, err := c.client(c.configs[i].Listen.GRPC).Status(ctx, &api.StatusRequest{})
			for _, info := range s.GetNodes() {
				if info.GetGossipState() != "alive" {
					return fmt.Errorf("status of n%d says %q of %s", i+1, info.GetGossipState(), info.GetName())
				}
			}
			return err
		})
	}
}

// expectLeft closes a node; the others hear that it meant it.
func (c *testCluster) expectLeft(i int) {
	c.t.Helper()
	id := c.nodes[i].id
	c.close(i)
	for j, n := range c.nodes {
		if n == nil {
			continue
		}
		eventually(c.t, func() error {
			if got := n.gossip.StateOf(id); got != gossip.Left {
				return fmt.Errorf("n%d hears that n%d is %v", j+1, i+1, got)
			}
			return nil
		})
	}
}

// expectQuiet speaks to every listener what it does not understand: net/http
// must not write to the program's standard error beside the structured log.
func (c *testCluster) expectQuiet(ctx context.Context) {
	c.t.Helper()
	var beside bytes.Buffer
	before := log.Writer()
	log.SetOutput(&beside) // it serializes its writers
	defer log.SetOutput(before)
	l := c.configs[0].Listen
	for _, addr := range []string{l.HTTP, l.GRPC, l.Peer, l.Metrics} {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			c.t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\nBad Header\r\n\r\n")
		_, _ = io.Copy(io.Discard, conn) // until it is closed
		_ = conn.Close()
	}
	log.SetOutput(before)
	if beside.Len() > 0 {
		c.t.Errorf("written beside the log: %s", beside.String())
	}
}

func fetch(ctx context.Context, web *http.Client, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := web.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(body), err
}

// TestMoreNodesThanReplicas: a node is ready also when others host some of the
// groups, and answers for those.
func TestMoreNodesThanReplicas(t *testing.T) {
	c := newTestCluster(t, 4, false)
	c.startAll()
	for i := range 16 {
		kv := c.client(c.configs[i%4].Listen.GRPC)
		if _, err := kv.Put(t.Context(), &api.PutRequest{Key: fmt.Sprint(i)}); err != nil {
			t.Error(err)
		}
	}
	for i := range c.nodes {
		c.waitReady(i)
	}
}

// TestWaitsForFirstMembers: a node alone of three says whom it waits for, is
// alive but not ready, and stops cleanly.
func TestWaitsForFirstMembers(t *testing.T) {
	c := newTestCluster(t, 3, false)
	c.start(0)
	eventually(t, func() error {
		ok, reason := c.nodes[0].Ready()
		if ok || !strings.Contains(reason, "n2") || !strings.Contains(reason, "n3") {
			return fmt.Errorf("ready %v: %s", ok, reason)
		}
		return nil
	})
	if _, err := fetch(t.Context(), http.DefaultClient, "http://"+c.configs[0].Listen.HTTP+"/healthz"); err != nil {
		t.Error(err)
	}
	if _, err := fetch(t.Context(), http.DefaultClient, "http://"+c.configs[0].Listen.HTTP+"/readyz"); err == nil {
		t.Error("readyz answers 200")
	}
	c.close(0)
}

// TestOneProcessPerDirectory: the second one is refused before it touches the
// raft log.
func TestOneProcessPerDirectory(t *testing.T) {
	c := newTestCluster(t, 1, false)
	c.start(0)
	other := *c.configs[0]
	addr := freeAddresses(t, 4)
	other.Listen = config.Listen{HTTP: addr[0], GRPC: addr[1], Peer: addr[2], Metrics: addr[3], Gossip: "127.0.0.1:0"}
	n, err := New(&other)
	if !errors.Is(err, dirlock.ErrHeld) {
		t.Errorf("got %v", err)
	}
	if err == nil {
		_ = n.Close()
	}
}

// TestPortsInUse: all of them are named.
func TestPortsInUse(t *testing.T) {
	c := newTestCluster(t, 1, false)
	for _, addr := range []string{c.configs[0].Listen.HTTP, c.configs[0].Listen.Peer} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
	}
	_, err := New(c.configs[0])
	if err == nil || !strings.Contains(err.Error(), "listen.http") || !strings.Contains(err.Error(), "listen.peer") {
		t.Errorf("got %v", err)
	}
}
