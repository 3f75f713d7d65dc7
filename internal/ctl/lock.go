package ctl

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/client/concurrency"
)

// Variables that the command under a lock is told by.
const (
	envLockKey   = "KVCTL_LOCK_KEY"
	envLockToken = "KVCTL_LOCK_TOKEN" //nolint:gosec // the name of a variable; its value is a number that grows
	envLockFence = "KVCTL_LOCK_FENCE"
	envLockLease = "KVCTL_LOCK_LEASE"
)

// sessionEnds is how long a command that has no lock waits for the end of its session.
const sessionEnds = 100 * time.Millisecond

type lockFlags struct {
	ttl, wait, grace time.Duration
	try              bool
}

func (a *app) lockCmd() *cobra.Command {
	var l lockFlags
	cmd := &cobra.Command{
		Use: "lock NAME -- COMMAND [ARG...]", Short: "Run a command while holding a lock",
		Long: "Run a command while holding a lock of the whole cluster.\n\n" +
			"The command finds the lock's token in " + envLockToken + ", and in " + envLockFence + " what\n" +
			"`kvctl put --fence` and the REST header X-Kvstore-Fence take. Signals are passed on to\n" +
			"it, and kvctl ends with its exit code. When the lock is lost, because the cluster was\n" +
			"out of reach for longer than --ttl, the command gets SIGTERM, after --grace SIGKILL,\n" +
			"and kvctl ends with 12.",
		Example: "  kvctl lock nightly -- ./report.sh\n  kvctl lock nightly --try --ttl 1m -- sh -c 'kvctl put report done --fence \"$" + envLockFence + "\"'",
		Args: usageArgs(func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 || cmd.ArgsLenAtDash() != 1 {
				return errors.New("want a name, then --, then a command")
			}
			return nil
		}),
		RunE: func(cmd *cobra.Command, args []string) error {
			if l.try && l.wait > 0 {
				return usagef("--try and --wait exclude each other")
			}
			return a.lock(cmd.Context(), l, args)
		},
	}
	f := cmd.Flags()
	f.DurationVar(&l.ttl, "ttl", concurrency.DefaultTTL, "how long others wait when this holder dies, in whole seconds")
	f.DurationVar(&l.wait, "wait", 0, "give up when the lock is not had after this long, whatever the reason (default: never); ends with 4")
	f.BoolVar(&l.try, "try", false, "do not wait at all; ends with 4 when the lock is held")
	f.DurationVar(&l.grace, "grace", 10*time.Second, "time between SIGTERM and SIGKILL when the lock was lost")
	return cmd
}

// session begins one near a name.
func (a *app) session(ctx context.Context, c *client.Client, name string, ttl time.Duration) (*concurrency.Session, error) {
	if ttl <= 0 || ttl%time.Second != 0 {
		return nil, usagef("--ttl %s: want whole seconds, 1s or more", ttl)
	}
	return concurrency.NewSession(ctx, c, concurrency.Near(name), concurrency.WithTTL(ttl))
}

func (a *app) lock(ctx context.Context, l lockFlags, args []string) error {
	path, err := exec.LookPath(args[1])
	if err != nil {
		return notRunnable(err)
	}
	s, m, err := a.acquire(ctx, &l, args[0])
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()       // what is not given back ends by itself
	cmd := exec.Command(path, args[2:]...) //nolint:noctx // it is ended by what ends the lock, in its own way
	cmd.Args[0] = args[1]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.In, a.Out, a.Err
	cmd.Env = append(os.Environ(), envLockKey+"="+m.Key(), envLockToken+"="+number(m.Token()),
		envLockFence+"="+a.fenceText(m.Fence()), envLockLease+"="+s.Lease())
	return l.run(cmd, s)
}

