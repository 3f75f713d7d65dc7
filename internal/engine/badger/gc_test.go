package badger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	badgerdb "github.com/dgraph-io/badger/v4"

	"kvstore/internal/engine"
	"kvstore/internal/env/system"
	"kvstore/internal/keyspace"
)

const (
	gcKeys = 600
	gcLast = keyspace.Revision(12)
)

// garbageStore has value logs that are mostly garbage below the floor: every
// key was overwritten, every fourth one is deleted.
func garbageStore(t *testing.T) *Engine {
	t.Helper()
	e := mustOpen(t, t.TempDir())
	for rev := keyspace.Revision(1); rev <= gcLast; rev++ {
		gcRound(t, e, rev)
		if rev%4 == 0 {
			// Closing flushes the memtable to a table of its own.
			mustClose(t, e)
			e = mustOpen(t, e.dir)
		}
	}
	// All versions have to meet in a compaction that knows the floor. Badger's
	// own may be earlier, so the last round is written again until one did.
	for range 20 {
		e.SetFloor(gcLast)
		if err := e.db.Flatten(1); err != nil {
			t.Fatal(err)
		}
		if _, ok := e.candidate(); ok {
			return e
		}
		gcRound(t, e, gcLast)
		mustClose(t, e)
		e = mustOpen(t, e.dir)
	}
	t.Fatal("no compaction found garbage")
	return nil
}

func gcRound(t *testing.T, e *Engine, rev keyspace.Revision) {
	t.Helper()
	writes := make([]engine.Write, gcKeys)
	for k := range writes {
		writes[k] = engine.Write{Key: historyKey(k), Revision: rev, Value: gcValue(k, rev)}
		if rev == gcLast && k%4 == 0 {
			writes[k].Value, writes[k].Delete = nil, true
		}
	}
	if err := e.Write(context.Background(), writes); err != nil {
		t.Fatal(err)
	}
}

func gcValue(k int, rev keyspace.Revision) []byte {
	return append(historyValue(k, rev), make([]byte, 1200)...)
}

func wantGarbageStore(t *testing.T, e *Engine) {
	t.Helper()
	r := e.Reader()
	defer r.Close()
	for k := range gcKeys {
		value, rev, ok, err := r.Get(historyKey(k), keyspace.MaxRevision)
		if err != nil {
			t.Fatalf("key %d: %v", k, err)
		}
		if deleted := k%4 == 0; ok == deleted {
			t.Fatalf("key %d: found %t at %d, deleted %t", k, ok, uint64(rev), deleted)
		}
		if ok && (rev != gcLast || string(value) != string(gcValue(k, rev))) {
			t.Fatalf("key %d: version %d with %d bytes", k, uint64(rev), len(value))
		}
	}
}

func valueLogs(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+valueLogSuffix))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// E2: the space of overwritten and deleted values returns by itself.
func TestCollectReturnsSpace(t *testing.T) {
	e := garbageStore(t)
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	before := valueLogs(t, e.dir)
	if err := e.collect(context.Background()); err != nil {
		t.Fatal(err)
	}
	after := valueLogs(t, e.dir)
	if e.Stats().ValueLogRewrites == 0 || len(after) >= len(before)/2 {
		t.Fatalf("%d rewrites, %d value logs of %d left", e.Stats().ValueLogRewrites, len(after), len(before))
	}
	if _, found, err := readMarker(e.dir); found || err != nil {
		t.Fatalf("the marker is there: %t, %v", found, err)
	}
	wantGarbageStore(t, e)
	if e.floor.paused || e.floor.get() != gcLast {
		t.Fatalf("the floor is %d, paused %t", e.floor.get(), e.floor.paused)
	}
}

func TestMaintenanceRunsByItself(t *testing.T) {
	e := garbageStore(t)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e, err := open(e.dir, testOptions(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for e.rewrites.Load() == 0 {
		if err := system.Pause(ctx, time.Millisecond); err != nil {
			t.Fatal("no value log was rewritten")
		}
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// A power cut while copies of live values are not yet durable loses none of
// them, although they were durable before (DESIGN 5, 10).
func TestPowerCutDuringRewrite(t *testing.T) {
	e := garbageStore(t)
	synced := recordSyncs(t, e)
	if err := e.Sync(); err != nil {
		t.Fatal(err)
	}
	rewritten := 0
	for {
		fid, ok := e.candidate()
		if !ok {
			break
		}
		last := rewriteWithoutSync(t, e, fid)
		rewritten++
		for seed := range uint64(4) {
			dir := t.TempDir()
			after := powerCut(rand.New(rand.NewPCG(seed, 3)), synced, last)
			after.write(t, dir)
			survivor := mustOpen(t, dir)
			wantGarbageStore(t, survivor)
			if _, found, err := readMarker(dir); found || err != nil {
				t.Fatalf("the marker is there: %t, %v", found, err)
			}
			if err := survivor.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if rewritten == 0 {
		t.Fatal("nothing was rewritten")
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// rewriteWithoutSync returns the files at the moment before a rewrite would
// sync its copies.
func rewriteWithoutSync(t *testing.T, e *Engine, fid uint32) image {
	t.Helper()
	if err := writeMarker(e.dir, fid); err != nil {
		t.Fatal(err)
	}
	release := e.holdValueLogs()
	defer release()
	if err := e.db.RunValueLogGC(garbageRatio); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(valueLogPath(e.dir, fid)); err != nil {
		t.Fatalf("the candidate was deleted before its copies are durable: %v", err)
	}
	files := takeImage(t, e.dir)
	if err := removeMarker(e.dir); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestCandidateIsBadgersChoice(t *testing.T) {
	e := garbageStore(t)
	defer mustClose(t, e)
	fid, ok := e.candidate()
	if !ok {
		t.Fatal("no candidate")
	}
	if err := e.db.RunValueLogGC(garbageRatio); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(valueLogPath(e.dir, fid)); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("value log %d is still there: %v", fid, err)
	}
	for ok {
		if err := e.db.RunValueLogGC(garbageRatio); err != nil && !errors.Is(err, badgerdb.ErrNoRewrite) {
			t.Fatal(err)
		} else if err != nil {
			break
		}
	}
	if fid, ok := e.candidate(); ok {
		t.Fatalf("value log %d is a candidate, but not for Badger", fid)
	}
}

// A repair restores what the store points to and nothing else.
func TestRepairLeavesDeletedKeysAlone(t *testing.T) {
	e := garbageStore(t)
	fids := valueLogs(t, e.dir)
	for _, name := range fids {
		var fid uint32
		if _, err := fmt.Sscanf(filepath.Base(name), "%06d", &fid); err != nil {
			t.Fatal(err)
		}
		if err := e.repairFrom(fid); err != nil {
			t.Fatal(err)
		}
	}
	wantGarbageStore(t, e)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTornMarkerMeansNoRewrite(t *testing.T) {
	dir := t.TempDir()
	e := mustOpen(t, dir)
	writeHistory(t, e, 1, 100)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "1", "\x00\x00", "x\n"} {
		if err := os.WriteFile(filepath.Join(dir, markerName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		e := mustOpen(t, dir)
		wantHistory(t, e, 1, 100)
		if _, found, _ := readMarker(dir); found {
			t.Fatalf("marker %q is still there", text)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
