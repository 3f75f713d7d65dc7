package ctl

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/pprof/profile"

	"kvstore/internal/ctl/memserver"
	"kvstore/internal/profiling"
)

func TestDebugProfile(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	t.Chdir(t.TempDir())
	for _, kind := range profiling.Types {
		r := kvctl("", "debug", "profile", "--type", kind, "--seconds", "1", "-e", s.Addr, "-o", "json")
		if r.code != 0 {
			t.Fatalf("%s: %+v", kind, r)
		}
		var v profileView
		if err := json.Unmarshal([]byte(r.out), &v); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(v.Nodes[0].File)
		if err != nil {
			t.Fatal(err)
		}
		if uint64(len(data)) != v.Nodes[0].Bytes || v.Nodes[0].Node != "node-1" {
			t.Errorf("%s: %d bytes in the file, %+v", kind, len(data), v.Nodes[0])
		}
		tool := "go tool pprof -http=: "
		if kind == profiling.Trace {
			tool = "go tool trace "
		} else if _, err := profile.ParseData(data); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if v.Command != tool+v.Nodes[0].File {
			t.Errorf("%s: look at it with %q", kind, v.Command)
		}
	}
}

func TestDebugProfileRefusals(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	t.Chdir(t.TempDir())
	s.RefuseProfiles()
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--type", "heap"}, exitDenied, "profiling is turned off on this node"},
		{[]string{"--node", "n9"}, exitNotFound, `no node "n9"; there are node-1`},
		{[]string{"--type", "x"}, exitUsage, `--type "x": want one of cpu, heap`},
		{[]string{"--seconds", "61"}, exitUsage, "--seconds 61: want 1 to 60"},
		{[]string{"--type", "heap", "--file", "no/such/dir/x"}, exitError, "file of the profile"},
	} {
		r := kvctl("", append([]string{"debug", "profile", "-e", s.Addr}, c.args...)...)
		if r.code != c.code || !strings.Contains(r.err, c.says) {
			t.Errorf("%v: %+v", c.args, r)
		}
	}
	left, err := os.ReadDir(".")
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestMergeProfiles(t *testing.T) {
	s, dir := memserver.Start(t), t.TempDir()
	isolate(t)
	var nodes []nodeProfileView
	for _, name := range []string{"n1", "n2"} {
		file := filepath.Join(dir, name)
		if r := kvctl("", "debug", "profile", "--type", "goroutine", "--file", file, "-e", s.Addr); r.code != 0 {
			t.Fatalf("%+v", r)
		}
		nodes = append(nodes, nodeProfileView{Node: name, File: file})
	}
	merged := filepath.Join(dir, "all")
	if err := mergeProfiles(merged, nodes); err != nil {
		t.Fatal(err)
	}
	p, err := readProfile(merged)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, sample := range p.Sample {
		seen[sample.Label["node"][0]] = true
	}
	if !seen["n1"] || !seen["n2"] {
		t.Errorf("samples of %v", seen)
	}
}

func TestNameFile(t *testing.T) {
	for in, want := range map[string]string{"cpu.pb.gz": "cpu-n1.pb.gz", "a.b/cpu": "a.b/cpu-n1", "trace.out": "trace-n1.out"} {
		if got := nameFile(in, "n1"); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
