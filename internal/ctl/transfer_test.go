package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"kvstore/internal/ctl/memserver"
	"kvstore/internal/ctl/target"

	api "kvstore/api/kvstore/v1"
)

// mustTree writes a tree with all that is unusual about names and modes.
func mustTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"a.txt": "hello\n", "empty": "", "sub/deep/b.json": "{}", "é ü/ω.md": "# x", "with\nnewline": "x", "-dash": "x",
		"sub/%41": "percent", ".hidden": "x", "quote\"'": "x", "big.bin": strings.Repeat("\x00\xff\x01", 1<<20),
	}
	if runtime.GOOS == "linux" {
		files["bad\xffname"] = "not UTF-8"
	}
	for name, content := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{
		os.Mkdir(filepath.Join(dir, "emptydir"), 0o755), os.Mkdir(filepath.Join(dir, "private"), 0o700),
		os.WriteFile(filepath.Join(dir, "private", "run.sh"), []byte("#!/bin/sh\n"), 0o755),
		os.Chmod(filepath.Join(dir, "a.txt"), 0o640), os.Symlink("deep/b.json", filepath.Join(dir, "sub", "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// snapshot describes a tree: name, mode, time and content of everything.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			out[rel] = info.Mode().String()
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			out[rel] = "-> " + target
			return err
		default:
			b, err := os.ReadFile(path)
			out[rel] = info.Mode().String() + info.ModTime().UTC().String() + string(b)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameTree(t *testing.T, want, have string) {
	t.Helper()
	w, h := snapshot(t, want), snapshot(t, have)
	for name, s := range w {
		if h[name] != s {
			t.Errorf("%q: want %.80q, have %.80q", name, s, h[name])
		}
		delete(h, name)
	}
	for name := range h {
		t.Errorf("%q is too much", name)
	}
}

func start(t *testing.T) *memserver.Server {
	t.Helper()
	isolate(t)
	s := memserver.Start(t)
	t.Setenv(target.EnvEndpoints, s.Addr)
	return s
}

func mustRun(t *testing.T, args ...string) result {
	t.Helper()
	r := kvctl("", args...)
	if r.code != 0 {
		t.Fatalf("kvctl %q: exit %d\n%s%s", args, r.code, r.out, r.err)
	}
	return r
}

func TestTreeRoundTrip(t *testing.T) {
	s := start(t)
	src, dst := mustTree(t), filepath.Join(t.TempDir(), "new", "dst")
	r := mustRun(t, "import", "dir", src, "--prefix", "p/", "--verify", "--parallel", "7", "-o", "json")
	var sum struct{ Items, Verified, Failed int }
	if err := json.Unmarshal([]byte(r.out), &sum); err != nil || sum.Items != s.Len() || sum.Verified != s.Len() || sum.Failed != 0 {
		t.Fatalf("%s %v; %d records", r.out, err, s.Len())
	}
	if got := s.Record("p/a.txt"); got.GetContentType() != "text/plain; charset=utf-8" || got.GetMetadata()["kvctl.mode"] != "0640" {
		t.Errorf("%v", got)
	}
	mustRun(t, "export", "dir", dst, "--prefix", "p/", "--verify")
	sameTree(t, src, dst)
	mustRun(t, "export", "dir", dst, "--prefix", "p/") // over what is there
	sameTree(t, src, dst)
}

func TestLinesRoundTrip(t *testing.T) {
	s := start(t)
	mustRun(t, "import", "dir", mustTree(t))
	before := map[string]*api.Record{}
	file := filepath.Join(t.TempDir(), "all.jsonl")
	mustRun(t, "export", "jsonl", file, "--verify")
	out := mustRun(t, "export", "jsonl", "-").out
	if b, err := os.ReadFile(file); err != nil || string(b) != out {
		t.Errorf("file and standard output differ, %v", err)
	}
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		var j struct{ Key string }
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			t.Fatal(err)
		}
		before[j.Key] = s.Record(j.Key)
		mustRun(t, "delete", "--", j.Key)
	}
	if s.Len() != 0 || len(before) == 0 {
		t.Fatalf("%d records left of %d", s.Len(), len(before))
	}
	mustRun(t, "import", "jsonl", file, "--verify")
	for key, was := range before {
		is := s.Record(key)
		if !bytes.Equal(is.GetValue(), was.GetValue()) || is.GetContentType() != was.GetContentType() || is.GetMetadata()["kvctl.mode"] != was.GetMetadata()["kvctl.mode"] {
			t.Errorf("%q came back as %.80v, was %.80v", key, is, was)
		}
	}
	r := kvctl(out+"{\"key\":\"a.txt\",\"value\":\"later\"}\n", "import", "jsonl", "-", "--verify")
	if r.code != 0 || string(s.Record("a.txt").GetValue()) != "later" {
		t.Errorf("the last line for a key wins: %+v, %s", r, s.Record("a.txt").GetValue())
	}
}

// cut makes operations of a verb fail for good after n of them.
func cut(s *memserver.Server, verb string, n int64) {
	var count atomic.Int64
	s.FailWith(func(v, _ string) error {
		if v == verb && count.Add(1) > n {
			return memserver.Errorf("deadline_exceeded", "made to fail")
		}
		return nil
	})
}

// counted counts operations of a verb.
func counted(s *memserver.Server, verb string) *atomic.Int64 {
	var count atomic.Int64
	s.FailWith(func(v, _ string) error {
		if v == verb {
			count.Add(1)
		}
		return nil
	})
	return &count
}

func TestImportResumesAfterACut(t *testing.T) {
	s := start(t)
	src := mustTree(t)
	cut(s, "put", 5)
	r := kvctl("", "import", "dir", src, "--parallel", "1", "--retry-for", "0s")
	if r.code != exitUnavailable || s.Len() != 5 || !strings.Contains(r.err, "--resume") {
		t.Fatalf("exit %d, %d records: %s", r.code, s.Len(), r.err)
	}
	// A crash may leave a torn line.
	journals, err := filepath.Glob(filepath.Join(os.Getenv("XDG_STATE_HOME"), "kvstore", "*.journal"))
	if err != nil || len(journals) != 1 {
		t.Fatalf("journals %v, %v", journals, err)
	}
	f, err := os.OpenFile(journals[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.WriteString(`{"k":"torn`)
	_ = f.Close()

	puts := counted(s, "put")
	r = mustRun(t, "import", "dir", src, "--parallel", "1", "--resume", "--verify")
	if !strings.Contains(r.out, "5 done before") || puts.Load() != int64(s.Len()-5) {
		t.Errorf("%d puts for %d records: %s", puts.Load(), s.Len(), r.out)
	}
	if _, err := os.Stat(journals[0]); !os.IsNotExist(err) {
		t.Errorf("the journal of finished work is still there: %v", err)
	}
}

func TestLinesResumeAfterACut(t *testing.T) {
	s := start(t)
	var lines strings.Builder
	for i := range 20 {
		lines.WriteString(`{"key":"k` + string(rune('a'+i)) + `","value":"x"}` + "\n\n")
	}
	file := filepath.Join(t.TempDir(), "in.jsonl")
	if err := os.WriteFile(file, []byte(lines.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cut(s, "put", 8)
	if r := kvctl("", "import", "jsonl", file, "--parallel", "1", "--retry-for", "0s"); r.code != exitUnavailable {
		t.Fatalf("%+v", r)
	}
	puts := counted(s, "put")
	if r := mustRun(t, "import", "jsonl", file, "--resume"); puts.Load() != 12 || s.Len() != 20 {
		t.Errorf("%d puts, %d records: %s", puts.Load(), s.Len(), r.out)
	}
}

func TestExportResumesAfterACut(t *testing.T) {
	s := start(t)
	src, dst := mustTree(t), filepath.Join(t.TempDir(), "dst")
	mustRun(t, "import", "dir", src)
	cut(s, "get", 6)
	args := []string{"export", "dir", dst, "--parallel", "1", "--retry-for", "0s"}
	if r := kvctl("", args...); r.code != exitUnavailable {
		t.Fatalf("%+v", r)
	}
	gets := counted(s, "get")
	mustRun(t, "export", "dir", dst, "--resume")
	if n := gets.Load(); n > int64(s.Len()-3) { // directories and links are read again
		t.Errorf("%d gets for %d records", n, s.Len())
	}
	sameTree(t, src, dst)
}

func TestExportedFileResumes(t *testing.T) {
	s := start(t)
	mustRun(t, "import", "dir", mustTree(t))
	file := filepath.Join(t.TempDir(), "out.jsonl")
	mustRun(t, "export", "jsonl", file)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, whole[:len(whole)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "export", "jsonl", file, "--resume")
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, whole) {
		t.Errorf("%d bytes, want %d, %v", len(got), len(whole), err)
	}
	_ = s
}

func TestTransientFailuresAreRetried(t *testing.T) {
	s := start(t)
	var n atomic.Int64
	s.FailWith(func(verb, _ string) error {
		if verb == "put" && n.Add(1)%3 == 0 {
			return memserver.Errorf("unknown_outcome", "made to fail")
		}
		return nil
	})
	src, dst := mustTree(t), filepath.Join(t.TempDir(), "dst")
	mustRun(t, "import", "dir", src)
	s.FailWith(nil)
	mustRun(t, "export", "dir", dst)
	sameTree(t, src, dst)
}

func TestVerifyFindsAChange(t *testing.T) {
	s := start(t)
	src := mustTree(t)
	mustRun(t, "import", "dir", src, "--no-journal")
	s.Change("a.txt", func(r *api.Record) { r.Value = []byte("jello\n") })
	if r := kvctl("", "export", "dir", filepath.Join(t.TempDir(), "x")); r.code != exitCorrupt || !strings.Contains(r.err, "a.txt") {
		t.Errorf("a value that does not match its checksum: %+v", r)
	}
	// Another writer replaces a value between the import and its check.
	var gets atomic.Int64
	s.FailWith(func(verb, _ string) error {
		if verb == "get" && gets.Add(1) == 1 {
			s.Replace("a.txt", []byte("other"))
		}
		return nil
	})
	if r := kvctl("", "import", "dir", src, "--verify", "--parallel", "1"); r.code != exitCorrupt || !strings.Contains(r.err, "a.txt") {
		t.Errorf("a value that differs from its source: %+v", r)
	}
}

func TestItemsThatCannotBeTransferred(t *testing.T) {
	s := start(t)
	src := t.TempDir()
	for name, size := range map[string]int{"ok": 1, "large": 16<<20 + 1, "largest": 16 << 20} {
		if err := os.WriteFile(filepath.Join(src, name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := kvctl("", "import", "dir", src, "--verify")
	if r.code != exitPartial || !strings.Contains(r.out, "1 FAILED") || s.Len() != 2 || !strings.Contains(r.err, "limit=16777216, actual=16777217") {
		t.Errorf("exit %d, %d records: %s", r.code, s.Len(), r.err)
	}
	r = kvctl("{\"key\":\"a\",\"value\":\"1\"}\nnonsense\n{\"key\":\"b\",\"value\":\"2\"}\n", "import", "jsonl", "-")
	if r.code != exitPartial || s.Record("b") == nil || !strings.Contains(r.err, "line 2") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
}

// TestExportStaysInside stores keys that name paths outside the target.
func TestExportStaysInside(t *testing.T) {
	s := start(t)
	parent := t.TempDir()
	dst := filepath.Join(parent, "dst")
	for _, key := range []string{"../escaped", "/etc/escaped", "a/../../escaped", "a//b", "./c", "d/.", "..", ".", "nul\x00byte", ".kvctl-partial/x"} {
		mustRun(t, "put", "p:"+key, "x")
	}
	mustRun(t, "put", "p:ok", "x")
	mustRun(t, "put", "p:raw", "x", "--meta", "kvctl.path=Li4vZXNjYXBlZA==") // ../escaped
	mustRun(t, "put", "p:out", "../..", "--meta", "kvctl.type=symlink")
	mustRun(t, "put", "p:abs", "/etc", "--meta", "kvctl.type=symlink")
	mustRun(t, "put", "p:mode", "x", "--meta", "kvctl.mode=4755")
	r := kvctl("", "export", "dir", dst, "--prefix", "p:")
	if r.code != exitPartial || !strings.Contains(r.out, "14 FAILED") {
		t.Errorf("exit %d: %s%s", r.code, r.out, r.err)
	}
	if got := snapshot(t, parent); len(got) != 2 || got[filepath.Join("dst", "ok")] == "" {
		t.Errorf("exported %v", got)
	}
	// A link that is there already does not lead out either.
	if err := os.Symlink(parent, filepath.Join(dst, "way")); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "put", "q:way/escaped", "x")
	if r := kvctl("", "export", "dir", dst, "--prefix", "q:"); r.code != exitPartial {
		t.Errorf("exit %d: %s", r.code, r.out)
	}
	if _, err := os.Stat(filepath.Join(parent, "escaped")); !os.IsNotExist(err) {
		t.Error("a file was written outside")
	}
	_ = s
}

func TestIfAbsentLeavesKeys(t *testing.T) {
	s := start(t)
	src := mustTree(t)
	mustRun(t, "put", "a.txt", "mine")
	r := mustRun(t, "import", "dir", src, "--if-absent")
	if string(s.Record("a.txt").GetValue()) != "mine" || !strings.Contains(r.out, "1 existed") {
		t.Errorf("%s", r.out)
	}
}

func TestResumeNeedsTheSameWork(t *testing.T) {
	s := start(t)
	src, journal := mustTree(t), filepath.Join(t.TempDir(), "j")
	cut(s, "put", 2)
	kvctl("", "import", "dir", src, "--journal", journal, "--retry-for", "0s")
	r := kvctl("", "import", "dir", src, "--journal", journal, "--resume", "--prefix", "other/")
	if r.code == 0 || !strings.Contains(r.err, "is about import dir") {
		t.Errorf("%+v", r)
	}
	if r := kvctl("", "import", "jsonl", "-", "--resume"); r.code != exitUsage {
		t.Errorf("%+v", r)
	}
}

func TestInterruptedImportKeepsItsJournal(t *testing.T) {
	s := start(t)
	src := mustTree(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var n atomic.Int64
	s.FailWith(func(string, string) error {
		if n.Add(1) == 4 {
			cancel()
		}
		return nil
	})
	var out, errs bytes.Buffer
	code := Run(ctx, []string{"import", "dir", src, "--parallel", "1"}, Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	if code != exitInterrupted || !strings.Contains(errs.String(), "--resume") {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	s.FailWith(nil)
	if r := mustRun(t, "import", "dir", src, "--resume", "--verify"); !strings.Contains(r.out, "done before") {
		t.Errorf("%s", r.out)
	}
}

// What has expired by the cluster's clock only is counted as what has by this one's.
func TestImportOfExpiredRecords(t *testing.T) {
	s := start(t)
	in := `{"key":"old","value":"1","expires_at":"2027-01-15T00:00:00Z"}
{"key":"older","value":"2","expires_at":"2001-01-15T00:00:00Z"}
{"key":"new","value":"3","expires_at":"2127-01-15T00:00:00Z"}
`
	r := kvctl(in, "import", "jsonl", "-", "-o", "json")
	var sum struct{ Items, Expired, Failed int }
	if err := json.Unmarshal([]byte(r.out), &sum); err != nil || r.code != 0 || sum.Expired != 2 || sum.Items != 1 || s.Len() != 1 {
		t.Fatalf("exit %d: %s%s %v", r.code, r.out, r.err, err)
	}
}
