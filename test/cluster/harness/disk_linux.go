package harness

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Disk is a directory that fails on command: test/faultfs, mounted.
type Disk struct {
	t       testing.TB
	socket  string
	process *Process
	mend    sync.Once
}

// StartOnFaultyDisk is Start with the data of node 0 on a disk that fails on
// command. A test is skipped, or fails with TEST_NO_SKIP=1, where FUSE cannot be
// mounted.
func StartOnFaultyDisk(t testing.TB, o Options) (*Cluster, *Disk) {
	t.Helper()
	needFUSE(t)
	o.Dir = filepath.Join(tempDir(t), "data")
	mountpoint := filepath.Join(o.Dir, "n1", "data")
	if err := os.MkdirAll(mountpoint, 0o700); err != nil {
		t.Fatal(err)
	}
	d := mount(t, tempDir(t), mountpoint)
	return Start(t, o), d
}

func needFUSE(t testing.TB) {
	t.Helper()
	reason := ""
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		reason = err.Error()
	} else {
		_ = f.Close()
	}
	if os.Geteuid() != 0 {
		reason = "FUSE is mounted by root"
	}
	if reason != "" {
		skip(t, "no disk that fails: "+reason)
	}
}

// mount shows what is in dir at mountpoint.
func mount(t testing.TB, dir, mountpoint string) *Disk {
	t.Helper()
	backing := filepath.Join(dir, "backing")
	if err := os.Mkdir(backing, 0o700); err != nil {
		t.Fatal(err)
	}
	d := &Disk{t: t, socket: filepath.Join(dir, "control")}
	d.process = StartProcess(t, "faultfs", exec.Command(faultFS(t), d.socket, backing, mountpoint))
	t.Cleanup(func() { d.unmount(mountpoint) }) // before it is killed
	Eventually(t, func() error {
		if strings.Contains(d.process.Out.String(), "mounted\n") {
			return nil
		}
		select {
		case <-d.process.Ended():
			t.Fatalf("faultfs ended:\n%s", d.process.Out)
		default:
		}
		return fmt.Errorf("not mounted:\n%s", d.process.Out)
	})
	return d
}

func (d *Disk) unmount(mountpoint string) {
	d.process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case <-d.process.Ended():
	case <-timer.C:
		d.t.Errorf("faultfs does not end:\n%s", d.process.Out)
	}
	_ = syscall.Unmount(mountpoint, syscall.MNT_DETACH) // what is left after a crash
}

// Do executes a command of faultfs and returns its answer. When the test ends,
// all faults do, before anything is stopped.
func (d *Disk) Do(command string) string {
	d.t.Helper()
	d.mend.Do(func() { d.t.Cleanup(func() { _, _ = d.ask("clear") }) })
	answer, err := d.ask(command)
	if err != nil || strings.HasPrefix(answer, "error") {
		d.t.Fatalf("faultfs, %q: %s %v", command, answer, err)
	}
	return answer
}

func (d *Disk) ask(command string) (string, error) {
	conn, err := net.Dial("unix", d.socket)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(Patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintln(conn, command); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return strings.TrimSpace(string(answer)), err
}

var faultFSBuilt sync.Once

// faultFS builds test/faultfs, a module of its own, once per run.
func faultFS(t testing.TB) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(Binary(t, "kvstore")), "faultfs")
	faultFSBuilt.Do(func() {
		mod, err := exec.Command("go", "env", "GOMOD").Output()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("go", "build", "-o", path, ".")
		cmd.Dir = filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), "test", "faultfs")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go build of faultfs: %v\n%s", err, out)
		}
	})
	return path
}
