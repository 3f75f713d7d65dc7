// Package experiment is what the measurements of kvstore on its own share: a
// program with flags that starts three nodes as processes on loopback, loads
// them with kvbench, writes JSON and Markdown, and stops all it started.
// Everything is bounded by the experiment's timeout. It needs Linux.
package experiment

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"kvstore/test/peers/cluster"
	"kvstore/test/peers/facts"
)

// Nodes of the cluster; each stores a copy of every key.
const Nodes = 3

// Experiment is one measurement; it embeds Common, and its exported fields
// are the settings in the JSON.
type Experiment interface {
	common() *Common
	// Flags adds those beside Common's.
	Flags(f *flag.FlagSet)
	// Check reports every setting that cannot be used.
	Check() error
	// Measure runs against three nodes that just started, empty.
	Measure(ctx context.Context, s *Session) (Results, error)
}

// Session is a running experiment.
type Session struct {
	Cluster *cluster.Cluster
	// Dir holds the data of the nodes.
	Dir string

	*Common
	launcher *cluster.Launcher
}

// Main is the whole program and returns its exit code; name is that of its
// script (bench-name), its markers and its JSON.
func Main(name string, e Experiment) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	c := e.common()
	c.flags(flag.CommandLine, name)
	e.Flags(flag.CommandLine)
	flag.Parse()
	err := errors.Join(c.check(name), e.Check())
	if err == nil {
		err = run(ctx, name, c, e)
	}
	if err != nil {
		Say("%s: %v", name, err)
		return 1
	}
	return 0
}

func run(ctx context.Context, name string, c *Common, e Experiment) (err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	dir, err := os.MkdirTemp(c.work, name+"-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l := cluster.NewLauncher()
	defer func() { err = errors.Join(err, l.Close()) }() // before the directory goes
	report := &Report{Format: 1, Tool: "bench-" + name, StartedAt: time.Now().UTC(), Settings: e, Machine: facts.Machine(dir), Versions: versions(c.bin)}
	s := &Session{Dir: dir, Common: c, launcher: l}
	if err := s.start(ctx); err != nil {
		return err
	}
	if report.Results, err = e.Measure(ctx, s); err != nil {
		return err
	}
	return c.files.Write(name, report, report.tables(c))
}

// start runs the nodes. Variables count for every node of `kvstore dev`.
func (s *Session) start(ctx context.Context) (err error) {
	Say("starting three nodes")
	var env []string
	if s.MemoryBudget != "" {
		env = append(env, "KVSTORE_MEMORY_BUDGET="+s.MemoryBudget)
	}
	s.Cluster, err = s.launcher.KVStore(ctx, cluster.KVStore{Exe: filepath.Join(s.bin, "kvstore"), Dir: s.Dir, Nodes: Nodes, Profile: s.Profile, Env: env})
	return err
}

// versions are those of what runs: no other store does.
func versions(bin string) map[string]string {
	all := facts.Versions(bin)
	return map[string]string{"kvstore": all["kvstore"], "go": all["go"]}
}

// Restart kills all nodes and starts them again; see cluster.Launcher.
func (s *Session) Restart(ctx context.Context) (time.Duration, error) {
	return s.launcher.Restart(ctx, s.Cluster)
}
