package main

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	began := time.Unix(1000, 0)
	w := &window{
		begin: &usage{at: began, nodes: []time.Duration{time.Second, 0}, generator: 0, machine: machine{all: 1000, idle: 500}},
		end: &usage{at: began.Add(10 * time.Second), nodes: []time.Duration{3 * time.Second, time.Second}, generator: 4 * time.Second,
			machine: machine{all: 3000, idle: 1000}},
	}
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9 {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}
	s := w.nodes(0.2)
	near("mean", s.Mean, 0.75)
	near("least", s.Min, 0.5)
	near("most", s.Max, 1)
	near("CPUs of nodes", w.nodeCPUs(), 0.3)
	near("generator", w.generator(0.5), 0.8)
	near("machine", w.busy(), 0.75)
}

func TestReadMachine(t *testing.T) {
	file := filepath.Join(t.TempDir(), "stat")
	if err := os.WriteFile(file, []byte("cpu  10 1 5 100 20 1 2 3 7 0\ncpu0 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := readMachine(file); err != nil || got != (machine{all: 142, idle: 120}) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := readMachine("/proc/stat"); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("intr 1 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readMachine(file); err == nil {
		t.Error("a file of another form was read")
	}
}
