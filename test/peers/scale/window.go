package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"kvstore/test/cgroup"
	"kvstore/test/peers/cluster"
)

// usage is what the groups have used so far.
type usage struct {
	at        time.Time
	nodes     []time.Duration
	generator time.Duration
	throttle  cgroup.Throttle // of all nodes
	waits     cgroup.Throttle // of the generator
	machine   machine
}

// machine is CPU time of all CPUs since the start, in ticks of the kernel.
type machine struct{ all, idle int64 }

func (s *session) usage() (*usage, error) {
	u := &usage{at: time.Now()}
	for i, n := range s.cluster.Nodes {
		cpu, err := cluster.ProcessCPU(n.PID)
		if err != nil {
			return nil, fmt.Errorf("node %d: %w", i+1, err)
		}
		u.nodes = append(u.nodes, cpu)
		t, err := s.groups[i].Throttle()
		if err != nil {
			return nil, err
		}
		u.throttle.Periods += t.Periods
		u.throttle.Throttled += t.Throttled
		u.throttle.Time += t.Time
	}
	pids, err := s.generator.PIDs()
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		cpu, err := cluster.ProcessCPU(pid)
		if err != nil {
			return nil, fmt.Errorf("generator: %w", err)
		}
		u.generator += cpu
	}
	if u.waits, err = s.generator.Throttle(); err != nil {
		return nil, err
	}
	u.machine, err = readMachine("/proc/stat")
	return u, err
}

// readMachine reads the first line: cpu user nice system idle iowait irq ...
func readMachine(file string) (m machine, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return m, err
	}
	first, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(first)
	if len(fields) < 9 || fields[0] != "cpu" {
		return m, fmt.Errorf("%s begins with %q", file, first)
	}
	for i, field := range fields[1:9] { // guests are in user and nice
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return m, fmt.Errorf("%s: %w", file, err)
		}
		m.all += n
		if i == 3 || i == 4 {
			m.idle += n
		}
	}
	return m, nil
}

// shares are used CPU time by what the limits allowed.
type shares struct {
	Mean float64 `json:"mean"`
	Min  float64 `json:"min"`
	Max  float64 `json:"max"`
}

// window is what was used between two looks.
type window struct{ begin, end *usage }

func (w *window) seconds() float64 { return w.end.at.Sub(w.begin.at).Seconds() }

// nodes compares each node with its share of cpus.
func (w *window) nodes(cpus float64) (s shares) {
	for i := range w.end.nodes {
		used := (w.end.nodes[i] - w.begin.nodes[i]).Seconds() / w.seconds() / cpus
		if i == 0 || used < s.Min {
			s.Min = used
		}
		s.Max = max(s.Max, used)
		s.Mean += used / float64(len(w.end.nodes))
	}
	return s
}

// nodeCPUs is what all nodes used, in CPUs.
func (w *window) nodeCPUs() float64 {
	return w.nodes(1).Mean * float64(len(w.end.nodes))
}

func (w *window) generator(cpus float64) float64 {
	return (w.end.generator - w.begin.generator).Seconds() / w.seconds() / cpus
}

// busy is the share of the machine's CPU time that anything used.
func (w *window) busy() float64 {
	all := w.end.machine.all - w.begin.machine.all
	if all == 0 {
		return 0
	}
	return 1 - float64(w.end.machine.idle-w.begin.machine.idle)/float64(all)
}

// look takes a window of length d.
func (s *session) look(ctx context.Context, d time.Duration) (w *window, err error) {
	w = new(window)
	if w.begin, err = s.usage(); err != nil {
		return nil, err
	}
	if err := pause(ctx, d); err != nil {
		return nil, err
	}
	w.end, err = s.usage()
	return w, err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return errors.Join(errors.New("interrupted"), ctx.Err())
	}
}
