package main

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"kvstore/client"
	"kvstore/internal/bench"
	"kvstore/internal/config"
	"kvstore/test/peers/cluster"
	"kvstore/test/peers/experiment"
)

const (
	// memoryEvery is how often the memory of nodes is looked at.
	memoryEvery = 250 * time.Millisecond
	// restarts is what a restart is expected to take at most, when time for
	// measuring is set aside.
	restarts = 30 * time.Second
)

// grow loads to each size and measures there, until one was not reached.
func (g *growth) grow(ctx context.Context, s *experiment.Session, res *results) error {
	if err := enoughMemory(experiment.Nodes * res.budget); err != nil {
		return err
	}
	loaded, deadline := 0, time.Now().Add(g.Budget)
	for _, target := range g.sizes() {
		z := &size{Keys: loaded}
		before, err := synced(s)
		if err != nil {
			return err
		}
		memory, err := s.Peaks(memoryEvery, func() (err error) {
			if res.Stopped, err = g.load(ctx, s, z, target, deadline); err != nil || z.Keys == loaded {
				return err
			}
			return g.measure(ctx, s, z, before)
		})
		if err == nil && z.Keys > loaded {
			z.Memory = memory
			err = g.restart(ctx, s, z)
		}
		if err != nil {
			return fmt.Errorf("%d keys: %w", z.Keys, err)
		}
		if z.Keys > loaded {
			loaded = z.Keys
			res.Sizes = append(res.Sizes, z)
		}
		if res.Stopped != "" {
			experiment.Say("stopped at %d keys: %s", loaded, res.Stopped)
			return nil
		}
	}
	return nil
}

// enoughMemory reports a machine without the memory that nodes may use.
func enoughMemory(bytes int64) error {
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err != nil {
		return err
	}
	if have := int64(info.Totalram) * int64(info.Unit); bytes > have {
		return fmt.Errorf("three nodes may use %s of memory, the machine has %d MB: lower --memory-budget", config.Size(bytes), have>>20)
	}
	return nil
}

// load writes keys chunk by chunk and returns why it stopped early, if so.
func (g *growth) load(ctx context.Context, s *experiment.Session, z *size, target int, deadline time.Time) (stopped string, err error) {
	var last time.Duration
	from := z.Keys
	for z.Keys < target {
		if stopped, err = g.stop(s, z.Keys, last, deadline); stopped != "" || err != nil {
			break
		}
		n, began := min(g.Chunk, target-z.Keys), time.Now()
		if err := s.Preload(ctx, z.Keys, z.Keys+n); err != nil {
			return "", err
		}
		last = time.Since(began)
		z.Keys += n
		z.LoadSeconds += last.Seconds()
		experiment.Say("loaded %d of %d keys, %.0f keys/s", z.Keys, target, float64(n)/last.Seconds())
	}
	z.Loaded = z.Keys - from
	return stopped, err
}

// stop says why the next chunk should not be loaded: it would not fit in time
// (last is what the one before took) or on the disk. The first one is loaded
// in any case.
func (g *growth) stop(s *experiment.Session, loaded int, last time.Duration, deadline time.Time) (string, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(s.Dir, &fs); err != nil {
		return "", fmt.Errorf("free space of the disk: %w", err)
	}
	if free := config.Size(int64(fs.Bavail) * fs.Bsize); free < g.MinFree {
		if loaded == 0 {
			return "", fmt.Errorf("the disk has %d MB free, --min-free wants %s: choose another --work", free/config.MB, g.MinFree)
		}
		return fmt.Sprintf("the disk has %d MB left", free/config.MB), nil
	}
	if loaded > 0 && time.Now().Add(last+g.measuring()).After(deadline) {
		return fmt.Sprintf("%s are nearly over", g.Budget), nil
	}
	return "", nil
}

// measuring is the most that measuring a size is expected to take.
func (g *growth) measuring() time.Duration {
	runs := time.Duration(2 + 2*g.Rounds)
	return runs*(g.Warmup+g.Duration) + g.Quiet.Limit + restarts
}

