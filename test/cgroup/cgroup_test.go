//go:build unix

package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const period = 10 * time.Millisecond

// fake makes what the kernel makes with a directory.
func fake(names ...string) files {
	return files{
		mkdir: func(dir string) error {
			err := os.Mkdir(dir, 0o700)
			for _, name := range names {
				err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
			}
			return err
		},
		rmdir: os.RemoveAll,
	}
}

func put(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, file, want string) {
	t.Helper()
	got, err := os.ReadFile(file)
	if err != nil || string(got) != want {
		t.Errorf("%s: %q, %v, want %q", file, got, err, want)
	}
}

// layouts are how machines mount their hierarchies.
var layouts = []struct {
	name, version, root string
	present             map[string]string
	stat                string
}{
	{"version 2", "v2", ".", map[string]string{"cgroup.controllers": "cpuset cpu io memory\n", "cgroup.subtree_control": "cpu io memory\n"},
		"usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 3000\n"},
	{"version 2 beside version 1", "v2", "unified", map[string]string{"unified/cgroup.controllers": "cpu memory\n", "unified/cgroup.subtree_control": "\n", "cpuset/cgroup.procs": ""},
		"nr_periods 9\nnr_throttled 4\nthrottled_usec 3000\n"},
	{"version 1", "v1", "cpu", map[string]string{"unified/cgroup.controllers": "hugetlb\n", "cpu/cpu.shares": "1024\n", "memory/memory.limit_in_bytes": "9\n"},
		"nr_periods 9\nnr_throttled 4\nthrottled_time 3000000\n"},
	{"version 1, two controllers", "v1", "cpu,cpuacct", map[string]string{"cpu,cpuacct/cpu.shares": "1024\n", "memory/memory.limit_in_bytes": "9\n"},
		"nr_periods 9\nnr_throttled 4\nthrottled_time 3000000\n"},
}

func TestLayouts(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			mount := t.TempDir()
			for file, text := range l.present {
				put(t, filepath.Join(mount, file), text)
			}
			tree, err := open(mount, fake("cgroup.procs", "cpu.max", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.stat", "memory.max", "memory.limit_in_bytes"))
			if err != nil {
				t.Fatal(err)
			}
			g, err := tree.Group("n1", Limit{CPUs: 0.2, Period: period, Memory: 1 << 30})
			if err != nil {
				t.Fatal(err)
			}
			if want := filepath.Join(mount, l.root, fmt.Sprint(prefix, os.Getpid(), "-n1")); tree.Version() != l.version || g.dir != want {
				t.Errorf("%s at %s, want %s at %s", tree.Version(), g.dir, l.version, want)
			}
			if l.version == "v1" {
				expect(t, filepath.Join(g.dir, "cpu.cfs_period_us"), "10000")
				expect(t, filepath.Join(g.dir, "cpu.cfs_quota_us"), "2000")
				expect(t, filepath.Join(mount, "memory", filepath.Base(g.dir), "memory.limit_in_bytes"), "1073741824")
			} else {
				expect(t, filepath.Join(g.dir, "cpu.max"), "2000 10000")
				expect(t, filepath.Join(g.dir, "memory.max"), "1073741824")
			}
			if err := g.Add(77); err != nil {
				t.Error(err)
			}
			for _, file := range g.procs() {
				expect(t, file, "77")
			}
			put(t, filepath.Join(g.dir, "cpu.stat"), l.stat)
			if got, err := g.Throttle(); err != nil || got != (Throttle{9, 4, 3 * time.Millisecond}) {
				t.Errorf("throttled %+v, %v", got, err)
			}
			if err := g.Lift(); err != nil {
				t.Error(err)
			}
			if l.version == "v1" {
				expect(t, filepath.Join(g.dir, "cpu.cfs_quota_us"), "-1")
			} else {
				expect(t, filepath.Join(g.dir, "cpu.max"), "max")
			}
			if err := tree.Close(); err != nil {
				t.Error(err)
			}
			for _, dir := range g.dirs() {
				if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s is still there: %v", dir, err)
				}
			}
		})
	}
}

