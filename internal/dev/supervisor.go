package dev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

const (
	// stopTimeout is how long a node may take to stop before it is killed.
	stopTimeout = 20 * time.Second
	// restartPause before a node is started again; doubles up to restartMax
	// while it keeps ending within restartMax.
	restartPause = time.Second
	restartMax   = 15 * time.Second
	// logTail is how much of a failed node's log is shown.
	logTail = 4 << 10
)

// supervisor runs the nodes of a cluster. Everything below is used by run's
// goroutine only; children report their end through ended.
type supervisor struct {
	c       *cluster
	o       Options
	spawner *spawner
	probe   *prober

	children []*child
	// others are the pids of nodes that somebody else started again, 0 for none.
	others  []int
	started []time.Time
	pauses  []time.Duration
	// ended holds the number of a node whose process ended: one slot each,
	// since a node is started again only after its end was taken.
	ended   chan int
	restart chan int
	timers  sync.WaitGroup
}

func newSupervisor(c *cluster, o Options) (*supervisor, error) {
	probe, err := newProber(c.client)
	if err != nil {
		return nil, err
	}
	n := len(c.nodes)
	return &supervisor{
		c: c, o: o, spawner: newSpawner(), probe: probe,
		children: make([]*child, n), others: make([]int, n), started: make([]time.Time, n), pauses: make([]time.Duration, n),
		ended: make(chan int, n), restart: make(chan int, n),
	}, nil
}

// run starts all nodes, waits until they serve, and then stays until ctx ends.
// It returns only after every child ended.
func (s *supervisor) run(ctx context.Context, hurry <-chan struct{}) error {
	defer s.spawner.close()
	defer s.probe.close()
	err := s.startAll()
	if err == nil {
		err = s.waitReady(ctx)
	}
	if err == nil {
		s.introduce(ctx)
		err = s.supervise(ctx)
		if s.o.Ephemeral {
			s.forgetContext()
		}
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil // asked to stop while starting
	}
	return errors.Join(err, s.stopAll(hurry))
}

func (s *supervisor) startAll() error {
	nodes, where := fmt.Sprintf("%d nodes", len(s.c.nodes)), "in"
	if len(s.c.nodes) == 1 {
		nodes = "1 node"
	}
	if s.c.existed {
		where = "on the data in"
	}
	fmt.Fprintf(s.o.Out, "Starting %s %s %s ...\n", nodes, where, s.c.dir)
	for i := range s.c.nodes {
		if err := s.start(i); err != nil {
			return err
		}
	}
	return s.c.writeFile()
}

func (s *supervisor) start(i int) error {
	ch, err := startChild(s.spawner, s.c, i, func() { s.ended <- i })
	if err != nil {
		return err
	}
	s.children[i], s.started[i] = ch, time.Now()
	s.c.nodes[i].PID = ch.cmd.Process.Pid
	return nil
}

// waitReady returns when every node serves linearizable requests. A node that
// ends meanwhile is an error, with the end of its log.
func (s *supervisor) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.ReadyTimeout)
	defer cancel()
	check := time.NewTicker(100 * time.Millisecond)
	defer check.Stop()
	tell := time.NewTicker(5 * time.Second)
	defer tell.Stop()
	reasons := make([]string, len(s.c.nodes))
	for {
		if s.probe.ready(ctx, s.c.nodes, reasons) {
			return nil
		}
		select {
		case i := <-s.ended:
			return fmt.Errorf("%s ended while starting: %v\nend of %s:\n%s", s.c.nodes[i].Name, endReason(s.children[i].err), s.c.logFile(i), s.tail(i))
		case <-tell.C:
			s.tellWaiting(reasons)
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				s.tellWaiting(reasons)
				return fmt.Errorf("not every node serves after %v; logs are %s", s.o.ReadyTimeout, s.c.logFile(0))
			}
			return ctx.Err()
		case <-check.C:
		}
	}
}

func (s *supervisor) tellWaiting(reasons []string) {
	for i, reason := range reasons {
		if reason != "" {
			fmt.Fprintf(s.o.Out, "  waiting for %s: %s\n", s.c.nodes[i].Name, reason)
		}
	}
}

func (s *supervisor) tail(i int) []byte {
	text, err := os.ReadFile(s.c.logFile(i))
	if err != nil {
		return []byte(err.Error())
	}
	if len(text) > logTail {
		text = text[len(text)-logTail:]
	}
	return bytes.TrimSpace(text)
}

// supervise reports nodes that end, and with Restart starts them again. Nodes
// that somebody else starts again are noticed.
func (s *supervisor) supervise(ctx context.Context) error {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			if err := s.lookForOthers(); err != nil {
				return err
			}
		case i := <-s.ended:
			if err := s.noteEnd(ctx, i); err != nil {
				return err
			}
		case i := <-s.restart:
			if err := s.startAgain(i); err != nil {
				return err
			}
		}
	}
}

func (s *supervisor) noteEnd(ctx context.Context, i int) error {
	n := &s.c.nodes[i]
	fmt.Fprintf(s.o.Out, "%s (pid %d) ended: %v\n", n.Name, n.PID, endReason(s.children[i].err))
	n.PID = 0
	if err := s.c.writeFile(); err != nil {
		return err
	}
	if !s.o.Restart {
		fmt.Fprintf(s.o.Out, "  start it again with: %s\n", shellLine(n.Argv))
		return nil
	}
	if time.Since(s.started[i]) > restartMax {
		s.pauses[i] = 0
	}
	s.pauses[i] = min(restartMax, max(restartPause, 2*s.pauses[i]))
	s.timers.Add(1)
	go func(pause time.Duration) { // run waits for it in stopAll
		defer s.timers.Done()
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
			s.restart <- i
		case <-ctx.Done():
		}
	}(s.pauses[i])
	return nil
}

func endReason(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

func (s *supervisor) startAgain(i int) error {
	if s.c.nodes[i].PID != 0 {
		return nil // somebody else was faster
	}
	if err := s.start(i); err != nil {
		return err
	}
	fmt.Fprintf(s.o.Out, "%s started again (pid %d)\n", s.c.nodes[i].Name, s.c.nodes[i].PID)
	return s.c.writeFile()
}

// stopAll asks every child to stop, waits, and kills those that do not.
func (s *supervisor) stopAll(hurry <-chan struct{}) error {
	fmt.Fprintln(s.o.Out, "Stopping all nodes ...")
	var errs []error
	for _, ch := range s.children {
		if ch != nil && ch.running() {
			if err := ch.askToStop(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				errs = append(errs, err)
			}
		}
	}
	deadline := time.NewTimer(stopTimeout)
	defer deadline.Stop()
	kill := false
	for i, ch := range s.children {
		if ch == nil {
			continue
		}
		if !kill {
			select {
			case <-ch.ended:
				continue
			case <-deadline.C:
				kill = true
			case <-hurry:
				kill = true
			}
		}
		if ch.running() {
			fmt.Fprintf(s.o.Out, "  %s did not stop; killing it\n", s.c.nodes[i].Name)
			_ = ch.cmd.Process.Kill() // ended meanwhile at worst
		}
		<-ch.ended
	}
	s.timers.Wait()
	errs = append(errs, s.stopOthers(deadline.C, hurry))
	for i := range s.c.nodes {
		s.c.nodes[i].PID = 0
	}
	return errors.Join(append(errs, s.c.writeFile())...)
}