// measure takes the figures of a size, but for the restart: at once after the
// load, then when the nodes are quiet.
func (g *growth) measure(ctx context.Context, s *experiment.Session, z *size, before cluster.Writes) (err error) {
	if z.Busy.Put, err = g.run(ctx, s, z, bench.WorkPut, 0); err != nil {
		return err
	}
	if z.Busy.Get, err = g.run(ctx, s, z, bench.WorkGet, 0); err != nil {
		return err
	}
	if z.Settled, err = g.Quiet.wait(ctx, s.Cluster); err != nil {
		return err
	}
	experiment.Say("%d keys: quiet %v after %.0f s: %.2f CPUs, %.2f MB/s written", z.Keys, z.Settled.Quiet, z.Settled.Seconds, z.Settled.CPUs, z.Settled.Written/(1<<20))
	if err := g.amplification(ctx, s, z, before); err != nil {
		return err
	}
	for round := range g.Rounds {
		for _, workload := range []string{bench.WorkPut, bench.WorkGet} {
			r, err := g.run(ctx, s, z, workload, round+1)
			if err != nil {
				return err
			}
			into := &z.Put
			if workload == bench.WorkGet {
				into = &z.Get
			}
			*into = append(*into, r)
		}
	}
	return nil
}

func (g *growth) run(ctx context.Context, s *experiment.Session, z *size, workload string, seed int) (*experiment.Run, error) {
	r, err := s.Run(ctx, experiment.Load{Workload: workload, Clients: g.Clients, Keys: z.Keys, Warmup: g.Warmup, Duration: g.Duration, Seed: seed})
	if err == nil {
		experiment.Say("%d keys  %-4s %9.0f/s  p50 %8.3f ms  p99 %8.3f ms  errors %s", z.Keys, workload, r.PerSecond, r.P50, r.P99, experiment.Codes(r.Errors))
	}
	return r, err
}

// amplification takes disk and written bytes since before the load, which is
// when the nodes started. Puts are counted by the nodes, warm-up included.
func (g *growth) amplification(ctx context.Context, s *experiment.Session, z *size, before cluster.Writes) error {
	now, err := synced(s)
	if err != nil {
		return err
	}
	z.Written = now.Sub(before)
	m, err := s.Cluster.Metrics(ctx)
	if err != nil {
		return err
	}
	puts := m.Histogram("kvstore_request_duration_seconds", "method", "Put", "code", "ok").Count
	z.UserWritten = (int64(z.Loaded) + int64(puts)) * g.recordBytes()
	z.UserStored = int64(z.Keys) * g.recordBytes()
	z.Disk, err = s.Cluster.Disk()
	return err
}

// synced is what was written, once dirty pages are on the disk, too.
func synced(s *experiment.Session) (cluster.Writes, error) {
	syscall.Sync()
	return s.Cluster.Writes()
}

// restart kills all nodes, starts them again and reads.
func (g *growth) restart(ctx context.Context, s *experiment.Session, z *size) error {
	ready, err := s.Restart(ctx)
	if err != nil {
		return fmt.Errorf("restart: %w", err)
	}
	began := time.Now()
	if err := g.read(ctx, s); err != nil {
		return fmt.Errorf("first read after a restart: %w", err)
	}
	z.Ready = ready.Seconds()
	z.FirstRead = z.Ready + time.Since(began).Seconds()
	experiment.Say("%d keys: ready %.2f s after kill -9, first read after %.2f s", z.Keys, z.Ready, z.FirstRead)
	return nil
}

// read gets one key, with a client that begins from nothing.
func (g *growth) read(ctx context.Context, s *experiment.Session) (err error) {
	var endpoints []string
	for _, n := range s.Cluster.Nodes {
		endpoints = append(endpoints, n.Endpoint)
	}
	c, err := client.New(ctx, client.Config{Endpoints: endpoints})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	_, err = c.Get(ctx, bench.NewKeys(bench.Default().Prefix, g.KeySize).Key(0))
	return err
}
