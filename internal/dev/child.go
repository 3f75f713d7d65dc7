package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
)

// watchVariable tells a child that its standard input is a pipe from its
// supervisor. It is not a KVSTORE_ variable, because those are configuration.
const watchVariable = "_KVSTORE_DEV_CHILD"

// maxLogBytes: a longer log is put aside when its node starts.
const maxLogBytes = 16 << 20

// WatchParent returns a context that ends when the supervisor that started
// this process is gone; ctx itself when there is none. The process must end
// soon after, since the supervisor cannot ask again.
func WatchParent(ctx context.Context) context.Context {
	if os.Getenv(watchVariable) == "" {
		return ctx
	}
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the process: a read from a pipe cannot be stopped
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return ctx
}

// spawner starts processes from one thread, which lives as long as it does.
type spawner struct {
	jobs chan func()
	done chan struct{}
}

func newSpawner() *spawner {
	s := &spawner{jobs: make(chan func()), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		for job := range s.jobs {
			job()
		}
	}()
	return s
}

func (s *spawner) close() {
	close(s.jobs)
	<-s.done
}

func (s *spawner) start(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	s.jobs <- func() { result <- cmd.Start() }
	return <-result
}

// child is one running node.
type child struct {
	cmd *exec.Cmd
	// pipe is the write end of its standard input; never written.
	pipe io.Closer
	// ended is closed after err is set.
	ended chan struct{}
	err   error
}

// startChild runs node i and waits for it in a goroutine that ends with it.
func startChild(s *spawner, c *cluster, i int, onEnd func()) (*child, error) {
	log, err := openLog(c.logFile(i))
	if err != nil {
		return nil, err
	}
	argv := c.nodes[i].Argv
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), watchVariable+"=1")
	cmd.Dir = c.nodeDir(i)
	cmd.SysProcAttr = childAttributes()
	pipe, err := cmd.StdinPipe()
	if err == nil {
		err = s.start(cmd)
	}
	err = errors.Join(err, log.Close()) // the child has its own
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", c.nodes[i].Name, err)
	}
	ch := &child{cmd: cmd, pipe: pipe, ended: make(chan struct{})}
	go func() {
		ch.err = cmd.Wait()
		close(ch.ended)
		onEnd()
	}()
	return ch, nil
}

func openLog(name string) (*os.File, error) {
	if info, err := os.Stat(name); err == nil && info.Size() > maxLogBytes {
		if err := os.Rename(name, name+".old"); err != nil {
			return nil, fmt.Errorf("put log aside: %w", err)
		}
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return f, nil
}

func (ch *child) running() bool {
	select {
	case <-ch.ended:
		return false
	default:
		return true
	}
}
