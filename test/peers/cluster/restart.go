package cluster

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// lookReady is how often a node that starts is asked whether it is ready.
const lookReady = 10 * time.Millisecond

// Restart kills the processes of a kvstore cluster with SIGKILL, all at once,
// and starts them again on the same data with the argv of cluster.json. It
// returns when every node says that it is ready, with the time since the
// first was started. The page cache survives this: data is read from memory
// as far as it fits.
func (l *Launcher) Restart(ctx context.Context, c *Cluster) (time.Duration, error) {
	if err := l.kill(ctx, c); err != nil {
		return 0, fmt.Errorf("kill %s: %w", c.Name, err)
	}
	began := time.Now()
	for i := range c.Nodes {
		n := &c.Nodes[i]
		log := filepath.Join(filepath.Dir(n.DataDir), "kvstore.log")
		p, err := l.server(fmt.Sprintf("%s node %d", c.Name, i+1), log, c.env, syscall.SIGTERM, n.argv[0], n.argv[1:]...)
		if err != nil {
			return 0, err
		}
		n.PID = p.cmd.Process.Pid
		c.procs = append(c.procs, p)
	}
	for i, p := range c.procs {
		if err := p.until(ctx, lookReady, func() bool {
			_, err := fetch(ctx, "http://"+c.Nodes[i].Metrics+"/readyz")
			return err == nil
		}); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// kill ends all nodes, then what started them, and waits for both.
func (l *Launcher) kill(ctx context.Context, c *Cluster) error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, syscall.Kill(n.PID, syscall.SIGKILL))
	}
	ended := c.procs
	c.procs = nil
	for _, p := range ended {
		_ = p.cmd.Process.Signal(p.stop) // a node has ended, its supervisor ends now
		select {
		case <-p.ended:
		case <-ctx.Done():
			return errors.Join(append(errs, fmt.Errorf("%s does not end: %w", p.name, ctx.Err()))...)
		}
	}
	l.procs = slices.DeleteFunc(l.procs, func(p *process) bool { return slices.Contains(ended, p) })
	return errors.Join(errs...)
}
