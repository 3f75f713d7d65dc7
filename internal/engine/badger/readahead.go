package badger

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// readahead keeps the kernel from reading ahead in the files that Badger appends
// to: the memtable log and the newest value log.
//
// Badger appends to them through mappings of sparse files. The first touch of a
// page is a fault, and the kernel answers a fault as it does a read: it brings in
// what is around too, as much as the device is set to read ahead. Here all of
// that is zeroes, made in one go while nothing else gets that CPU (8 MB of them
// take 20 ms, once for every 8 MB that are written), and in large folios, which
// count as changed whole once a byte of them changes. Told that access is random,
// the kernel brings in the page that is touched.
//
// Badger does not give its mappings away, so they are looked up in the kernel's
// list. One that goes or moves between that and the advice does no harm: advice
// changes no bytes. A value log that is full is read ahead again; what is read
// from the newest one after it left memory comes page by page until then.
type readahead struct {
	dir string // as the kernel names it
	log *slog.Logger

	mu sync.Mutex
	// The newest files that the kernel was told about; mu must be held.
	values, memtables series
}

// series is the files of one kind, which Badger numbers without gaps.
type series struct {
	path   func(number uint32) string
	newest uint32
}

// advance finds files that are new, and reports whether there were any.
func (s *series) advance() bool {
	found := false
	for {
		if _, err := os.Stat(s.path(s.newest + 1)); err != nil {
			return found
		}
		s.newest++
		found = true
	}
}

func newReadahead(dir string, log *slog.Logger) (*readahead, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("path of badger directory: %w", err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil {
		return nil, fmt.Errorf("path of badger directory: %w", err)
	}
	r := &readahead{dir: abs, log: log}
	r.values.path = func(n uint32) string { return valueLogPath(abs, n) }
	r.memtables.path = func(n uint32) string { return memtablePath(abs, n) }
	if err := r.begin(); err != nil {
		return nil, err
	}
	return r, nil
}

func memtablePath(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%05d%s", number, memtableSuffix))
}

// begin starts from the files that are there.
func (r *readahead) begin() error {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return fmt.Errorf("list badger directory: %w", err)
	}
	for _, entry := range entries {
		r.values.note(entry.Name(), valueLogSuffix)
		r.memtables.note(entry.Name(), memtableSuffix)
	}
	r.advise()
	return nil
}

func (s *series) note(name, suffix string) {
	var number uint32
	if base, ok := strings.CutSuffix(name, suffix); ok {
		if _, err := fmt.Sscanf(base, "%d", &number); err == nil {
			s.newest = max(s.newest, number)
		}
	}
}

// follow looks for files that Badger began since it was called last.
func (r *readahead) follow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	values, memtables := r.values.advance(), r.memtables.advance()
	if values || memtables {
		r.advise()
	}
}

// advise tells the kernel about all of Badger's logs.
func (r *readahead) advise() {
	newest := r.values.path(r.values.newest)
	err := adviseMappings(func(path string) advice {
		switch {
		case filepath.Dir(path) != r.dir:
			return adviseNothing
		case path == newest, strings.HasSuffix(path, memtableSuffix):
			return adviseRandom
		case strings.HasSuffix(path, valueLogSuffix):
			return adviseNormal
		}
		return adviseNothing
	})
	if err != nil {
		r.log.Debug("the kernel reads ahead in files that are written", "error", err)
	}
}

// advice is how a mapping will be used.
type advice uint8

const (
	adviseNothing advice = iota
	adviseNormal
	adviseRandom
	advisePageOut
)
