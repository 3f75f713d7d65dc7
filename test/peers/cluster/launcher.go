// Package cluster runs the nodes of a store as processes on loopback and
// reads what they cost: CPU and disk bytes from the kernel, syncs from their
// metrics. It needs Linux.
package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopTimeout is how long a process may take to stop before it is killed.
const stopTimeout = 15 * time.Second

// Launcher starts processes and ends all of them in Close. The kernel kills
// them, too, when this program dies: that signal belongs to the thread that
// started a process, so one locked goroutine starts them all.
type Launcher struct {
	jobs  chan func()
	done  chan struct{}
	procs []*process
}

type process struct {
	name  string
	cmd   *exec.Cmd
	log   string
	stop  syscall.Signal
	ended chan struct{} // closed after err is set
	err   error
}

// NewLauncher starts nothing but the thread.
func NewLauncher() *Launcher {
	l := &Launcher{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		for job := range l.jobs {
			job()
		}
	}()
	return l
}

// Start runs cmd. Its process is killed with this one; it does not get the
// terminal's Ctrl-C.
func (l *Launcher) Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	result := make(chan error, 1)
	l.jobs <- func() { result <- cmd.Start() }
	return <-result
}

// server runs a long-lived process with its output in logFile; stop is the
// signal that ends it in good order.
func (l *Launcher) server(name, logFile string, env []string, stop syscall.Signal, exe string, args ...string) (*process, error) {
	if err := os.MkdirAll(filepath.Dir(logFile), 0o700); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(exe, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.Dir = log, log, env, filepath.Dir(logFile)
	err = errors.Join(l.Start(cmd), log.Close()) // the process has its own
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, log: logFile, stop: stop, ended: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	l.procs = append(l.procs, p)
	return p, nil
}

// Close stops every server, by its process id, and waits for it.
func (l *Launcher) Close() error {
	for _, p := range l.procs {
		_ = p.cmd.Process.Signal(p.stop) // it may have ended
	}
	give := time.NewTimer(stopTimeout)
	defer give.Stop()
	var errs []error
	late := false
	for _, p := range l.procs {
		if !late {
			select {
			case <-p.ended:
				continue
			case <-give.C:
				late = true
			}
		}
		errs = append(errs, fmt.Errorf("%s did not stop within %s and was killed", p.name, stopTimeout))
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
	close(l.jobs)
	<-l.done
	return errors.Join(errs...)
}

// failure is why a server that should run does not, with the end of its log.
func (p *process) failure() error {
	const most = 2000
	text, _ := os.ReadFile(p.log)
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return fmt.Errorf("%s ended: %w\n%s", p.name, p.err, text)
}

// Environ is the environment without what would change a store or its client.
func Environ(extra ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "KVSTORE_") && !strings.HasPrefix(v, "KVCTL_") && !strings.HasPrefix(v, "ETCD_") {
			env = append(env, v)
		}
	}
	return append(env, extra...)
}
