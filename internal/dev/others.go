package dev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// lookInterval is how often nodes without a process of ours are looked for.
const lookInterval = 500 * time.Millisecond

// lookForOthers notices nodes that were started by hand, and their end.
func (s *supervisor) lookForOthers() error {
	changed := false
	for i := range s.c.nodes {
		n := &s.c.nodes[i]
		switch {
		case s.others[i] != 0 && !alive(s.others[i]):
			fmt.Fprintf(s.o.Out, "%s (pid %d) ended\n", n.Name, n.PID)
			s.others[i], n.PID, changed = 0, 0, true
		case n.PID == 0:
			pid := s.holder(i)
			if pid == 0 || pid == s.children[i].cmd.Process.Pid || !alive(pid) {
				continue
			}
			fmt.Fprintf(s.o.Out, "%s runs again (pid %d, not started by this process)\n", n.Name, pid)
			s.others[i], n.PID, changed = pid, pid, true
		}
	}
	if !changed {
		return nil
	}
	return s.c.writeFile()
}

// holder returns the pid in the lock file of node i's data directory, which
// may have ended; 0 for none.
func (s *supervisor) holder(i int) int {
	text, err := os.ReadFile(filepath.Join(s.c.nodes[i].DataDir, "LOCK"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

// stopOthers stops the nodes that were started by hand: they belong to the
// cluster that is being stopped.
func (s *supervisor) stopOthers(deadline <-chan time.Time, hurry <-chan struct{}) error {
	var errs []error
	for _, pid := range s.others {
		if pid != 0 && alive(pid) {
			if err := askToStop(pid); err != nil && !errors.Is(err, os.ErrProcessDone) {
				errs = append(errs, fmt.Errorf("stopping process %d: %w", pid, err))
			}
		}
	}
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for _, pid := range s.others {
		for pid != 0 && alive(pid) {
			select {
			case <-look.C:
				continue
			case <-deadline:
			case <-hurry:
			}
			return errors.Join(append(errs, fmt.Errorf("process %d did not stop", pid))...)
		}
	}
	return errors.Join(errs...)
}
