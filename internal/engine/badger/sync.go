package badger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// syncer makes Badger's files durable.
//
// With SyncWrites off Badger syncs tables when it makes them, and the manifest,
// but not memtable logs and value logs: db.Sync covers only those written to
// at present, so whatever was rotated since the last call may still be in the
// page cache only. Here every such file is synced, through descriptors of our
// own, since Badger's may be closed at any time, and then the directory. A
// file that vanishes meanwhile was flushed into a synced table (memtable log)
// or rewritten (value log; see gc.go for why that is safe).
//
// After an error nothing is known about what is on disk: a second fsync may
// succeed without having written. So the error stays.
type syncer struct {
	dir  string
	file func(path string) error // syncFile, but in tests

	mu     sync.Mutex
	failed error
	// done holds the files that were synced after their last write: value logs
	// below the current one. There may be thousands.
	done map[string]bool
}

// Sync makes everything written before it durable. After an error every later
// call returns it.
func (e *Engine) Sync() error {
	e.sync.mu.Lock()
	defer e.sync.mu.Unlock()
	if e.sync.failed == nil {
		e.sync.failed = e.syncAll()
	}
	return e.sync.failed
}

func (e *Engine) syncAll() error {
	// Linux writes pages dirtied through a mapping at fsync of any descriptor;
	// elsewhere the mappings have to be flushed themselves.
	if runtime.GOOS != "linux" {
		if err := e.db.Sync(); err != nil {
			return fmt.Errorf("sync badger: %w", err)
		}
	}
	return e.sync.run()
}

func (s *syncer) run() error {
	entries, err := os.ReadDir(s.dir) // in order by name, so by number
	if err != nil {
		return fmt.Errorf("list badger directory: %w", err)
	}
	var last string // the value log being written
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), valueLogSuffix) {
			last = entry.Name()
		}
	}
	done := make(map[string]bool)
	for _, entry := range entries {
		name := entry.Name()
		final := strings.HasSuffix(name, valueLogSuffix) && name != last
		if !final && name != last && !strings.HasSuffix(name, memtableSuffix) {
			continue
		}
		if !s.done[name] {
			if err := s.file(filepath.Join(s.dir, name)); err != nil {
				return err
			}
		}
		if final {
			done[name] = true
		}
	}
	s.done = done
	return syncDir(s.dir)
}

const (
	memtableSuffix = ".mem"
	valueLogSuffix = ".vlog"
	tableSuffix    = ".sst"
)

func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("sync badger file: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDir makes creations and removals in dir durable. Windows does that by
// itself and cannot sync a directory.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}
