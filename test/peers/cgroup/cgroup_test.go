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
	{"version 2", "v2", ".", map[string]string{"cgroup.controllers": "cpuset cpu io\n", "cgroup.subtree_control": "cpu io\n"},
		"usage_usec 5\nnr_periods 9\nnr_throttled 4\nthrottled_usec 3000\n"},
	{"version 2 beside version 1", "v2", "unified", map[string]string{"unified/cgroup.controllers": "cpu\n", "unified/cgroup.subtree_control": "\n", "memory/cgroup.procs": ""},
		"nr_periods 9\nnr_throttled 4\nthrottled_usec 3000\n"},
	{"version 1", "v1", "cpu", map[string]string{"unified/cgroup.controllers": "hugetlb\n", "cpu/cpu.shares": "1024\n"},
		"nr_periods 9\nnr_throttled 4\nthrottled_time 3000000\n"},
	{"version 1, two controllers", "v1", "cpu,cpuacct", map[string]string{"cpu,cpuacct/cpu.shares": "1024\n"},
		"nr_periods 9\nnr_throttled 4\nthrottled_time 3000000\n"},
}

func TestLayouts(t *testing.T) {
	for _, l := range layouts {
		t.Run(l.name, func(t *testing.T) {
			mount := t.TempDir()
			for file, text := range l.present {
				put(t, filepath.Join(mount, file), text)
			}
			tree, err := open(mount, fake("cgroup.procs", "cpu.max", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpu.stat"))
			if err != nil {
				t.Fatal(err)
			}
			g, err := tree.Group("n1", Limit{CPUs: 0.2, Period: period})
			if err != nil {
				t.Fatal(err)
			}
			if want := filepath.Join(mount, l.root, fmt.Sprint(prefix, os.Getpid(), "-n1")); tree.Version() != l.version || g.dir != want {
				t.Errorf("%s at %s, want %s at %s", tree.Version(), g.dir, l.version, want)
			}
			if l.version == "v1" {
				expect(t, filepath.Join(g.dir, "cpu.cfs_period_us"), "10000")
				expect(t, filepath.Join(g.dir, "cpu.cfs_quota_us"), "2000")
			} else {
				expect(t, filepath.Join(g.dir, "cpu.max"), "2000 10000")
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
			if _, err := os.Stat(g.dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", g.dir, err)
			}
		})
	}
}

// TestSubtreeControl: a controller that had to be given is taken back.
func TestSubtreeControl(t *testing.T) {
	mount := t.TempDir()
	control := filepath.Join(mount, "cgroup.subtree_control")
	put(t, filepath.Join(mount, "cgroup.controllers"), "cpu")
	put(t, control, "")
	tree, err := open(mount, fake())
	if err != nil {
		t.Fatal(err)
	}
	expect(t, control, "+cpu")
	if err := tree.Close(); err != nil {
		t.Fatal(err)
	}
	expect(t, control, "-cpu")
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
		if _, err := tree.Group("n1", Limit{1, period}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "run as root") {
			t.Errorf("%v: %v", cause, err)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, l := range []Limit{{0.2, time.Microsecond}, {0.2, time.Minute}, {0.05, period}, {0, period}} {
		if err := l.Validate(); err == nil {
			t.Errorf("%+v is allowed", l)
		}
	}
	if l := (Limit{0.15, period}); l.Validate() != nil || l.Quota() != 1500*time.Microsecond {
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
	for _, dir := range []string{group(ended.Process.Pid), group(os.Getppid()), filepath.Join(mount, "cpu", "other")} {
		put(t, filepath.Join(dir, "cgroup.procs"), "")
	}
	if _, err := open(mount, fake()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(group(ended.Process.Pid)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the group of a process that ended stays: %v", err)
	}
	for _, dir := range []string{group(os.Getppid()), filepath.Join(mount, "cpu", "other")} {
		if _, err := os.Stat(dir); err != nil {
			t.Error(err)
		}
	}
}

// TestMachine: the kernel's own files are as they are written and read here.
func TestMachine(t *testing.T) {
	tree, err := Open(Mount)
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // after those of the processes
		if err := tree.Close(); err != nil {
			t.Error(err)
		}
	})
	g, err := tree.Group("test", Limit{CPUs: 0.2, Period: period})
	if errors.Is(err, ErrUnavailable) {
		t.Skip(err)
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
