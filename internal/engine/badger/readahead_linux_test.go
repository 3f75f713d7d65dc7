package badger

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kvstore/internal/engine"
	"kvstore/internal/keyspace"
)

// What Badger appends to is mapped without read-ahead, whichever file that is
// by now; value logs that are full are read ahead.
func TestFilesBeingWrittenAreNotReadAhead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "with spaces")
	e := mustOpen(t, dir)
	defer mustClose(t, e)
	mustBeRandom(t, dir, memtableSuffix)
	mustBeRandom(t, dir, valueLogSuffix)

	first := newestFile(t, dir, valueLogSuffix)
	value := bytes.Repeat([]byte{7}, 64<<10)
	for rev := keyspace.Revision(1); newestFile(t, dir, valueLogSuffix) == first; rev++ {
		if rev > 1000 {
			t.Fatalf("%s is still the newest value log", first)
		}
		w := engine.Write{Key: keyspace.AppendInstance(nil, 1), Revision: rev, Value: value}
		if err := e.Write(t.Context(), []engine.Write{w}); err != nil {
			t.Fatal(err)
		}
	}
	mustBeRandom(t, dir, memtableSuffix)
	mustBeRandom(t, dir, valueLogSuffix)
	if random, mapped := isRandom(t, first); !mapped || random {
		t.Errorf("%s, which is full: mapped %v, without read-ahead %v", first, mapped, random)
	}
}

// mustBeRandom checks the newest file of a kind.
func mustBeRandom(t *testing.T, dir, suffix string) {
	t.Helper()
	path := newestFile(t, dir, suffix)
	if random, mapped := isRandom(t, path); !random || !mapped {
		t.Errorf("%s: mapped %v, without read-ahead %v", path, mapped, random)
	}
}

func newestFile(t *testing.T, dir, suffix string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil || len(files) == 0 {
		t.Fatalf("no %s in %s: %v", suffix, dir, err)
	}
	return slices.Max(files)
}

// isRandom reports whether a file is mapped, and whether any part of its mapping has
// the flag of random access.
func isRandom(t *testing.T, path string) (random, mapped bool) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	inside := false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if m, ok := parseMapping(line); ok {
			inside = m.path == path
			mapped = mapped || inside
		} else if strings.Contains(strings.SplitN(line, " ", 2)[0], "-") {
			inside = false // a mapping of no file
		}
		if flags, ok := strings.CutPrefix(line, "VmFlags:"); ok && inside {
			random = random || slices.Contains(strings.Fields(flags), "rr")
		}
	}
	return random, mapped
}

func TestParseMapping(t *testing.T) {
	for line, want := range map[string]string{
		"7f00a000-7f00c000 rw-s 00000000 fe:00 99 /data/a b/000001.vlog": "7f00a000-7f00c000 /data/a b/000001.vlog",
		"7f00a000-7f00c000 r--p 00000000 fe:00 99            /data/x":    "7f00a000-7f00c000 /data/x",
		"7f00a000-7f00c000 rw-p 00000000 00:00 0 ":                       "",
		"7f00a000-7f00c000 rw-p 00000000 00:00 0 [heap]":                 "",
		"7f00a000 rw-s 00000000 fe:00 99 /data/x":                        "",
		"7f00c000-7f00a000 rw-s 00000000 fe:00 99 /data/x":               "",
		"x-y rw-s 00000000 fe:00 99 /data/x":                             "",
	} {
		got := ""
		if m, ok := parseMapping(line); ok {
			got = fmt.Sprintf("%x-%x %s", m.start, m.end, m.path)
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}
