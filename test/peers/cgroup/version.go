package cgroup

import (
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
	// enable gives groups below the root the controller.
	enable(t *Tree) error
	limit(dir string, l Limit) error
	lift(dir string) error
	throttled(counters map[string]int64) time.Duration
}

type v1 struct{}

func (v1) String() string     { return "v1" }
func (v1) enable(*Tree) error { return nil }

func (v1) limit(dir string, l Limit) error {
	if err := write(filepath.Join(dir, "cpu.cfs_period_us"), micros(l.Period)); err != nil {
		return err
	}
	return write(filepath.Join(dir, "cpu.cfs_quota_us"), micros(l.Quota()))
}

func (v1) lift(dir string) error { return write(filepath.Join(dir, "cpu.cfs_quota_us"), "-1") }

func (v1) throttled(counters map[string]int64) time.Duration {
	return time.Duration(counters["throttled_time"])
}

type v2 struct{}

func (v2) String() string { return "v2" }

func (v2) enable(t *Tree) error {
	file := filepath.Join(t.root, "cgroup.subtree_control")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if slices.Contains(strings.Fields(string(text)), "cpu") {
		return nil
	}
	if err := write(file, "+cpu"); err != nil {
		return fmt.Errorf("give groups the cpu controller: %w", unavailable(err))
	}
	t.restore = func() error { return write(file, "-cpu") }
	return nil
}

func (v2) limit(dir string, l Limit) error {
	return write(filepath.Join(dir, "cpu.max"), micros(l.Quota())+" "+micros(l.Period))
}

func (v2) lift(dir string) error { return write(filepath.Join(dir, "cpu.max"), "max") }

func (v2) throttled(counters map[string]int64) time.Duration {
	return time.Duration(counters["throttled_usec"]) * time.Microsecond
}

func micros(d time.Duration) string { return strconv.FormatInt(d.Microseconds(), 10) }
