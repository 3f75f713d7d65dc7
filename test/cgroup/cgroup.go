//go:build unix

// Package cgroup limits the CPU time and the memory of processes with control
// groups, of version 1 or 2, wherever this machine has its cpu controller. It needs
// Linux and the right to make groups, which is root's as a rule.
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Mount is where the hierarchies are.
const Mount = "/sys/fs/cgroup"

// ErrUnavailable means that this machine lacks a controller, or does not let this
// user make groups; what wraps it says which.
var ErrUnavailable = errors.New("control groups cannot be used")

// prefix of the names of all groups; the id of the process that made one and
// a name of its choice follow.
const prefix = "kvstore-bench-"

const (
	minPeriod = time.Millisecond
	maxPeriod = time.Second
	minQuota  = time.Millisecond // the kernel's, per period
	minMemory = 1 << 20          // no process starts with less
	// removeTimeout is how long the processes of a group may take to be gone.
	removeTimeout = 10 * time.Second
	lookEvery     = 20 * time.Millisecond
)

// Limit is CPU time per time, and memory.
type Limit struct {
	// CPUs is the share, 1 for one CPU.
	CPUs float64
	// Period is how often the quota is given, 1 ms to 1 s. Who has used it up
	// stands still until the next one.
	Period time.Duration
	// Memory is bytes, those of the page cache among them; 0 sets no limit. Who
	// needs more and has no page cache to give is killed.
	Memory int64
}

// Quota is the CPU time of a period.
func (l Limit) Quota() time.Duration {
	return time.Duration(l.CPUs * float64(l.Period)).Round(time.Microsecond)
}

// Validate says what the kernel would refuse.
func (l Limit) Validate() error {
	if l.Period < minPeriod || l.Period > maxPeriod {
		return fmt.Errorf("period %s: want %s to %s", l.Period, minPeriod, maxPeriod)
	}
	if l.Quota() < minQuota {
		return fmt.Errorf("%g CPUs in a period of %s are %s: want at least %s", l.CPUs, l.Period, l.Quota(), minQuota)
	}
	if l.Memory != 0 && l.Memory < minMemory {
		return fmt.Errorf("memory of %d bytes: want at least %d", l.Memory, minMemory)
	}
	return nil
}

// Tree is a hierarchy with the cpu controller, and the groups that this
// process made in it. Not for concurrent use.
type Tree struct {
	root string
	// memory is where groups limit memory: root, or the hierarchy of that
	// controller, which version 1 has beside it.
	memory  string
	version version
	files   files
	groups  []*Group
	// restore takes back what was changed outside of the groups.
	restore func() error
}

// files are what a directory of the kernel does differently from others.
type files struct {
	mkdir, rmdir func(dir string) error
}

var kernel = files{
	mkdir: func(dir string) error { return os.Mkdir(dir, 0o755) },
	rmdir: syscall.Rmdir,
}

// Open looks for the cpu controller below mount, removes the groups that dead
// processes left, and makes none.
func Open(mount string) (*Tree, error) { return open(mount, kernel) }

func open(mount string, f files) (*Tree, error) {
	t := &Tree{files: f, restore: func() error { return nil }}
	for _, dir := range []string{mount, filepath.Join(mount, "unified")} {
		if text, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")); err == nil && slices.Contains(strings.Fields(string(text)), "cpu") {
			t.root, t.memory, t.version = dir, dir, v2{}
			return t, t.prepare()
		}
	}
	for _, dir := range []string{filepath.Join(mount, "cpu"), filepath.Join(mount, "cpu,cpuacct")} {
		if _, err := os.Stat(filepath.Join(dir, "cpu.shares")); err == nil {
			t.root, t.memory, t.version = dir, filepath.Join(mount, "memory"), v1{}
			return t, t.prepare()
		}
	}
	return nil, fmt.Errorf("%w: no cpu controller in %s, neither version 2 (cgroup.controllers there or in unified) nor version 1 (cpu)", ErrUnavailable, mount)
}

func (t *Tree) prepare() error {
	if err := t.sweep(); err != nil {
		return err
	}
	return t.version.enable(t, "cpu")
}

// Version is "v1" or "v2".
func (t *Tree) Version() string { return t.version.String() }

// unavailable marks errors of files that only root may write.
func unavailable(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		return fmt.Errorf("%w by user %d; run as root, where they can be written: %w", ErrUnavailable, os.Geteuid(), err)
	}
	return err
}

// Group makes a group with a limit.
func (t *Tree) Group(name string, l Limit) (*Group, error) {
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("group %s: %w", name, err)
	}
	name = fmt.Sprint(prefix, os.Getpid(), "-", name)
	g := &Group{dir: filepath.Join(t.root, name), memory: filepath.Join(t.memory, name), version: t.version, limit: l}
	if l.Memory == 0 {
		g.memory = g.dir
	} else if err := t.version.enable(t, "memory"); err != nil {
		return nil, fmt.Errorf("group %s: %w", name, err)
	}
	t.groups = append(t.groups, g) // what is made of it is removed also after an error
	for _, dir := range g.dirs() {
		if err := t.files.mkdir(dir); err != nil {
			return nil, fmt.Errorf("group %s: %w", name, unavailable(err))
		}
	}
	if err := t.version.limit(g, l); err != nil {
		return nil, fmt.Errorf("group %s: %w", name, unavailable(err))
	}
	return g, nil
}

// Remove removes groups once their processes are gone.
func (t *Tree) Remove(groups ...*Group) error {
	give := time.Now().Add(removeTimeout)
	var errs []error
	for _, g := range groups {
		if err := t.remove(g, give); err != nil {
			errs = append(errs, err)
			continue
		}
		t.groups = slices.DeleteFunc(t.groups, func(other *Group) bool { return other == g })
	}
	return errors.Join(errs...)
}

func (t *Tree) remove(g *Group, give time.Time) error {
	var errs []error
	for _, dir := range g.dirs() {
		errs = append(errs, t.removeDir(g, dir, give))
	}
	return errors.Join(errs...)
}

func (t *Tree) removeDir(g *Group, dir string, give time.Time) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		err := t.files.rmdir(dir)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) || time.Now().After(give) {
			pids, _ := g.PIDs()
			return fmt.Errorf("group %s stays, with processes %v: %w", dir, pids, err)
		}
		<-look.C
	}
}

// Close removes all groups that are left.
func (t *Tree) Close() error {
	return errors.Join(t.Remove(slices.Clone(t.groups)...), t.restore())
}

// sweep removes the empty groups of processes that were killed.
func (t *Tree) sweep() error {
	var dirs []string
	for _, root := range roots(t.root, t.memory) {
		found, err := filepath.Glob(filepath.Join(root, prefix+"*"))
		if err != nil {
			return err
		}
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || pid == os.Getpid() || !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		if err := t.files.rmdir(dir); err != nil && !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("group %s of a process that ended: %w", dir, unavailable(err))
		}
	}
	return nil
}

// roots are the directories of a group or a tree, each once.
func roots(cpu, memory string) []string {
	if cpu == memory {
		return []string{cpu}
	}
	return []string{cpu, memory}
}
