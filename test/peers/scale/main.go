// Command scale measures how kvstore grows with the number of its nodes, on
// one machine: every node and the load generator have a fixed share of CPU
// time each, so that a larger cluster has more of it, as it has with more
// machines. It needs Linux and the right to make control groups.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"kvstore/test/cgroup"
	"kvstore/test/peers/facts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	s := new(settings)
	s.flags(flag.CommandLine)
	flag.Parse()
	err := run(ctx, s)
	switch {
	case s.Smoke && errors.Is(err, cgroup.ErrUnavailable):
		say("bench-nodes: skipped: %v", err)
	case err != nil:
		say("bench-nodes: %v", err)
		os.Exit(1)
	}
}

// run leaves no process, group or data behind, whatever ends it.
func run(ctx context.Context, s *settings) (err error) {
	if err := s.complete(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	tree, err := cgroup.Open(cgroup.Mount)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	generator, err := tree.Group("generator", s.generatorLimit())
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.work, "nodes-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &benchmark{settings: s, dir: dir, tree: tree, generator: generator, report: &report{
		Format: 1, Tool: "bench-nodes", StartedAt: time.Now().UTC(), Settings: s, Control: tree.Version(),
		Machine: facts.Machine(dir), KVStore: facts.Versions(s.bin)["kvstore"], Go: facts.Versions(s.bin)["go"],
	}}
	for _, r := range s.rows {
		b.report.Rows = append(b.report.Rows, newRowReport(r, s.Sizes))
	}
	if err := b.run(ctx); err != nil {
		return err
	}
	if s.Smoke {
		if err := b.report.check(); err != nil {
			return err
		}
		say("the output is complete; nothing is said about speed")
	}
	return b.report.write(s)
}

func (b *benchmark) kvbench() string { return filepath.Join(b.bin, "kvbench") }

func say(format string, args ...any) { _, _ = fmt.Fprintf(os.Stderr, format+"\n", args...) }
