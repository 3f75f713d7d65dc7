//go:build unix

package cluster

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"kvstore/test/cluster/harness"
)

// sources is a real tree: part of Go's own, all of it in long runs.
func sources(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "src")
	if *chaos < 10 {
		dir = filepath.Join(dir, "net")
	}
	if _, err := os.Stat(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestChaosImport (issue 2): a tree is imported and exported while nodes are
// killed and started again; what comes out is what went in.
func TestChaosImport(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	src := sources(t)
	imported := c.StartCtl("import", "dir", src, "--prefix", "go/", "--verify", "--quiet")
	kills := killWhile(t, c, imported)
	expectDone(t, imported)
	out := filepath.Join(t.TempDir(), "out")
	exported := c.StartCtl("export", "dir", out, "--prefix", "go/", "--verify", "--quiet")
	kills += killWhile(t, c, exported)
	expectDone(t, exported)
	files := compareTrees(t, src, out)
	t.Logf("%d files are equal after %d kills", files, kills)
	if kills == 0 {
		t.Error("no node was killed while a transfer ran")
	}
	c.WaitReady()
	c.ExpectEqualDigests(3)
}

// killWhile kills one node after the other until p ends.
func killWhile(t *testing.T, c *harness.Cluster, p *harness.Process) (kills int) {
	t.Helper()
	for {
		select {
		case <-p.Ended():
			return kills
		default:
		}
		victim := pick(t, 3)
		c.Kill(victim)
		kills++
		c.Restart(victim)
		c.WaitReady(victim)
	}
}

func expectDone(t *testing.T, p *harness.Process) {
	t.Helper()
	if code := p.Wait(t, 4*harness.Patience); code != 0 {
		t.Fatalf("%s ended with %d:\n%s", p.Name, code, p.Out)
	}
}

// compareTrees is `diff -r`: the same files, directories, links and bytes.
func compareTrees(t *testing.T, a, b string) (files int) {
	t.Helper()
	left, right := tree(t, a), tree(t, b)
	for path, kind := range left {
		if right[path] != kind {
			t.Errorf("%s is %q, was %q", path, right[path], kind)
			continue
		}
		if kind != "file" {
			continue
		}
		files++
		x, errA := os.ReadFile(filepath.Join(a, path))
		y, errB := os.ReadFile(filepath.Join(b, path))
		if errA != nil || errB != nil || !bytes.Equal(x, y) {
			t.Errorf("%s differs: %d and %d bytes, %v, %v", path, len(x), len(y), errA, errB)
		}
	}
	for path := range right {
		if left[path] == "" {
			t.Errorf("%s was not there", path)
		}
	}
	return files
}

func tree(t *testing.T, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		rel, err := filepath.Rel(root, path)
		switch {
		case d.IsDir():
			all[rel] = "directory"
		case d.Type()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(path)
			all[rel] = "link to " + to
		default:
			all[rel] = "file"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestResumedImport: kvctl itself is killed; the same command with --resume
// does the rest.
func TestResumedImport(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	src := sources(t)
	total := 0
	for _, kind := range tree(t, src) {
		if kind == "file" {
			total++
		}
	}
	count := func() int {
		var n int
		if _, err := fmt.Sscan(c.MustCtl("list", "go/", "--count"), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	args := []string{"import", "dir", src, "--prefix", "go/", "--quiet", "--parallel", "4"}
	cut := c.StartCtl(args...)
	harness.Eventually(t, func() error {
		if n := count(); n < total/20 {
			return fmt.Errorf("%d of %d files", n, total)
		}
		return nil
	})
	cut.Signal(syscall.SIGKILL)
	<-cut.Ended()
	before := count()
	if before >= total {
		t.Logf("the import was done before it could be cut (%d files)", before)
	}
	t.Logf("cut after %d of %d files", before, total)
	c.MustCtl(append(args, "--resume", "--verify")...)
	out := filepath.Join(t.TempDir(), "out")
	c.MustCtl("export", "dir", out, "--prefix", "go/", "--quiet")
	compareTrees(t, src, out)
}

// TestJSONLRoundTrip: all that is stored beside values survives, in another
// namespace.
func TestJSONLRoundTrip(t *testing.T) {
	c := harness.Start(t, harness.Options{Nodes: 1})
	lines := []string{
		`{"key":"a","value":"text","content_type":"text/plain","tags":{"k":"v"}}`,
		`{"key":"b","value_base64":"AAH/","metadata":{"m":"n"},"expires_at":"2100-01-01T00:00:00Z"}`,
		`{"key":"ключ/ с пробелом","value":"ü\n","encoding":"identity"}`,
	}
	for i := range 500 {
		lines = append(lines, fmt.Sprintf(`{"key":"n/%04d","value":"%d"}`, i, i))
	}
	if r := c.CtlInput(strings.Join(lines, "\n"), "import", "jsonl", "-", "--quiet", "--verify"); r.Code != 0 {
		t.Fatal(r)
	}
	export := func(namespace string) []string {
		file := filepath.Join(t.TempDir(), "out.jsonl")
		c.MustCtl("export", "jsonl", file, "--quiet", "--namespace", namespace)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Split(strings.TrimSpace(string(text)), "\n")
		slices.Sort(all)
		return all
	}
	first := export("default")
	if len(first) != len(lines) {
		t.Fatalf("%d records, want %d", len(first), len(lines))
	}
	c.MustCtl("namespace", "create", "other")
	if r := c.CtlInput(strings.Join(first, "\n"), "import", "jsonl", "-", "--quiet", "--namespace", "other"); r.Code != 0 {
		t.Fatal(r)
	}
	second := export("other")
	if len(second) != len(first) {
		t.Fatalf("%d records, want %d", len(second), len(first))
	}
	for i := range first {
		if a, b := content(t, first[i]), content(t, second[i]); a != b {
			t.Errorf("record %d differs:\n%s\n%s", i, a, b)
		}
	}
}

// content is a record without what every write makes anew.
func content(t *testing.T, line string) string {
	t.Helper()
	var record map[string]any
	if err := json.Unmarshal([]byte(line), &record); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"revision", "created_at", "updated_at"} {
		if record[name] == nil {
			t.Errorf("no %s in %s", name, line)
		}
		delete(record, name)
	}
	return fmt.Sprint(record) // with sorted keys
}
