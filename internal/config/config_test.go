package config

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var rewrite = flag.Bool("rewrite", false, "rewrite golden files")

func mustFile(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "kvstore.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func mustLoad(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Load(Sources{File: mustFile(t, text)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func loadProblems(t *testing.T, s Sources) Problems {
	t.Helper()
	_, err := Load(s)
	var p Problems
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want Problems", err)
	}
	return p
}

// TestPrecedence: defaults < file < environment < flags.
func TestPrecedence(t *testing.T) {
	file := mustFile(t, "node: {name: from-file, zone: file, data_dir: file}\n")
	environ := func() []string { return []string{"KVSTORE_NODE_ZONE=env", "KVSTORE_NODE_DATA_DIR=env", "PATH=/bin"} }
	flags := pflag.NewFlagSet("server", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--node.data_dir=flag"}); err != nil {
		t.Fatal(err)
	}
	c, err := Load(Sources{File: file, Environ: environ, Flags: flags})
	if err != nil {
		t.Fatal(err)
	}
	if c.Cluster.Name != "kvstore" || c.Node.Name != "from-file" || c.Node.Zone != "env" || c.Node.DataDir != "flag" {
		t.Errorf("got %+v %+v", c.Cluster, c.Node)
	}
	for key, want := range map[string]string{
		"cluster.name": "default", "node.name": "file " + file,
		"node.zone": "environment KVSTORE_NODE_ZONE", "node.data_dir": "flag --node.data_dir",
	} {
		if got := c.Source(key); got != want {
			t.Errorf("source of %s is %q, want %q", key, got, want)
		}
	}
}

// TestAllProblemsAtOnce: each problem names its key and what is allowed.
func TestAllProblemsAtOnce(t *testing.T) {
	file := mustFile(t, `
cluster: {name: "a b", groups: 0, replication_factor: 2}
node: 7
lisen: {http: ":1"}
listen: {htp: ":1", grpc: nowhere, peer: ":70000"}
cluster_membership:
  current_config:
    - {node_id: n1, address: "a:1", role: learner}
    - {node_id: n1, address: "a"}
  pending_config: {operation: add_node, target: {node_id: n4, address: "d:1"}}
tls: {cert_file: x, min_version: 1.1, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}
badger_config: {memtable_size: big, compression: lz4, sync_writes: true}
log: {level: loud}
history_window: 10
`)
	environ := func() []string {
		return []string{"KVSTORE_NODE_NAM=x", "KVSTORE_SERVICE_HOST=10.0.0.1", "KVSTORE_PORT_8080_TCP_ADDR=10.0.0.1", "KVSTORE_PORT=tcp://10.0.0.1:8080"}
	}
	got := loadProblems(t, Sources{File: file, Environ: environ})
	text := strings.ReplaceAll(got.Error(), file, "kvstore.yaml")
	golden(t, "problems.txt", text+"\n")
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test ./internal/config -rewrite):\n%s", path, got)
	}
}

// TestDefaultFile: `config default` is stable, loads, and says the defaults.
func TestDefaultFile(t *testing.T) {
	var b bytes.Buffer
	if err := WriteDefault(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "default.yaml", b.String())
	c := mustLoad(t, b.String())
	var fromFile, fromNothing bytes.Buffer
	if err := WriteYAML(&fromFile, c); err != nil {
		t.Fatal(err)
	}
	if err := WriteYAML(&fromNothing, Default()); err != nil {
		t.Fatal(err)
	}
	if fromFile.String() != fromNothing.String() {
		t.Errorf("the default file gives\n%s\nno file gives\n%s", &fromFile, &fromNothing)
	}
}

// TestWriteYAMLRoundTrips: what dev writes for its nodes is what they read.
func TestWriteYAMLRoundTrips(t *testing.T) {
	c := mustLoad(t, `
node: {name: n1, zone: "1", data_dir: "/tmp/a: b"}
cluster_membership:
  current_config:
    - {node_id: n1, address: "127.0.0.1:1", role: voter, zone: "1"}
    - {node_id: n2, address: "127.0.0.1:2", role: voter}
limits: {max_request_bytes_queued: 64MB}
`)
	var first, second bytes.Buffer
	if err := WriteYAML(&first, c); err != nil {
		t.Fatal(err)
	}
	if err := WriteYAML(&second, mustLoad(t, first.String())); err != nil {
		t.Fatal(err)
	}
	var given bytes.Buffer
	if err := WriteGiven(&given, c); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(given.String(), "badger_config") || strings.Contains(given.String(), "groups") {
		t.Errorf("wrote what nobody gave:\n%s", &given)
	}
	if again := mustLoad(t, given.String()); again.Node != c.Node || len(again.Membership) != 2 || again.Membership[0] != c.Membership[0] || again.Limits != c.Limits {
		t.Errorf("read %+v of\n%s", again, &given)
	}
	if first.String() != second.String() {
		t.Errorf("wrote\n%s\nread back\n%s", &first, &second)
	}
}

