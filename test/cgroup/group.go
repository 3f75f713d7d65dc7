//go:build unix

package cgroup

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Group is a set of processes that share a limit.
type Group struct {
	dir     string
	memory  string // the directory that limits memory, dir in most cases
	version version
	limit   Limit
}

// Limit is what the group was made with.
func (g *Group) Limit() Limit { return g.limit }

func (g *Group) dirs() []string { return roots(g.dir, g.memory) }

// procs are the files that list the processes of the group, all the same.
func (g *Group) procs() []string {
	var files []string
	for _, dir := range g.dirs() {
		files = append(files, filepath.Join(dir, "cgroup.procs"))
	}
	return files
}

// Add moves a process, with all its threads, into the group.
func (g *Group) Add(pid int) error {
	for _, file := range g.procs() {
		if err := write(file, strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("process %d: %w", pid, unavailable(err))
		}
	}
	return nil
}

// Lift takes the limit of CPU time away; the processes stay in the group.
func (g *Group) Lift() error {
	if err := g.version.lift(g.dir); err != nil {
		return fmt.Errorf("lift the limit: %w", unavailable(err))
	}
	return nil
}

// Under is a command that puts itself into the group and is then replaced by
// the command in its arguments, so that this one never runs outside.
func (g *Group) Under() []string {
	var argv []string
	for _, file := range g.procs() {
		argv = append([]string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, file}, argv...)
	}
	return argv
}

// PIDs are the processes of the group.
func (g *Group) PIDs() ([]int, error) {
	file := g.procs()[0]
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// Throttle counts how often a group stood still for its limit, since it was
// made.
type Throttle struct {
	// Periods had something to run; in Throttled of them the quota was used up.
	Periods   int64 `json:"periods"`
	Throttled int64 `json:"throttled_periods"`
	// Time is summed over CPUs.
	Time time.Duration `json:"throttled_ns"`
}

// Sub is the throttling since before.
func (t Throttle) Sub(before Throttle) Throttle {
	return Throttle{t.Periods - before.Periods, t.Throttled - before.Throttled, t.Time - before.Time}
}

// Throttle reads the counters.
func (g *Group) Throttle() (Throttle, error) {
	file := filepath.Join(g.dir, "cpu.stat")
	text, err := os.ReadFile(file)
	if err != nil {
		return Throttle{}, err
	}
	counters := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		var name string
		var value int64
		if _, err := fmt.Sscan(line, &name, &value); err != nil {
			return Throttle{}, fmt.Errorf("%s: %q: %w", file, line, err)
		}
		counters[name] = value
	}
	return Throttle{counters["nr_periods"], counters["nr_throttled"], g.version.throttled(counters)}, nil
}

// write changes a file of the kernel; it never makes one.
func write(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}
