package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTicks per second in /proc/<pid>/stat: USER_HZ, 100 on every Linux.
const clockTicks = 100

// Cost is what the nodes together have used so far.
type Cost struct {
	At time.Time
	// CPU is user and system time.
	CPU time.Duration
	// Written is in bytes that the disk was given, by everybody on this machine; 0
	// where it is none of its own. What the kernel counts of a process is whole folios
	// of the page cache, which a log with prepared segments makes large.
	Written int64
	// LogSyncs and EngineSyncs count; one of the latter is several fsyncs.
	LogSyncs, EngineSyncs float64
}

// Sub is the cost since before.
func (c Cost) Sub(before Cost) Cost {
	return Cost{c.At, c.CPU - before.CPU, c.Written - before.Written, c.LogSyncs - before.LogSyncs, c.EngineSyncs - before.EngineSyncs}
}

// CPU is that of all nodes so far; it asks the kernel only.
func (c *Cluster) CPU() (time.Duration, error) {
	var sum time.Duration
	for _, n := range c.Nodes {
		cpu, err := ProcessCPU(n.PID)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.Name, err)
		}
		sum += cpu
	}
	return sum, nil
}

// Cost reads kernel and metrics of all nodes.
func (c *Cluster) Cost(ctx context.Context) (Cost, error) {
	cost := Cost{At: time.Now()}
	var err error
	if cost.CPU, err = c.CPU(); err != nil {
		return cost, err
	}
	if cost.Written, err = deviceWritten(c.Nodes[0].DataDir); err != nil {
		return cost, err
	}
	m, err := c.Metrics(ctx)
	if err != nil {
		return cost, err
	}
	cost.LogSyncs, cost.EngineSyncs = m.Histogram(c.LogSyncs).Count, m.Histogram(c.EngineSyncs).Count
	return cost, nil
}

// Written is the bytes that all nodes handed to the disk so far; it asks the
// kernel only.
func (c *Cluster) Written() (sum int64, err error) {
	for _, n := range c.Nodes {
		written, err := processWritten(n.PID)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", c.Name, err)
		}
		sum += written
	}
	return sum, nil
}

// ProcessCPU is the user and system time of a process so far.
func ProcessCPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything; utime and stime are fields
	// 14 and 15, the first after the name is field 3.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks, nil
}

func processWritten(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			return strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/%d/io: no write_bytes", pid)
}