// TestReference: docs/configuration.md holds the generated tables.
func TestReference(t *testing.T) {
	var b bytes.Buffer
	if err := WriteReference(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("..", "..", "docs", "configuration.md")
	const begin, end = "<!-- reference: begin -->\n", "<!-- reference: end -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no reference markers", path)
	}
	want := head + begin + b.String() + end + tail
	if *rewrite {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(text) {
		t.Errorf("%s is not current (go test ./internal/config -rewrite)", path)
	}
}

func TestEnvNamesAreUnique(t *testing.T) {
	seen := map[string]string{}
	for _, o := range options {
		name := EnvName(o.key)
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s are both %s", o.key, other, name)
		}
		if serviceLink.MatchString(name) {
			t.Errorf("%s looks like a variable of Kubernetes", name)
		}
		seen[name] = o.key
	}
}

// TestGossipIsWherePeersAre: unless it was given.
func TestGossipIsWherePeersAre(t *testing.T) {
	for _, c := range []struct {
		values map[string]any
		want   string
	}{
		{nil, "127.0.0.1:7947"},
		{map[string]any{"listen.peer": "0.0.0.0:17946"}, "0.0.0.0:7947"},
		{map[string]any{"listen.peer": "[fd00::1]:7946"}, "[fd00::1]:7947"},
		{map[string]any{"listen.peer": "0.0.0.0:7946", "listen.gossip": "10.0.0.1:1"}, "10.0.0.1:1"},
	} {
		got, err := Load(Sources{Values: c.values})
		if err != nil || got.Listen.Gossip != c.want {
			t.Errorf("%v: %v, %v", c.values, got, err)
		}
	}
}

func TestAdvertise(t *testing.T) {
	c := mustLoad(t, `
node: {name: b}
listen: {http: "0.0.0.0:80", grpc: ":81", peer: "[::]:82", gossip: "10.0.0.9:83"}
cluster_membership:
  current_config: [{node_id: a, address: "10.0.0.1:7946"}, {node_id: b, address: "10.0.0.2:7946"}]
`)
	want := Advertise{HTTP: "10.0.0.2:80", GRPC: "10.0.0.2:81", Peer: "10.0.0.2:7946", Gossip: "10.0.0.9:83"}
	if c.Advertise != want {
		t.Errorf("got %+v, want %+v", c.Advertise, want)
	}
	if !c.FirstMember() {
		t.Error("b is a first member")
	}
	if mustLoad(t, "node: {name: c}\ncluster_membership: {current_config: [{node_id: a, address: 'h:1'}]}\n").FirstMember() {
		t.Error("c is no first member")
	}
}

func TestValues(t *testing.T) {
	for _, tc := range []struct {
		text string
		want Size
	}{{"64MB", 64 << 20}, {"64 mib", 64 << 20}, {"1024", 1024}, {"1.5GB", 3 << 29}, {"7B", 7}, {"0", 0}} {
		if got, err := ParseSize(tc.text); err != nil || got != tc.want {
			t.Errorf("%q: %d, %v; want %d", tc.text, got, err, tc.want)
		}
	}
	for _, bad := range []string{"", "MB", "-1", "1PB", "9223372036854775807KB", "NaN", "1e99GB"} {
		if got, err := ParseSize(bad); err == nil {
			t.Errorf("%q: %d, want an error", bad, got)
		}
	}
	c := mustLoad(t, "history_window: 90s\nlog: {level: WARN, format: json}\n")
	if c.HistoryWindow != 90*time.Second || c.Log != (Log{"warn", "json"}) {
		t.Errorf("got %v %+v", c.HistoryWindow, c.Log)
	}
}

func TestNotYAML(t *testing.T) {
	for _, text := range []string{"a: [", "a: 1\na: 2\n", "- a\n"} {
		if c, err := Load(Sources{File: mustFile(t, text)}); err == nil {
			t.Errorf("%q: %+v, want an error", text, c)
		}
	}
	if _, err := Load(Sources{File: filepath.Join(t.TempDir(), "none.yaml")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A witness is no first member, and its memory does not follow memory_budget.
func TestWitness(t *testing.T) {
	values := map[string]any{"node.name": "w", "node.role": "witness",
		"cluster_membership.current_config": []any{map[string]any{"node_id": "w", "address": "w:7946", "role": "voter"}}}
	if _, err := Load(Sources{Values: values}); err == nil || !strings.Contains(err.Error(), "node.role") {
		t.Errorf("a first member that is a witness: %v", err)
	}
	c, err := Load(Sources{Values: map[string]any{"node.role": "witness", "profile": "scale"}})
	if err != nil {
		t.Fatal(err)
	}
	if b := c.Budget(); !c.Witness() || b.Total != 48*MB || b.Memtables+b.BlockCache+b.Runs+b.Records != 0 || b.sum() > b.Total {
		t.Errorf("the budget is %+v", b)
	}
}
