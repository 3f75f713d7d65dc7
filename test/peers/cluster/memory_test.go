package cluster

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMemoryOf(t *testing.T) {
	m, err := memoryOf("Name:\tkvstore\nVmRSS:\t    100 kB\nRssAnon:\t      60 kB\nRssFile:\t      30 kB\nRssShmem:\t      10 kB\n")
	if want := (Memory{Total: 100 << 10, Anonymous: 60 << 10, Mapped: 40 << 10}); err != nil || m != want {
		t.Errorf("%+v, %v; want %+v", m, err, want)
	}
	if _, err := memoryOf("Name:\tkvstore\nState:\tZ (zombie)\n"); err == nil {
		t.Error("a process without memory has some")
	}
}

// TestWatchMemory: a watch looks at least once, and says when a node is gone.
func TestWatchMemory(t *testing.T) {
	c := &Cluster{Name: "test", Nodes: []Node{{PID: os.Getpid()}}}
	peaks, err := c.WatchMemory(time.Hour)()
	if err != nil || peaks[0].Total == 0 {
		t.Errorf("%+v, %v", peaks, err)
	}
	c.Nodes[0].PID = -1
	if _, err := c.WatchMemory(time.Hour)(); err == nil {
		t.Error("a node that is gone has memory")
	}
}

func TestAllocated(t *testing.T) {
	dir := t.TempDir()
	sparse := filepath.Join(dir, "sparse")
	if err := os.WriteFile(sparse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(sparse, 1<<30); err != nil {
		t.Fatal(err)
	}
	if got, err := allocated(dir); err != nil || got >= 1<<20 {
		t.Errorf("a file of holes occupies %d bytes, %v", got, err)
	}
}

func TestSectorsWritten(t *testing.T) {
	got, err := sectorsWritten(" 129937 18655 4881690 86408 1904288 127128 142483656 351008 0 125368 489214\n")
	if err != nil || got != 142483656*512 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := sectorsWritten("1 2 3"); err == nil {
		t.Error("three fields are enough")
	}
	if _, err := deviceWritten(t.TempDir()); err != nil {
		t.Error(err)
	}
}
