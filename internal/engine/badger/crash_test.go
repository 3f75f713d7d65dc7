package badger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// image is the content of a directory at one moment.
type image map[string][]byte

// takeImage copies the files as the page cache has them.
func takeImage(t *testing.T, dir string) image {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := image{}
	for _, entry := range entries {
		if entry.Name() == "LOCK" {
			continue
		}
		files[entry.Name()] = readLog(t, filepath.Join(dir, entry.Name()))
	}
	return files
}

func readLog(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return b
}

func (files image) write(t *testing.T, dir string) {
	t.Helper()
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// mayLose reports files that Badger writes without syncing.
func mayLose(name string) bool {
	return strings.HasSuffix(name, memtableSuffix) || strings.HasSuffix(name, valueLogSuffix) || name == "DISCARD"
}

// recordSyncs fills an image with each file as it is when e syncs it.
func recordSyncs(t *testing.T, e *Engine) image {
	synced := image{}
	e.sync.done = nil
	e.sync.file = func(path string) error {
		synced[filepath.Base(path)] = readLog(t, path)
		return syncFile(path)
	}
	return synced
}

// powerCut mixes what was durable at the last Sync with what the page cache
// had at the end, page by page: any subset of unsynced pages may have reached
// the disk, and new files may have kept their name only, or not even that.
func powerCut(rng *rand.Rand, synced, last image) image {
	const page = 4096
	after := image{}
	for name, b := range last {
		if !mayLose(name) {
			after[name] = b
			continue
		}
		old, existed := synced[name]
		if !existed {
			switch rng.IntN(4) {
			case 0:
				continue
			case 1:
				after[name] = nil
				continue
			}
		}
		mixed := make([]byte, max(len(b), len(old)))
		for at := 0; at < len(mixed); at += page {
			from := b
			if rng.IntN(2) == 0 {
				from = old
			}
			if at < len(from) {
				copy(mixed[at:min(at+page, len(mixed))], from[at:])
			}
		}
		after[name] = mixed
	}
	return after
}

// history writes values that can be told from their key and revision.
func historyValue(k int, rev keyspace.Revision) []byte {
	size := 30
	if k%3 == 0 {
		size = 700 + k // above the value threshold
	}
	v := make([]byte, 0, size+16)
	for len(v) < size {
		v = binary.BigEndian.AppendUint64(v, uint64(rev)*1_000_003+uint64(k))
	}
	return v
}

func historyKey(k int) []byte {
	return append(keyspace.AppendInstance(nil, 1), fmt.Sprintf("key%05d", k)...)
}

func writeHistory(t *testing.T, e *Engine, rev keyspace.Revision, keys int) {
	t.Helper()
	writes := make([]engine.Write, keys)
	for k := range writes {
		writes[k] = engine.Write{Key: historyKey(k), Revision: rev, Value: historyValue(k, rev)}
	}
	if err := e.Write(context.Background(), writes); err != nil {
		t.Fatal(err)
	}
}

func wantHistory(t *testing.T, e engine.Engine, rev keyspace.Revision, keys int) {
	t.Helper()
	r := e.Reader()
	defer r.Close()
	for k := range keys {
		value, got, ok, err := r.Get(historyKey(k), rev)
		if err != nil || !ok || got != rev || string(value) != string(historyValue(k, rev)) {
			t.Fatalf("key %d at %d: version %d, %d bytes, found %t, error %v", k, uint64(rev), uint64(got), len(value), ok, err)
		}
	}
}

// E3, DESIGN 5: after a power cut the store opens, has all that was
// synced, and takes the rest again from the replay.
func TestPowerCutKeepsSynced(t *testing.T) {
	const keys, syncedTo, lastRev = 600, 6, 12
	dir := t.TempDir()
	e := mustOpen(t, dir)
	for rev := keyspace.Revision(1); rev <= syncedTo; rev++ {
		writeHistory(t, e, rev, keys)
	}
	synced := recordSyncs(t, e)
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	for rev := keyspace.Revision(syncedTo + 1); rev <= lastRev; rev++ {
		writeHistory(t, e, rev, keys)
	}
	last := takeImage(t, dir)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) {
			dir := t.TempDir()
			powerCut(rand.New(rand.NewPCG(seed, 1)), synced, last).write(t, dir)
			e := mustOpen(t, dir)
			defer mustClose(t, e)
			for rev := keyspace.Revision(1); rev <= syncedTo; rev++ {
				wantHistory(t, e, rev, keys)
			}
			for rev := keyspace.Revision(syncedTo + 1); rev <= lastRev; rev++ {
				writeHistory(t, e, rev, keys)
			}
			for rev := keyspace.Revision(1); rev <= lastRev; rev++ {
				wantHistory(t, e, rev, keys)
			}
		})
	}
}

// Without Sync nothing is promised, but the store opens.
func TestPowerCutBeforeFirstSync(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	writeHistory(t, e, 1, 2000)
	last := takeImage(t, dir)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(6) {
		dir := t.TempDir()
		powerCut(rand.New(rand.NewPCG(seed, 2)), image{}, last).write(t, dir)
		e := mustOpen(t, dir)
		writeHistory(t, e, 1, 2000)
		wantHistory(t, e, 1, 2000)
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// E3: a process that is killed loses nothing it had written, synced or not.
func TestKillKeepsAll(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	for rev := keyspace.Revision(1); rev <= 5; rev++ {
		writeHistory(t, e, rev, 500)
	}
	killed := t.TempDir()
	takeImage(t, dir).write(t, killed)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	after := mustOpen(t, killed)
	defer mustClose(t, after)
	for rev := keyspace.Revision(1); rev <= 5; rev++ {
		wantHistory(t, after, rev, 500)
	}
}

func TestSyncErrorStays(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	defer mustClose(t, e)
	e.sync.dir = filepath.Join(dir, "gone")
	first := e.Sync()
	if first == nil {
		t.Fatal("synced a directory that is not there")
	}
	e.sync.dir = dir
	if err := e.Sync(); !errors.Is(err, first) {
		t.Fatalf("the second sync returned %v, want %v again", err, first)
	}
}
