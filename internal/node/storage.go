package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"kvstore/internal/config"
	"kvstore/internal/dirlock"
	"kvstore/internal/engine"
	"kvstore/internal/engine/badger"
	"kvstore/internal/engine/mem"
	"kvstore/internal/engine/present"
	"kvstore/internal/env/osfs"
	"kvstore/internal/env/system"
	"kvstore/internal/mvcc"
	"kvstore/internal/raftlog"
	"kvstore/internal/sstable"
)

// storage is everything this node keeps on disk: the lock, the raft log, the
// engine, the history, and the deltas over them.
type storage struct {
	lock    *dirlock.Lock
	log     *raftlog.Log
	engine  engine.Engine
	history *sstable.History
	runs    *sstable.Runs
	store   *mvcc.Store
}

// reserveBytes of disk stay free for what must be written when the disk is
// full: votes, checkpoints, deletions.
const reserveBytes = 64 << 20

// restBetweenFrees lets others have the disk while a large file goes.
func restBetweenFrees() { _ = system.Pause(context.Background(), 5*time.Millisecond) }

// openStorage opens all parts; after an error nothing stays open. The order
// matters: the lock first, because opening the log rewrites its tail.
func openStorage(c *config.Config, logger *slog.Logger, onSync func(time.Duration)) (_ *storage, err error) {
	dir := c.Node.DataDir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s := &storage{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	err = patiently(func() (err error) {
		s.lock, err = dirlock.Acquire(dir, "LOCK")
		return err
	})
	if err != nil {
		return nil, err
	}
	budget := c.Budget()
	s.log, err = raftlog.Open(osfs.New(dir), "raft", raftlog.Options{
		SegmentBytes: segmentBytes(c),
		CacheBytes:   int64(budget.RaftCache),
		ReserveBytes: reserveBytes,
		Logger:       logger.With("part", "raftlog"),
		OnSync:       onSync,
	})
	if err != nil {
		return nil, fmt.Errorf("raft log: %w", err)
	}
	if err := keepRole(s.log, c.Node); err != nil {
		return nil, err
	}
	if c.Witness() {
		s.openNothing(budget)
		return s, syncDirs(dir)
	}
	if s.engine, err = openEngine(filepath.Join(dir, "badger"), badgerOptions(c, logger.With("part", "badger"))); err != nil {
		return nil, fmt.Errorf("badger: %w", err)
	}
	s.history, err = sstable.OpenHistory(osfs.New(dir), "history", sstable.Options{ReserveBytes: 2 * reserveBytes, Pause: restBetweenFrees,
		Logger: logger.With("part", "history")})
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	s.runs, err = sstable.OpenRuns(osfs.New(dir), "runs", sstable.Options{ReserveBytes: 2 * reserveBytes, Pause: restBetweenFrees,
		Logger: logger.With("part", "runs")})
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	if err := syncDirs(dir); err != nil {
		return nil, err
	}
	flushes := &flushPace{engine: s.engine, seal: int64(budget.DeltaSeal)}
	walks := newWalkPace(s.engine)
	s.store = mvcc.New(s.engine, mvcc.Options{SealBytes: int64(budget.DeltaSeal), MaxSealed: budget.DeltaSealed,
		History: s.history, Runs: s.runs, IndexBytes: int64(budget.Runs),
		ApartBytes:  int(c.Badger.ValueThreshold),
		RecordBytes: int64(budget.Records), FlushBatchBytes: flushBatchBytes, Between: flushes.between, BetweenMoved: walks.between})
	flushes.store, walks.store = s.store, s.store
	return s, nil
}

// openEngine opens Badger, which is asked only for instances that it has.
func openEngine(dir string, o badger.Options) (engine.Engine, error) {
	opened, err := badger.Open(dir, o)
	if err != nil {
		return nil, err
	}
	known, err := present.Wrap(context.Background(), opened)
	if err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return known, nil
}

// openNothing gives a witness storage that nothing is ever written to.
func (s *storage) openNothing(b config.Budget) {
	s.engine = mem.Open()
	s.store = mvcc.New(s.engine, mvcc.Options{SealBytes: int64(b.DeltaSeal), MaxSealed: b.DeltaSealed})
}

// runsBytes is what sorted runs take on disk.
func (s *storage) runsBytes() int64 {
	if s.runs == nil {
		return 0
	}
	return s.runs.Bytes()
}

// largeRun is about the size of the smallest run that is moved to Badger.
func largeRun(b config.Budget) int64 {
	return mvcc.DefaultMergeRuns * mvcc.DefaultMergeRuns * int64(b.DeltaSeal) / 2
}

// segmentBytes: small machines get small segments, since two are preallocated.
func segmentBytes(c *config.Config) int64 {
	if c.Witness() {
		return 4 << 20
	}
	if c.Profile == "edge" {
		return 32 << 20
	}
	return 64 << 20
}

// syncDirs makes the data directory and what was made in it durable.
func syncDirs(dir string) error {
	disk := osfs.New("")
	for _, d := range []string{dir, filepath.Dir(filepath.Clean(dir))} {
		if err := disk.SyncDir(filepath.ToSlash(d)); err != nil {
			return fmt.Errorf("data directory: %w", err)
		}
	}
	return nil
}

// bounds are the host's, per group but for log.
type bounds struct {
	queue                 int
	uncommitted, inflight uint64
	log                   int64
}

// hostBounds lets a group hold one value of the largest size at least. All
// groups together are held to the budget by what the guard admits.
func hostBounds(c *config.Config) bounds {
	proposals := c.Budget().Proposals
	b := bounds{queue: int(proposals), uncommitted: uint64(proposals), inflight: uint64(proposals / 4), log: 1 << 30}
	switch {
	case c.Witness():
		b.log = 32 << 20
	case c.Profile == "edge":
		b.log = 256 << 20
	case c.Profile == "scale":
		b.log = 4 << 30
	}
	return b
}

func badgerOptions(c *config.Config, logger *slog.Logger) badger.Options {
	b := &c.Badger
	return badger.Options{
		MemtableSize:        int64(b.MemtableSize),
		BlockCacheSize:      int64(b.BlockCacheSize),
		IndexCacheSize:      int64(b.IndexCacheSize),
		NumMemtables:        b.NumMemtables,
		NumLevelZeroTables:  b.NumLevelZeroTables,
		LevelSizeMultiplier: b.LevelSizeMultiplier,
		ValueThreshold:      int64(b.ValueThreshold),
		ValueLogFileSize:    int64(b.ValueLogFileSize),
		SyncWrites:          b.SyncWrites,
		NumCompactors:       compactors(c),
		Compression:         b.Compression,
		BaseLevelSize:       2 * largeRun(c.Budget()),
		ResidentBytes:       residentBytes(c),
		Logger:              logger,
	}
}

// residentBytes: a small machine does not keep in memory what was mapped once.
func residentBytes(c *config.Config) int64 {
	if c.Profile == "edge" {
		return 16 << 20
	}
	return 0
}

// compactors keeps compactions from taking all CPUs of a small machine, unless
// the configuration says how many there are: each is several goroutines, and
// whoever serves a request waits behind them at every step.
func compactors(c *config.Config) int {
	n := c.Badger.NumCompactors
	if c.Given("badger_config.num_compactors") {
		return n
	}
	return min(n, max(2, runtime.NumCPU()))
}

// close closes what is open, the lock last.
func (s *storage) close() error {
	var errs []error
	if s.history != nil {
		errs = append(errs, s.history.Close())
	}
	if s.runs != nil {
		errs = append(errs, s.runs.Close())
	}
	if s.engine != nil {
		errs = append(errs, s.engine.Close())
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Release())
	}
	return errors.Join(errs...)
}
