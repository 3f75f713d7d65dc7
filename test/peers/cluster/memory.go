package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Memory is what a process has resident, in bytes.
type Memory struct {
	// Total is VmRSS: Anonymous and Mapped.
	Total int64 `json:"total"`
	// Anonymous is RssAnon: heap and stacks, which only the process can give
	// back.
	Anonymous int64 `json:"anonymous"`
	// Mapped is RssFile and RssShmem: pages of mapped files, which the kernel
	// takes back when it needs them.
	Mapped int64 `json:"mapped"`
}

// Max is the larger of each figure.
func (m Memory) Max(o Memory) Memory {
	return Memory{max(m.Total, o.Total), max(m.Anonymous, o.Anonymous), max(m.Mapped, o.Mapped)}
}

// Memory is that of every node, now.
func (c *Cluster) Memory() ([]Memory, error) {
	all := make([]Memory, len(c.Nodes))
	for i, n := range c.Nodes {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", n.PID))
		if err != nil {
			return nil, fmt.Errorf("%s: node %d: %w", c.Name, i+1, err)
		}
		if all[i], err = memoryOf(string(text)); err != nil {
			return nil, fmt.Errorf("%s: node %d: /proc/%d/status: %w", c.Name, i+1, n.PID, err)
		}
	}
	return all, nil
}

func memoryOf(status string) (m Memory, err error) {
	for line := range strings.Lines(status) {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "VmRSS", "RssAnon", "RssFile", "RssShmem":
		default:
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return m, fmt.Errorf("%s: %w", name, err)
		}
		switch name {
		case "VmRSS":
			m.Total = kb << 10
		case "RssAnon":
			m.Anonymous = kb << 10
		default:
			m.Mapped += kb << 10
		}
	}
	if m.Total == 0 {
		return m, fmt.Errorf("no VmRSS: the process ended")
	}
	return m, nil
}

// WatchMemory looks at the memory of every node until stop is called, which
// returns the most that was seen of each figure of each node. The nodes must
// not be restarted meanwhile.
func (c *Cluster) WatchMemory(every time.Duration) (stop func() ([]Memory, error)) {
	peaks := make([]Memory, len(c.Nodes))
	var failed error
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with stop
		defer close(done)
		look := time.NewTicker(every)
		defer look.Stop()
		for more := true; more && failed == nil; {
			var now []Memory
			now, failed = c.Memory()
			for i, m := range now {
				peaks[i] = peaks[i].Max(m)
			}
			select {
			case <-look.C:
			case <-quit:
				more = false
			}
		}
	}()
	return func() ([]Memory, error) {
		close(quit)
		<-done
		return peaks, failed
	}
}
