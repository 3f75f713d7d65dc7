package badger

import (
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"kvstore/internal/engine"
)

// sizesAge is how old the sizes in Stats may be: measuring lists a directory.
const sizesAge = 5 * time.Second

type sizes struct {
	mu                   sync.Mutex
	at                   time.Time
	tables, logs, values int64
}

// Stats returns sizes at most sizesAge old and counters since the start.
func (e *Engine) Stats() engine.Stats {
	var s engine.Stats
	s.LSMBytes, s.MemtableLogBytes, s.ValueLogBytes = e.sizes.get(e.dir)
	for _, level := range e.db.Levels() {
		s.Tables += level.NumTables
		if level.Level == 0 {
			s.LevelZeroTables = level.NumTables
		}
	}
	s.BlockCacheBytes, s.BlockCacheHitRatio = cacheStats(e.db.BlockCacheMetrics())
	s.IndexCacheBytes, s.IndexCacheHitRatio = cacheStats(e.db.IndexCacheMetrics())
	s.ValueLogRewrites = e.rewrites.Load()
	s.Floor = e.floor.get()
	return s
}

// cacheStats returns the bytes in a cache; nil is a cache that is off.
func cacheStats(m *ristretto.Metrics) (bytes int64, hitRatio float64) {
	if m == nil {
		return 0, 0
	}
	return max(0, int64(m.CostAdded())-int64(m.CostEvicted())), m.Ratio()
}

func (s *sizes) get(dir string) (tables, logs, values int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.IsZero() || time.Since(s.at) > sizesAge {
		s.measure(dir)
		s.at = time.Now()
	}
	return s.tables, s.logs, s.values
}

// measure adds up what is allocated; files vanish while it does.
func (s *sizes) measure(dir string) {
	s.tables, s.logs, s.values = 0, 0, 0
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue
		}
		switch filepath.Ext(entry.Name()) {
		case tableSuffix:
			s.tables += allocated(info)
		case memtableSuffix:
			s.logs += allocated(info)
		case valueLogSuffix:
			s.values += allocated(info)
		}
	}
}
