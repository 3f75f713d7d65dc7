//go:build unix

package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// version is what differs between the two kinds of hierarchies.
type version interface {
	String() string
	// enable gives groups a controller.
	enable(t *Tree, controller string) error
	limit(g *Group, l Limit) error
	lift(dir string) error
	throttled(counters map[string]int64) time.Duration
}

type v1 struct{}

func (v1) String() string { return "v1" }

// enable only looks: every hierarchy has its controller.
func (v1) enable(t *Tree, controller string) error {
	if controller != "memory" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(t.memory, memoryV1)); err != nil {
		return fmt.Errorf("%w: no memory controller in %s: %w", ErrUnavailable, t.memory, err)
	}
	return nil
}

const memoryV1 = "memory.limit_in_bytes"

func (v1) limit(g *Group, l Limit) error {
	if err := write(filepath.Join(g.dir, "cpu.cfs_period_us"), micros(l.Period)); err != nil {
		return err
	}
	if err := write(filepath.Join(g.dir, "cpu.cfs_quota_us"), micros(l.Quota())); err != nil || l.Memory == 0 {
		return err
	}
	return write(filepath.Join(g.memory, memoryV1), strconv.FormatInt(l.Memory, 10))
}

func (v1) lift(dir string) error { return write(filepath.Join(dir, "cpu.cfs_quota_us"), "-1") }

func (v1) throttled(counters map[string]int64) time.Duration {
	return time.Duration(counters["throttled_time"])
}

type v2 struct{}

func (v2) String() string { return "v2" }

// enable adds the controller to those that groups have, until the tree is closed.
func (v2) enable(t *Tree, controller string) error {
	text, err := os.ReadFile(filepath.Join(t.root, "cgroup.controllers"))
	if err != nil {
		return err
	}
	if !slices.Contains(strings.Fields(string(text)), controller) {
		return fmt.Errorf("%w: no %s controller in %s", ErrUnavailable, controller, t.root)
	}
	file := filepath.Join(t.root, "cgroup.subtree_control")
	if text, err = os.ReadFile(file); err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(text)), controller) {
		return nil
	}
	if err := write(file, "+"+controller); err != nil {
		// Busy: processes are in the root, as in a container.
		return fmt.Errorf("%w: give groups the %s controller: %w", ErrUnavailable, controller, err)
	}
	before := t.restore
	t.restore = func() error { return errors.Join(write(file, "-"+controller), before()) }
	return nil
}

func (v2) limit(g *Group, l Limit) error {
	if err := write(filepath.Join(g.dir, "cpu.max"), micros(l.Quota())+" "+micros(l.Period)); err != nil || l.Memory == 0 {
		return err
	}
	return write(filepath.Join(g.dir, "memory.max"), strconv.FormatInt(l.Memory, 10))
}

func (v2) lift(dir string) error { return write(filepath.Join(dir, "cpu.max"), "max") }

func (v2) throttled(counters map[string]int64) time.Duration {
	return time.Duration(counters["throttled_usec"]) * time.Microsecond
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