// TestSubtreeControl: controllers that had to be given are taken back.
func TestSubtreeControl(t *testing.T) {
	mount := t.TempDir()
	control := filepath.Join(mount, "cgroup.subtree_control")
	put(t, filepath.Join(mount, "cgroup.controllers"), "cpu memory")
	put(t, control, "")
	tree, err := open(mount, fake("cpu.max", "memory.max"))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, control, "+cpu")
	if _, err := tree.Group("n1", Limit{CPUs: 1, Period: period, Memory: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	expect(t, control, "+memory")
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, control, "-cpu") // after -memory
}

// TestNoMemoryController: a machine may have the one controller without the other.
func TestNoMemoryController(t *testing.T) {
	for file, text := range map[string]string{"cgroup.controllers": "cpu", "cpu/cpu.shares": ""} {
		mount := t.TempDir()
		put(t, filepath.Join(mount, file), text)
		put(t, filepath.Join(mount, "cgroup.subtree_control"), "cpu")
		tree, err := open(mount, fake())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Group("n1", Limit{1, period, 1 << 30}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no memory controller") {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestUnavailable(t *testing.T) {
	if _, err := open(t.TempDir(), fake()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("without a controller: %v", err)
	}
	for _, cause := range []error{syscall.EACCES, syscall.EPERM, syscall.EROFS} {
		mount := t.TempDir()
		put(t, filepath.Join(mount, "cpu", "cpu.shares"), "")
		refuses := fake()
		refuses.mkdir = func(dir string) error { return &fs.PathError{Op: "mkdir", Path: dir, Err: cause} }
		tree, err := open(mount, refuses)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tree.Group("n1", Limit{1, period, 0}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "run as root") {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, l := range []Limit{{0.2, time.Microsecond, 0}, {0.2, time.Minute, 0}, {0.05, period, 0}, {0, period, 0}, {1, period, 1}, {1, period, -1}} {
		if err := l.Validate(); err == nil {
			t.Errorf("%+v is allowed", l)
		}
	}
	if l := (Limit{0.15, period, 64 << 20}); l.Validate() != nil || l.Quota() != 1500*time.Microsecond {
		t.Errorf("%+v: %v, %v", l, l.Quota(), l.Validate())
	}
}

// TestSweep: groups of processes that ended go, others stay.
func TestSweep(t *testing.T) {
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	mount := t.TempDir()
	put(t, filepath.Join(mount, "cpu", "cpu.shares"), "")
	group := func(pid int) string { return filepath.Join(mount, "cpu", fmt.Sprint(prefix, pid, "-n1")) }
	memory := filepath.Join(mount, "memory", filepath.Base(group(ended.Process.Pid)))
	for _, dir := range []string{group(ended.Process.Pid), memory, group(os.Getppid()), filepath.Join(mount, "cpu", "other")} {
		put(t, filepath.Join(dir, "cgroup.procs"), "")
	}
	if _, err := open(mount, fake()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{group(ended.Process.Pid), memory} {
		if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of a process that ended stays: %v", dir, err)
		}
	}
	for _, dir := range []string{group(os.Getppid()), filepath.Join(mount, "cpu", "other")} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}

// TestMachine: the kernel's own files are as they are written and read here, where
// there are any.
func TestMachine(t *testing.T) {
	tree, err := Open(Mount)
	if errors.Is(err, ErrUnavailable) {
		t.Log("nothing to compare with:", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after those of the processes
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	g, err := tree.Group("test", Limit{CPUs: 0.2, Period: period, Memory: 256 << 20})
	if errors.Is(err, ErrUnavailable) {
		t.Log("nothing to compare with:", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s, %s", tree.Version(), g.dir)
	contains(t, g, echo(t, append(g.Under(), "cat")...))
	moved := echo(t, "cat")
	if err := g.Add(moved); err != nil {
		t.Fatal(err)
	}
	contains(t, g, moved)
	if _, err := g.Throttle(); err != nil {
		t.Error(err)
	}
	if err := g.Lift(); err != nil {
		t.Error(err)
	}
}

// echo starts a command that copies lines, waits until it has copied one, and
// ends it with the test.
func echo(t *testing.T, argv ...string) (pid int) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	if _, err := in.Write([]byte("x\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid
}

func contains(t *testing.T, g *Group, pid int) {
	t.Helper()
	pids, err := g.PIDs()
	if err != nil || !slices.Contains(pids, pid) {
		t.Errorf("processes %v, %v, want %d", pids, err, pid)
	}
}
