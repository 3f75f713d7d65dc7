// Command profile shows where the CPU of a put and of a get goes: it runs
// three kvstore nodes with profiling on, loads them, and divides the samples
// of all nodes among components.
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

	"kvstore/test/peers/cluster"
	"kvstore/test/peers/markers"
)

type settings struct {
	duration, warmup time.Duration
	clients, keys    int
	valueSize        int
	mode, profile    string
	bin, work, doc   string
	raw              string
	limit            time.Duration
}

func (s *settings) flags(f *flag.FlagSet) {
	f.DurationVar(&s.duration, "duration", 10*time.Second, "profiled time of each workload, whole seconds")
	f.DurationVar(&s.warmup, "warmup", 2*time.Second, "before it")
	f.IntVar(&s.clients, "clients", 256, "clients, each with one outstanding operation")
	f.IntVar(&s.keys, "keys", 100_000, "different keys")
	f.IntVar(&s.valueSize, "value-size", 256, "bytes of a value")
	f.StringVar(&s.mode, "mode", "pipeline", "pipeline (the SDK) or unary")
	f.StringVar(&s.profile, "profile", "standard", "profile of the nodes")
	f.StringVar(&s.bin, "bin", "", "directory of kvstore and kvbench")
	f.StringVar(&s.work, "work", "", "directory for the data; a new one inside is used and removed")
	f.StringVar(&s.raw, "raw", "", "directory that gets the merged pprof file of each workload")
	f.StringVar(&s.doc, "doc", "", "document that gets the tables between its profile markers")
	f.DurationVar(&s.limit, "timeout", 10*time.Minute, "of everything")
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := run(ctx); err != nil {
		_, _ = fmt.Fprintf(os.Stderr, "profile: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	s := new(settings)
	s.flags(flag.CommandLine)
	flag.Parse()
	if s.bin == "" || s.work == "" {
		return errors.New("--bin and --work are needed; scripts/profile-put sets them")
	}
	if s.duration < time.Second || s.warmup < 100*time.Millisecond {
		return errors.New("--duration: want at least 1s, --warmup at least 100ms")
	}
	ctx, cancel := context.WithTimeout(ctx, s.limit)
	defer cancel()
	if s.bin, err = filepath.Abs(s.bin); err != nil {
		return err
	}
	if s.work, err = filepath.Abs(s.work); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(s.work, "profile-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l := cluster.NewLauncher()
	defer func() { err = errors.Join(err, l.Close()) }() // before the directory goes
	c, err := l.KVStore(ctx, cluster.KVStore{
		Exe: filepath.Join(s.bin, "kvstore"), Dir: dir, Nodes: 3, Profile: s.profile, Env: []string{"KVSTORE_PPROF=true"},
	})
	if err != nil {
		return err
	}
	if err := s.preload(ctx, l, c); err != nil {
		return fmt.Errorf("preload: %w", err)
	}
	var columns []*column
	for _, workload := range []string{"put", "get"} {
		_, _ = fmt.Fprintf(os.Stderr, "%s, %d clients, %s\n", workload, s.clients, s.duration)
		col, err := s.measure(ctx, l, c, workload)
		if err != nil {
			return fmt.Errorf("%s: %w", workload, err)
		}
		columns = append(columns, col)
	}
	text := s.table(columns)
	fmt.Print(text)
	if s.doc != "" {
		return markers.Fill(s.doc, "profile", text)
	}
	return nil
}