// acquire takes the lock; all of it, from the connection on, has the time of --wait,
// with --try that of one operation.
func (a *app) acquire(ctx context.Context, l *lockFlags, name string) (*concurrency.Session, *concurrency.Mutex, error) {
	ctx, cancel := l.bound(ctx, a.opts.Timeout)
	defer cancel()
	s, err := a.beginSession(ctx, name, l.ttl)
	if err != nil {
		if l.wait > a.opts.Timeout { // it had less time
			return nil, nil, err
		}
		return nil, nil, l.outOfTime(ctx, name, err)
	}
	m := concurrency.NewMutex(s, name)
	if l.try {
		err = m.TryLock(ctx)
	} else {
		err = m.Lock(ctx)
	}
	if err != nil {
		endSoon(s)
		return nil, nil, heldError(name, l.outOfTime(ctx, name, err))
	}
	return s, m, nil
}

// beginSession connects and begins a session near a name, in the time of one
// operation.
func (a *app) beginSession(ctx context.Context, name string, ttl time.Duration) (*concurrency.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, a.opts.Timeout)
	defer cancel()
	c, err := a.client(ctx)
	if err != nil {
		return nil, err
	}
	return a.session(ctx, c, name, ttl)
}

// bound gives the lock its time.
func (l *lockFlags) bound(ctx context.Context, operation time.Duration) (context.Context, context.CancelFunc) {
	switch {
	case l.wait > 0:
		return context.WithTimeout(ctx, l.wait)
	case l.try:
		return context.WithTimeout(ctx, operation)
	}
	return context.WithCancel(ctx)
}

// outOfTime makes what failed because --wait was over the error of that: also what
// ended a little before, since nothing more was to be tried.
func (l *lockFlags) outOfTime(ctx context.Context, name string, err error) error {
	if l.wait <= 0 || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	var failed *client.Error
	if !errors.As(err, &failed) { // others were before it
		return concurrency.ErrLocked
	}
	return codeError{error: fmt.Errorf("lock %s: it could not be asked for in %s: %w", name, l.wait, err), code: exitCondition}
}

// endSoon ends a session that holds nothing, in a short time: its lease ends by
// itself.
func endSoon(s *concurrency.Session) {
	ended := make(chan struct{})
	go func() {
		_ = s.Close()
		close(ended)
	}()
	timer := time.NewTimer(sessionEnds)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	}
}

// fenceText names the namespace, which the command may not share.
func (a *app) fenceText(f client.Fence) string {
	if f.Namespace == "" {
		f.Namespace = a.namespace()
	}
	return f.String()
}

func heldError(name string, err error) error {
	switch {
	case errors.Is(err, concurrency.ErrLocked):
		return codeError{error: fmt.Errorf("lock %s: %w", name, err), code: exitCondition}
	case errors.Is(err, concurrency.ErrSessionLost):
		return codeError{error: fmt.Errorf("lock %s: %w", name, err), code: exitLost}
	}
	return err
}

// run runs the command until it ends, and ends it when the session is lost.
func (l *lockFlags) run(cmd *exec.Cmd, s *concurrency.Session) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passedOn...)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return notRunnable(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	_, foreground := terminal(cmd.Stdin)
	lost := s.Done()
	var kill <-chan time.Time
	for {
		select {
		case err := <-ended:
			if lost == nil {
				return codeError{error: errors.New("the lock was lost, and the command was ended: " + howEnded(err)), code: exitLost, final: true}
			}
			return exited(err)
		case sig := <-signals:
			if !foreground || !ofTerminal(sig) { // the terminal told the command itself
				_ = cmd.Process.Signal(sig) // it may have ended
			}
		case <-lost:
			lost = nil
			_ = terminate(cmd.Process)
			timer := time.NewTimer(l.grace)
			defer timer.Stop()
			kill = timer.C
		case <-kill:
			_ = cmd.Process.Kill()
		}
	}
}

func howEnded(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// exited passes the command's exit code on.
func exited(err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return codeError{error: errors.New("done"), silent: true, final: true}
	case errors.As(err, &exit):
		return codeError{error: err, code: codeOf(exit.ProcessState), silent: true, final: true}
	}
	return err
}

// notRunnable ends as shells do.
func notRunnable(err error) error {
	code := 127
	if errors.Is(err, fs.ErrPermission) {
		code = 126
	}
	return codeError{error: err, code: code}
}
